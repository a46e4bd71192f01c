// How a batch will run, decided on the CPU before anything runs.
//
// Planning is pure: the same arguments give the same Plan, no device is
// touched, and every number that admission, Estimate, the metrics and the tests
// use comes from here. A backend executes exactly the plan, inside an arena of
// at least `peak_bytes`.
//
//   Planner planner(shape, {.element_bytes = 4, .threads = 2}, arena_bytes);
//   absl::StatusOr<Plan> plan = planner.MakePlan({.tokens = 8192, ...});
#ifndef SVDSERVE_ENGINE_PLAN_PLAN_H_
#define SVDSERVE_ENGINE_PLAN_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model_shape.h"

namespace svdserve {

// What a batch looks like to the planner. Planners round it up to a bucket.
struct BatchShape {
  int sequences = 0;
  int tokens = 0;      // sum of lengths
  int max_tokens = 0;  // longest sequence
  friend bool operator==(const BatchShape&, const BatchShape&) = default;
};

// Facts of the backend that shape a plan.
struct PlanTarget {
  int element_bytes = 4;  // of activations: 4 (fp32) or 2 (bf16)
  int threads = 1;        // workspaces that are in use side by side
  int row_tile = 16;      // rows of one matmul call; tails are padded to it
};

// A named range of the arena. Buffers whose lifetimes do not meet may overlap.
struct Buffer {
  std::string name;
  uint64_t offset = 0;  // bytes, 64-byte aligned
  uint64_t bytes = 0;
};

enum class StepKind { kEmbed, kAttention, kFeedForward, kPool, kHead };
// How a step runs its matrices.
enum class Way { kNone, kFactoredFused, kDense };

// One step; the indices point into Plan::buffers.
struct Step {
  StepKind kind = StepKind::kEmbed;
  Way way = Way::kNone;
  int layer = -1;
  int rows_per_chunk = 0;   // tokens whose intermediates exist at once
  int heads_per_group = 0;  // heads whose K and V exist at once
  std::vector<int> reads;
  std::vector<int> writes;
  std::vector<int> scratch;
};

struct Plan {
  BatchShape shape;  // rounded up to its bucket
  std::vector<Buffer> buffers;
  std::vector<Step> steps;
  uint64_t peak_bytes = 0;  // max over buffers of offset + bytes
  double predicted_seconds = 0;

  std::string ToString() const;  // one line a step, one line a buffer
};

// The additive cost of inputs: for every batch that is within the limits,
//   MakePlan(batch).peak_bytes <= fixed_bytes + sum of ChargeFor(length).
class CostFunction {
 public:
  CostFunction() = default;
  CostFunction(uint64_t fixed_bytes, uint64_t bytes_per_token,
               uint64_t bytes_per_input)
      : fixed_bytes_(fixed_bytes),
        bytes_per_token_(bytes_per_token),
        bytes_per_input_(bytes_per_input) {}

  uint64_t fixed_bytes() const { return fixed_bytes_; }
  uint64_t ChargeFor(int tokens) const {
    return bytes_per_input_ + bytes_per_token_ * tokens;
  }
  // The longest input that fits into `bytes` alone, fixed part included; 0 if
  // none does.
  int LongestThatFits(uint64_t bytes) const {
    const uint64_t least = fixed_bytes_ + bytes_per_input_;
    if (bytes < least + bytes_per_token_) return 0;
    return static_cast<int>((bytes - least) / bytes_per_token_);
  }

 private:
  uint64_t fixed_bytes_ = 0;
  uint64_t bytes_per_token_ = 1;
  uint64_t bytes_per_input_ = 0;
};

// Immutable after construction; thread-safe.
class Planner {
 public:
  Planner(ModelShape shape, PlanTarget target, uint64_t arena_bytes);

  // The fastest plan whose peak fits into the arena. INVALID_ARGUMENT if even
  // the smallest chunks do not fit: the message names needed and allowed bytes.
  absl::StatusOr<Plan> MakePlan(const BatchShape& shape) const;

  const CostFunction& cost() const { return cost_; }
  uint64_t arena_bytes() const { return arena_bytes_; }
  // The least arena in which an input of the model's max_tokens runs.
  uint64_t MinimumArenaBytes() const;
  // What an ordinary dense forward of this model needs for `tokens` tokens:
  // ten hidden-wide rows a token (PyTorch eager with SDPA; see README).
  uint64_t DenseBytes(int tokens) const;

 private:
  ModelShape shape_;
  PlanTarget target_;
  uint64_t arena_bytes_;
  CostFunction cost_;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_PLAN_PLAN_H_
