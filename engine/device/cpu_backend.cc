#include "engine/device/cpu_backend.h"

#include <algorithm>
#include <new>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "engine/device/batch_check.h"
#include "engine/device/cpu_count.h"
#include "kernels/status.h"

namespace svdserve {
namespace {

// The default arena runs batches of this size at full speed.
constexpr int kDefaultBatchTokens = 16384;
constexpr int kDefaultBatchInputs = 512;
constexpr int kMaxThreads = 1024;

// A worker computes chunks of up to 256 rows alone; with four of them each, no
// worker waits long for the last one.
constexpr int kFullSpeedTokensAThread = 1024;

kernels::PoolKind PoolKindOf(Pooling pooling) {
  switch (pooling) {
    case Pooling::kMean:
      return kernels::PoolKind::kMean;
    case Pooling::kCls:
      return kernels::PoolKind::kCls;
    case Pooling::kMax:
      return kernels::PoolKind::kMax;
  }
  return kernels::PoolKind::kMean;
}

PlanTarget TargetOf(const CpuWeights& weights, int threads) {
  return {.element_bytes = kernels::BytesOf(weights.type),
          .threads = threads,
          .row_tile = kernels::PackedMatmul::kRowTile,
          .heads_per_panel = weights.heads_per_panel,
          .kernel_scratch_bytes = weights.scratch_bytes};
}

}  // namespace

absl::StatusOr<std::unique_ptr<CpuBackend>> CpuBackend::Create(
    const Model& model, const BackendOptions& options) {
  if (options.threads < 0 || options.threads > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%d compute threads; 0 (all processors) to %d are "
                        "possible",
                        options.threads, kMaxThreads));
  }
  if (options.compute == ComputeType::kF16) {
    return absl::InvalidArgumentError(
        "float16 is for GPUs; a CPU computes in float32 or bfloat16");
  }
  const int threads = options.threads > 0 ? options.threads : UsableCpus();
  absl::StatusOr<CpuWeights> weights =
      PackForCpu(model, options.compute, threads);
  if (!weights.ok()) return weights.status();

  const PlanTarget target = TargetOf(*weights, threads);
  const Planner planner(model.shape, target, options.arena_bytes);
  if (options.arena_bytes > 0 &&
      options.arena_bytes < planner.MinimumArenaBytes()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "an arena of %d bytes is too small: an input of %d tokens needs %d",
        options.arena_bytes, model.shape.max_tokens,
        planner.MinimumArenaBytes()));
  }
  const uint64_t arena_bytes =
      options.arena_bytes > 0
          ? options.arena_bytes
          : planner.ArenaBytesFor(kDefaultBatchTokens, kDefaultBatchInputs);
  try {
    return std::unique_ptr<CpuBackend>(
        new CpuBackend(model, *std::move(weights), target, arena_bytes));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("no memory for an arena of %d bytes", arena_bytes));
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "cannot start %d compute threads: %s", threads, error.what()));
  }
}

CpuBackend::CpuBackend(const Model& model, CpuWeights weights,
                       const PlanTarget& target, uint64_t arena_bytes)
    : shape_(model.shape),
      target_(target),
      weights_(std::move(weights)),
      arena_(arena_bytes),
      team_(target.threads, "cpu"),
      encoder_(shape_, PoolKindOf(model.config.pooling), weights_, team_,
               arena_) {
  const bool bf16 = weights_.type == kernels::DataType::kBF16;
  info_ = {.name = "cpu",
           .reason = "asked for",
           .dtype = bf16 ? "bfloat16" : "float32",
           .mode = "strict",
           .weight_bytes = weights_.bytes,
           .arena_bytes = arena_bytes,
           .full_speed_tokens = kFullSpeedTokensAThread * target.threads};
}

bool CpuBackend::IsMine(const Plan& plan) const {
  const int layers = weights_.layers.size();
  const int heads = weights_.head.size();
  if (plan.steps.size() != 2 + 2 * layers + heads) return false;
  for (const Step& step : plan.steps) {
    const bool in_head = step.kind == StepKind::kHead;
    if (step.layer >= (in_head ? heads : layers)) return false;
    if (step.lanes != 1 && step.lanes != target_.threads) return false;
  }
  const Buffer* hidden = plan.Find(plan.steps[0], Role::kHidden);
  return hidden != nullptr && hidden->bytes >= uint64_t{1} * plan.shape.tokens *
                                                   shape_.hidden *
                                                   target_.element_bytes;
}

absl::Status CpuBackend::Validate(const Plan& plan,
                                  const PackedBatch& batch) const {
  if (plan.peak_bytes > arena_.bytes()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("the plan needs %d bytes; the arena has %d",
                        plan.peak_bytes, arena_.bytes()));
  }
  if (!IsMine(plan)) {
    return absl::InvalidArgumentError(
        "the plan was made for another model or another backend");
  }
  return CheckBatch(plan, batch,
                    {.vocab = weights_.word.rows,
                     .type_vocab = weights_.token_type.rows,
                     .max_positions = weights_.position.rows,
                     .output_width = shape_.output_width()});
}

absl::Status CpuBackend::Launch(int slot, const Plan& plan,
                                const PackedBatch& batch) {
  if (slot != 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("slot %d; the CPU has slot 0 only", slot));
  }
  launched_sequences_ = 0;
  if (absl::Status status = Validate(plan, batch); !status.ok()) return status;
  const kernels::KernelStatus status = encoder_.Run(plan, batch);
  if (status != kernels::KernelStatus::kOk) {
    return absl::InternalError(absl::StrFormat(
        "a kernel failed: %s", kernels::KernelStatusName(status)));
  }
  launched_sequences_ = batch.sequences();
  return absl::OkStatus();
}

absl::Status CpuBackend::Collect(int slot, BatchOutput* output) {
  if (slot != 0 || launched_sequences_ == 0) {
    return absl::FailedPreconditionError(
        absl::StrFormat("no batch was launched in slot %d", slot));
  }
  output->width = shape_.output_width();
  const float* values = encoder_.output();
  output->values.assign(
      values, values + int64_t{1} * launched_sequences_ * output->width);
  launched_sequences_ = 0;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(
    const Model& model, const BackendOptions& options) {
  return CpuBackend::Create(model, options);
}

}  // namespace svdserve
