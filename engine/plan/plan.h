// How a batch will run, decided on the CPU before anything runs.
//
// Planning is pure: the same arguments give the same Plan, no device is
// touched, and every number that admission, Estimate, the metrics and the tests
// use comes from here. A backend executes exactly the plan, inside an arena of
// at least `peak_bytes`.
//
//   Planner planner(shape, backend->target(), arena_bytes);
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

enum class Device { kCpu, kCuda };

// What the fused kernels of a device take of one layer; the backend knows.
struct LayerFusion {
  int attention_max_tokens = 0;  // the longest sequence; 0: not this layer
  bool feed_forward = false;
  bool feed_forward_whole = false;  // the half-layer by one kernel
  // Up to so many rows attention may end with the feed-forward's factors; 0:
  // never.
  int chain_rows = 0;
  friend bool operator==(const LayerFusion&, const LayerFusion&) = default;
};

// Facts of the backend that shape a plan.
struct PlanTarget {
  int element_bytes = 4;    // of activations: 4 (fp32) or 2 (bf16, fp16)
  int threads = 1;          // workers that run side by side
  int row_tile = 16;        // rows of one matmul call; tails are padded to it
  int heads_per_panel = 1;  // heads whose Q (K, V) columns come together
  uint64_t kernel_scratch_bytes = 0;  // what kernels need, for each worker

  // kCuda: one worker, a row tile of 1, one head a panel, no kernel scratch.
  Device device = Device::kCpu;
  int sm = 0;               // kCuda: 80, 86, 89, 90
  int multiprocessors = 0;  // kCuda
  // kCuda: up to so many rows a half-layer ends sooner if its update has memory
  // (kUpdate); 0: never.
  int update_rows = 0;
  // kCuda: up to so many rows of a chunk the sums over the feed-forward's
  // intermediate are split; 0: never. Other bits than of more rows.
  int split_sum_rows = 0;
  std::vector<LayerFusion> fusion = {};  // kCuda: [layers]; empty: none
  friend bool operator==(const PlanTarget&, const PlanTarget&) = default;
};

// What a buffer holds. One step has at most one buffer of a role.
enum class Role {
  kKernelScratch,  // [threads] scratch of single kernel calls
  kIds,            // [tokens] int32
  kTypeIds,        // [tokens] uint8
  kOffsets,        // [sequences + 1] int32, where each sequence starts
  kOptions,        // [sequences] int32, what becomes of each row; CUDA
  kHidden,         // [tokens, hidden] the residual stream, updated in place
  kFactors,        // [rows, ranks] x·U of the factored matrices of a phase
  kNextFactors,    // [rows, rank] kFactors of the step behind it, where chained
  kQkv,            // Q, K and V of a group, each: CPU [heads, rows, dim], CUDA
                   // [rows, heads * dim]
  kContext,        // [rows, heads * value_dim] attention's output
  kNarrow,         // [rows, rank] x·U of the output projection
  kInner,          // [rows, intermediate] the activated FFN intermediate
  kUpdate,         // [rows, hidden] fp32, to be added to the stream; CPU,
                   // CUDA only of few rows
  kPooled,         // [sequences, width] fp32, what the head step reads
  kOutput,         // [sequences, width] fp32
};
const char* RoleName(Role role);

// A range of the arena. Buffers whose lifetimes do not meet overlap. Chunks
// that run side by side have one copy each, `lane_stride` apart.
struct Buffer {
  Role role = Role::kHidden;
  uint64_t offset = 0;  // bytes, 64-byte aligned; of lane 0
  uint64_t bytes = 0;   // of one lane
  int lanes = 1;
  uint64_t lane_stride = 0;
  uint64_t end() const { return offset + (lanes - 1) * lane_stride + bytes; }
  friend bool operator==(const Buffer&, const Buffer&) = default;
};

enum class StepKind { kEmbed, kAttention, kFeedForward, kPool, kHead };
// How a step runs its matrices.
enum class Way {
  kNone,
  kFactoredWhole,  // one kernel; nothing but the stream exists in memory
  kFactoredFused,  // what lies between the factors never exists in memory
  kFactored,       // every matrix is factored; each product is written
  kDense,
  kMixed,
};

// One step; the indices point into Plan::buffers.
struct Step {
  StepKind kind = StepKind::kEmbed;
  Way way = Way::kNone;
  int layer = -1;
  int lanes = 1;            // chunks side by side; 1: all workers share one
  int rows_per_chunk = 0;   // tokens whose intermediates exist at once
  int heads_per_group = 0;  // heads whose K and V exist at once; fused: 0
  // CUDA, feed-forward: rows that its first and its last product take at once;
  // what lies between exists for a chunk. 0: these have chunks, too.
  int rows_at_ends = 0;
  // CUDA. Attention: one kernel ends it and makes the factors of the step
  // behind it. Feed-forward: its factors are there.
  bool chained = false;
  std::vector<int> reads = {};
  std::vector<int> writes = {};
  std::vector<int> scratch = {};
  friend bool operator==(const Step&, const Step&) = default;
};

struct Plan {
  BatchShape shape;  // rounded up to its bucket
  std::vector<Buffer> buffers;
  std::vector<Step> steps;
  uint64_t peak_bytes = 0;  // max over buffers of end()
  double predicted_seconds = 0;

  // The step's buffer of this role, or null if the step has none.
  const Buffer* Find(const Step& step, Role role) const;
  // Whether every step runs in one chunk, whatever batch of the bucket comes:
  // then its launches are always the same.
  bool IsSingleChunk() const;
  std::string ToString() const;  // one line a step, one line a buffer
  friend bool operator==(const Plan&, const Plan&) = default;
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

// The sizes of one step's chunks, how many run side by side, and how they run.
struct Chunking {
  int lanes = 1;
  int rows = 0;          // a multiple of the row tile
  int heads = 0;         // attention: heads of a group; feed-forward, fused: 0
  bool whole = false;    // CUDA feed-forward: the half-layer by one kernel
  bool fused = false;    // CUDA; else as the matrices are stored
  bool chained = false;  // CUDA; as Step::chained
  bool update = false;   // CUDA: with memory for the update; the CPU always has
  int rows_at_ends = 0;  // CUDA feed-forward; as Step::rows_at_ends
  friend bool operator==(const Chunking&, const Chunking&) = default;
};

// A batch rounded up to the bucket whose plan serves it.
BatchShape BucketOf(const BatchShape& shape);

// Immutable after construction; thread-safe.
//
// At construction the planner decides how much of the arena the chunks may use:
// what full speed needs (README.md says what that is on CUDA), but no more than
// half, and always as much as the smallest chunks need. This is the largest
// part of the cost function's fixed bytes. The rest is for the batch itself, by
// the byte.
class Planner {
 public:
  Planner(ModelShape shape, PlanTarget target, uint64_t arena_bytes);

  // The fastest plan whose peak fits into the arena, for the bucket of `shape`.
  // Every batch whose charges and fixed bytes fit into the arena has a plan.
  // INVALID_ARGUMENT if even the smallest chunks do not fit: the message names
  // needed and allowed bytes.
  absl::StatusOr<Plan> MakePlan(const BatchShape& shape) const;

  // The plan with these chunk sizes in every layer, whatever the arena: for
  // tests and for measuring the cost table. A layer that the fused kernels do
  // not take runs unfused, all heads at once if no group was given; more rows
  // than update_rows have no update; no steps are chained. Any rows_at_ends are
  // all of the batch's, where both matrices are factored.
  Plan MakePlanWith(const BatchShape& shape, const Chunking& attention,
                    const Chunking& feed_forward) const;

  const CostFunction& cost() const { return cost_; }
  uint64_t arena_bytes() const { return arena_bytes_; }
  // The least arena in which an input of the model's max_tokens runs.
  uint64_t MinimumArenaBytes() const;
  // An arena for batches of `tokens` tokens in up to `sequences` inputs at full
  // speed.
  uint64_t ArenaBytesFor(int tokens, int sequences) const;
  // What an ordinary dense forward of this model needs for `tokens` tokens:
  // ten hidden-wide rows a token (PyTorch eager with SDPA; see README).
  uint64_t DenseBytes(int tokens) const;

 private:
  absl::Status Validate(const BatchShape& shape) const;
  // The fastest chunks whose buffers fit into `scratch_bytes`.
  Chunking BestAttention(int layer, const BatchShape& shape,
                         uint64_t scratch_bytes) const;
  Chunking BestFeedForward(int layer, const BatchShape& shape,
                           uint64_t scratch_bytes, bool whole) const;
  // Bytes that these chunks take, kernels included.
  uint64_t AttentionScratch(int layer, const Chunking& chunking) const;
  uint64_t FeedForwardScratch(int layer, const Chunking& chunking) const;
  // Chains the steps of a layer where its kernel takes them and the bytes are
  // there: of few rows that is the fastest way.
  void Chain(int layer, const BatchShape& shape, uint64_t scratch_bytes,
             Chunking* attention, Chunking* feed_forward) const;
  // Whether one choice of chunks serves both layers.
  bool SameLayers(int a, int b) const;
  // Bytes of chunk buffers: the most that any layer takes, where steps that a
  // fused kernel can run get `fused_limit` and the others `limit`.
  uint64_t ScratchFor(const BatchShape& batch, uint64_t fused_limit,
                      uint64_t limit) const;
  uint64_t SmallestScratch(int max_tokens) const;
  uint64_t FullSpeedScratch() const;
  CostFunction CostWith(uint64_t scratch_bytes) const;

  ModelShape shape_;
  PlanTarget target_;
  uint64_t arena_bytes_;
  uint64_t scratch_budget_ = 0;
  CostFunction cost_;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_PLAN_PLAN_H_
