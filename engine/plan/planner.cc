#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "engine/plan/bucket.h"
#include "engine/plan/chunk_choices.h"
#include "engine/plan/cost_model.h"
#include "engine/plan/cuda_shape.h"
#include "engine/plan/layout.h"
#include "engine/plan/plan.h"
#include "engine/plan/plan_builder.h"

namespace svdserve {
namespace {

constexpr int kMaxBatchTokens = 1 << 26;
constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();
// Chunks within this factor of the fastest count as equally fast.
constexpr double kEquallyFast = 1.02;
// Full speed on CUDA is that of a batch of so many tokens. Where a fused kernel
// is there, chunks get so many hidden-wide rows for each of its tokens: with
// the residual stream its peak is below two rows a token, a fifth of
// DenseBytes().
constexpr int kCudaFullSpeedTokens = 16384;
constexpr double kCudaChunkRows = 15.0 / 16;
// And that of fewer, which keep to 35 % of DenseBytes().
constexpr int kCudaFewTokens = 4096;
constexpr double kCudaFewChunkRows = 2.45;

struct Candidate {
  Chunking chunking = {};
  uint64_t scratch = 0;
  double seconds = 0;
};

// The fastest; of equally fast ones the smallest. If none fits, the smallest.
Chunking Choose(const std::vector<Candidate>& candidates, uint64_t scratch) {
  double fastest = std::numeric_limits<double>::infinity();
  for (const Candidate& candidate : candidates) {
    if (candidate.scratch <= scratch) {
      fastest = std::min(fastest, candidate.seconds);
    }
  }
  Candidate chosen{.scratch = std::numeric_limits<uint64_t>::max()};
  for (const Candidate& candidate : candidates) {
    const bool fits = candidate.scratch <= scratch;
    if (fits && candidate.seconds > fastest * kEquallyFast) continue;
    if (!fits && fastest < std::numeric_limits<double>::infinity()) continue;
    if (candidate.scratch < chosen.scratch) chosen = candidate;
  }
  return chosen.chunking;
}

// Bytes of the outputs of one sequence, from pooling to the last head.
uint64_t OutputBytesPerSequence(const ModelShape& shape) {
  uint64_t values = shape.hidden;
  for (int width : shape.head_widths) values += width;
  return values * sizeof(float);
}

}  // namespace

Planner::Planner(ModelShape shape, PlanTarget target, uint64_t arena_bytes)
    : shape_(target.device == Device::kCuda ? CudaShape(std::move(shape))
                                            : std::move(shape)),
      target_(std::move(target)),
      arena_bytes_(arena_bytes) {
  const uint64_t smallest = SmallestScratch(shape_.max_tokens);
  const CostFunction rest = CostWith(0);
  const uint64_t longest =
      rest.fixed_bytes() + rest.ChargeFor(shape_.max_tokens);
  const uint64_t room = arena_bytes_ > longest ? arena_bytes_ - longest : 0;
  scratch_budget_ = std::max(
      smallest, std::min({FullSpeedScratch(), arena_bytes_ / 2, room}));
  cost_ = CostWith(scratch_budget_);
}

CostFunction Planner::CostWith(uint64_t scratch_bytes) const {
  const uint64_t row = uint64_t{1} * shape_.hidden * target_.element_bytes;
  const uint64_t per_token = row + sizeof(int32_t) + sizeof(uint8_t);
  const int words = target_.device == Device::kCuda ? 2 : 1;  // offset, option
  const uint64_t per_input =
      OutputBytesPerSequence(shape_) + words * sizeof(int32_t);
  // Rounding: to the bucket, to row tiles, to the alignment of buffers.
  const uint64_t slack = kMaxTokenSlack * per_token +
                         2 * target_.row_tile * row +
                         (kMaxSequenceSlack + target_.row_tile) * per_input +
                         kBufferAlignment * (8 + shape_.head_widths.size());
  return CostFunction(scratch_bytes + slack, per_token, per_input);
}

uint64_t Planner::AttentionScratch(int layer, const Chunking& chunking) const {
  return ScratchBytes(
      target_, AttentionLane(shape_, target_, shape_.layers[layer], chunking),
      chunking.lanes);
}

uint64_t Planner::FeedForwardScratch(int layer,
                                     const Chunking& chunking) const {
  return ScratchBytes(
      target_, FeedForwardLane(shape_, target_, shape_.layers[layer], chunking),
      chunking.lanes);
}

uint64_t Planner::ScratchFor(const BatchShape& batch, uint64_t fused_limit,
                             uint64_t limit) const {
  uint64_t most = KernelScratchBytes(target_);
  for (int layer = 0; layer < shape_.layers.size(); ++layer) {
    if (layer > 0 && SameLayers(layer - 1, layer)) continue;
    const bool fuses = FusionOf(target_, layer).attention_max_tokens > 0;
    const Chunking attention =
        BestAttention(layer, batch, fuses ? fused_limit : limit);
    // One kernel for the half-layer has no chunks, but fewer rows run faster
    // without it, and need them.
    const Chunking feed_forward = BestFeedForward(
        layer, batch,
        FusesFeedForward(shape_, target_, layer) ? fused_limit : limit,
        /*whole=*/false);
    most = std::max({most, AttentionScratch(layer, attention),
                     FeedForwardScratch(layer, feed_forward)});
  }
  return most;
}

uint64_t Planner::SmallestScratch(int max_tokens) const {
  BatchShape batch = {
      .sequences = 1, .tokens = max_tokens, .max_tokens = max_tokens};
  // A larger batch has chunks of at least a tile, and so has this one.
  if (target_.device == Device::kCuda) {
    batch.tokens = std::max(batch.tokens, kCudaLeastRows);
  }
  return ScratchFor(BucketOf(batch), 0, 0);
}

uint64_t Planner::FullSpeedScratch() const {
  const auto batch_of = [&](int sequences) -> BatchShape {
    return {.sequences = sequences,
            .tokens = sequences * shape_.max_tokens,
            .max_tokens = shape_.max_tokens};
  };
  if (target_.device == Device::kCpu) {
    return ScratchFor(batch_of(16 * target_.threads), kUnlimited, kUnlimited);
  }
  const auto scratch = [&](int tokens, double rows, uint64_t limit) {
    const BatchShape batch = batch_of(std::max(1, tokens / shape_.max_tokens));
    const uint64_t fused_limit = static_cast<uint64_t>(
        rows * batch.tokens * shape_.hidden * target_.element_bytes);
    return ScratchFor(batch, fused_limit, std::max(fused_limit, limit));
  };
  return std::max(scratch(kCudaFullSpeedTokens, kCudaChunkRows, kUnlimited),
                  scratch(kCudaFewTokens, kCudaFewChunkRows, 0));
}

Chunking Planner::BestAttention(int layer, const BatchShape& shape,
                                uint64_t scratch_bytes) const {
  std::vector<Candidate> candidates;
  for (const Chunking& chunking :
       AttentionChoices(shape_, target_, layer, shape)) {
    candidates.push_back(
        {chunking, AttentionScratch(layer, chunking),
         AttentionSeconds(shape_, target_, shape_.layers[layer], shape,
                          chunking)});
  }
  return Choose(candidates, scratch_bytes);
}

Chunking Planner::BestFeedForward(int layer, const BatchShape& shape,
                                  uint64_t scratch_bytes, bool whole) const {
  std::vector<Candidate> candidates;
  for (const Chunking& chunking :
       FeedForwardChoices(shape_, target_, layer, shape)) {
    if (chunking.whole && !whole) continue;
    candidates.push_back(
        {chunking, FeedForwardScratch(layer, chunking),
         FeedForwardSeconds(shape_, target_, shape_.layers[layer], shape,
                            chunking)});
  }
  return Choose(candidates, scratch_bytes);
}

void Planner::Chain(int layer, const BatchShape& shape, uint64_t scratch_bytes,
                    Chunking* attention, Chunking* feed_forward) const {
  if (shape.tokens > FusionOf(target_, layer).chain_rows) return;
  Chunking first = {
      .rows = shape.tokens, .heads = shape_.heads, .chained = true};
  const Chunking fused = {.rows = shape.tokens, .fused = true, .chained = true};
  const auto seconds = [&](const Chunking& chunking) {
    return AttentionSeconds(shape_, target_, shape_.layers[layer], shape,
                            chunking);
  };
  if (FusesAttention(shape_, target_, layer, shape.max_tokens) &&
      seconds(fused) <= seconds(first)) {
    first = fused;
  }
  Chunking second = *feed_forward;
  if (second.whole) {
    second = BestFeedForward(layer, shape, scratch_bytes, /*whole=*/false);
  }
  if (second.rows < shape.tokens) return;
  second.chained = true;
  if (std::max(AttentionScratch(layer, first),
               FeedForwardScratch(layer, second)) > scratch_bytes) {
    return;
  }
  *attention = first;
  *feed_forward = second;
}

bool Planner::SameLayers(int a, int b) const {
  return shape_.layers[a] == shape_.layers[b] &&
         FusionOf(target_, a) == FusionOf(target_, b);
}

absl::Status Planner::Validate(const BatchShape& shape) const {
  if (shape.sequences < 1 || shape.tokens < shape.sequences ||
      shape.max_tokens < 1 || shape.max_tokens > shape.tokens ||
      shape.tokens > int64_t{shape.sequences} * shape.max_tokens) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "no batch has %d sequences of %d tokens in all, the longest %d",
        shape.sequences, shape.tokens, shape.max_tokens));
  }
  if (shape.max_tokens > shape_.max_tokens) {
    return absl::InvalidArgumentError(
        absl::StrFormat("a sequence has %d tokens; the model takes up to %d",
                        shape.max_tokens, shape_.max_tokens));
  }
  if (shape.tokens > kMaxBatchTokens) {
    return absl::InvalidArgumentError(
        absl::StrFormat("a batch of %d tokens; at most %d can be planned",
                        shape.tokens, kMaxBatchTokens));
  }
  return absl::OkStatus();
}

absl::StatusOr<Plan> Planner::MakePlan(const BatchShape& shape) const {
  if (absl::Status status = Validate(shape); !status.ok()) return status;
  const BatchShape bucket = BucketOf(shape);
  PlanBuilder builder(shape_, target_, bucket);
  const uint64_t resident = builder.resident_bytes();
  const uint64_t room = arena_bytes_ > resident ? arena_bytes_ - resident : 0;
  const uint64_t scratch = std::min(scratch_budget_, room);

  builder.AddEmbed();
  Chunking attention;
  Chunking feed_forward;
  for (int layer = 0; layer < shape_.layers.size(); ++layer) {
    if (layer == 0 || !SameLayers(layer - 1, layer)) {
      attention = BestAttention(layer, bucket, scratch);
      feed_forward = BestFeedForward(layer, bucket, scratch, /*whole=*/true);
      Chain(layer, bucket, scratch, &attention, &feed_forward);
    }
    builder.AddAttention(layer, attention);
    builder.AddFeedForward(layer, feed_forward);
  }
  builder.AddPoolAndHead();
  Plan plan = std::move(builder).Finish();
  if (plan.peak_bytes > arena_bytes_) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "a batch of %d sequences with %d tokens needs %d activation bytes in "
        "the smallest chunks; the arena has %d",
        shape.sequences, shape.tokens, plan.peak_bytes, arena_bytes_));
  }
  return plan;
}

Plan Planner::MakePlanWith(const BatchShape& shape, const Chunking& attention,
                           const Chunking& feed_forward) const {
  const BatchShape bucket = BucketOf(shape);
  PlanBuilder builder(shape_, target_, bucket);
  builder.AddEmbed();
  for (int layer = 0; layer < shape_.layers.size(); ++layer) {
    Chunking first = attention;
    first.fused &= FusesAttention(shape_, target_, layer, bucket.max_tokens);
    if (first.fused) {
      first.heads = 0;
    } else if (first.heads == 0) {
      first.heads = shape_.heads;
    }
    Chunking second = feed_forward;
    second.whole &= FusesWholeFeedForward(shape_, target_, layer);
    second.fused &= FusesFeedForward(shape_, target_, layer);
    first.update &= first.rows <= target_.update_rows;
    second.update &= second.rows <= target_.update_rows;
    first.chained = second.chained = false;
    if (second.rows_at_ends > 0) {
      const LayerShape& ranks = shape_.layers[layer];
      const bool can = !second.whole && !second.fused && ranks.ffn_in > 0 &&
                       ranks.ffn_out > 0;
      second.rows_at_ends = can ? bucket.tokens : 0;
      second.update = false;
    }
    builder.AddAttention(layer, first);
    builder.AddFeedForward(layer, second);
  }
  builder.AddPoolAndHead();
  return std::move(builder).Finish();
}

uint64_t Planner::MinimumArenaBytes() const {
  const CostFunction cost = CostWith(SmallestScratch(shape_.max_tokens));
  return cost.fixed_bytes() + cost.ChargeFor(shape_.max_tokens);
}

uint64_t Planner::ArenaBytesFor(int tokens, int sequences) const {
  const uint64_t scratch = FullSpeedScratch();
  const CostFunction cost = CostWith(scratch);
  const uint64_t batch = cost.fixed_bytes() + cost.ChargeFor(tokens) +
                         (sequences - 1) * cost.ChargeFor(0);
  return std::max({batch, 2 * scratch, MinimumArenaBytes()});
}

uint64_t Planner::DenseBytes(int tokens) const {
  constexpr int kRowsPerToken = 10;
  return uint64_t{1} * kRowsPerToken * shape_.hidden * target_.element_bytes *
         tokens;
}

}  // namespace svdserve
