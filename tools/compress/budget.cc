#include "tools/compress/budget.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_format.h"
#include "engine/plan/plan.h"
#include "tools/compress/rank_allocation.h"
#include "tools/inspect/cuda_target.h"

namespace svdserve {

const char* BudgetName(Budget::Kind kind) {
  switch (kind) {
    case Budget::Kind::kRatio:
      return "ratio";
    case Budget::Kind::kActivationBytes:
      return "max_activation_bytes_per_token";
    case Budget::Kind::kCosine:
      return "min_cosine";
  }
  return "?";
}

absl::Status CheckBudget(const Budget& budget) {
  const bool positive = budget.value > 0;  // also refuses NaN
  switch (budget.kind) {
    case Budget::Kind::kRatio:
      return CheckRatio(budget.value);
    case Budget::Kind::kActivationBytes:
      if (positive) return absl::OkStatus();
      return absl::InvalidArgumentError(
          absl::StrFormat("%g activation bytes per token: want a number above "
                          "0",
                          budget.value));
    case Budget::Kind::kCosine:
      if (positive && budget.value < 1) return absl::OkStatus();
      break;
  }
  return absl::InvalidArgumentError(absl::StrFormat(
      "least cosine %g: want a number above 0 and below 1", budget.value));
}

ModelShape ShapeWith(const ModelShape& dense,
                     const std::vector<LayerForm>& forms) {
  ModelShape shape = dense;
  shape.layers.clear();
  for (const LayerForm& form : forms) {
    const auto rank = [&form](MatrixKind kind) {
      return form.ranks[static_cast<int>(kind)];
    };
    shape.layers.push_back(
        {.query = rank(MatrixKind::kQuery),
         .key = rank(MatrixKind::kKey),
         .value = rank(MatrixKind::kValue),
         .attention_output = rank(MatrixKind::kAttentionOutput),
         .ffn_in = rank(MatrixKind::kFfnIn),
         .ffn_out = rank(MatrixKind::kFfnOut),
         .query_dim = form.query_dim,
         .value_dim = form.value_dim});
  }
  return shape;
}

absl::StatusOr<double> ActivationBytesPerToken(const ModelShape& shape) {
  constexpr int kInputs = 32;
  constexpr int kTokens = 256;
  // The arena that the server takes by default.
  constexpr int kArenaTokens = 65536;
  constexpr int kArenaInputs = 512;
  const int length = std::min(kTokens, shape.max_tokens);
  const PlanTarget target = HopperTarget(shape);
  const uint64_t arena =
      Planner(shape, target, 0).ArenaBytesFor(kArenaTokens, kArenaInputs);
  absl::StatusOr<Plan> plan = Planner(shape, target, arena)
                                  .MakePlan({.sequences = kInputs,
                                             .tokens = kInputs * length,
                                             .max_tokens = length});
  if (!plan.ok()) return plan.status();
  return static_cast<double>(plan->peak_bytes) / (kInputs * length);
}

}  // namespace svdserve
