#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "engine/plan/bucket.h"
#include "engine/plan/cost_model.h"
#include "engine/plan/layout.h"
#include "engine/plan/plan.h"
#include "engine/plan/plan_builder.h"

namespace svdserve {
namespace {

constexpr int kMaxBatchTokens = 1 << 26;
constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();
// Chunks within this factor of the fastest count as equally fast.
constexpr double kEquallyFast = 1.02;
constexpr int kRowSteps[] = {16, 32, 48, 64, 96, 128, 192, 256, 384, 512};

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

std::vector<int> LaneChoices(const PlanTarget& target) {
  if (target.threads == 1) return {1};
  return {1, target.threads};
}

// From `least` up to `most` rows, both rounded up to the row tile.
std::vector<int> RowChoices(const PlanTarget& target, int least, int most) {
  const int first = AlignUp(least, target.row_tile);
  const int last = AlignUp(most, target.row_tile);
  std::vector<int> rows = {first};
  for (int step : kRowSteps) {
    const int aligned = AlignUp(step, target.row_tile);
    if (aligned > rows.back() && aligned <= last) rows.push_back(aligned);
  }
  return rows;
}

// Group sizes that divide the heads evenly enough, in whole column panels.
std::vector<int> HeadChoices(const ModelShape& shape,
                             const PlanTarget& target) {
  const int unit = std::min(target.heads_per_panel, shape.heads);
  const int units = (shape.heads + unit - 1) / unit;
  std::vector<int> heads;
  for (int groups = units; groups >= 1; --groups) {
    const int group =
        std::min(shape.heads, (units + groups - 1) / groups * unit);
    if (heads.empty() || group > heads.back()) heads.push_back(group);
  }
  return heads;
}

// Bytes of the outputs of one sequence, from pooling to the last head.
uint64_t OutputBytesPerSequence(const ModelShape& shape) {
  uint64_t values = shape.hidden;
  for (int width : shape.head_widths) values += width;
  return values * sizeof(float);
}

}  // namespace

Planner::Planner(ModelShape shape, PlanTarget target, uint64_t arena_bytes)
    : shape_(std::move(shape)), target_(target), arena_bytes_(arena_bytes) {
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
  const uint64_t per_input = OutputBytesPerSequence(shape_) + sizeof(int32_t);
  // Rounding: to the bucket, to row tiles, to the alignment of buffers.
  const uint64_t slack = kMaxTokenSlack * per_token +
                         2 * target_.row_tile * row +
                         (kMaxSequenceSlack + target_.row_tile) * per_input +
                         kBufferAlignment * (8 + shape_.head_widths.size());
  return CostFunction(scratch_bytes + slack, per_token, per_input);
}

uint64_t Planner::SmallestScratch(int max_tokens) const {
  const BatchShape batch = BucketOf(
      {.sequences = 1, .tokens = max_tokens, .max_tokens = max_tokens});
  uint64_t most = KernelScratchBytes(target_);
  for (const LayerRanks& ranks : shape_.layers) {
    const LaneLayout attention =
        AttentionLane(shape_, target_, ranks, BestAttention(ranks, batch, 0));
    const LaneLayout feed_forward = FeedForwardLane(
        shape_, target_, ranks, BestFeedForward(ranks, batch, 0));
    most = std::max({most, ScratchBytes(target_, attention, 1),
                     ScratchBytes(target_, feed_forward, 1)});
  }
  return most;
}

uint64_t Planner::FullSpeedScratch() const {
  const int sequences = 16 * target_.threads;
  const BatchShape batch = {.sequences = sequences,
                            .tokens = sequences * shape_.max_tokens,
                            .max_tokens = shape_.max_tokens};
  uint64_t most = KernelScratchBytes(target_);
  for (const LayerRanks& ranks : shape_.layers) {
    const Chunking attention = BestAttention(ranks, batch, kUnlimited);
    const Chunking feed_forward = BestFeedForward(ranks, batch, kUnlimited);
    most = std::max(
        {most,
         ScratchBytes(target_, AttentionLane(shape_, target_, ranks, attention),
                      attention.lanes),
         ScratchBytes(target_,
                      FeedForwardLane(shape_, target_, ranks, feed_forward),
                      feed_forward.lanes)});
  }
  return most;
}

Chunking Planner::BestAttention(const LayerRanks& ranks,
                                const BatchShape& shape,
                                uint64_t scratch_bytes) const {
  std::vector<Candidate> candidates;
  for (int lanes : LaneChoices(target_)) {
    for (int rows : RowChoices(target_, shape.max_tokens, shape.tokens)) {
      for (int heads : HeadChoices(shape_, target_)) {
        const Chunking chunking = {
            .lanes = lanes, .rows = rows, .heads = heads};
        candidates.push_back(
            {chunking,
             ScratchBytes(target_,
                          AttentionLane(shape_, target_, ranks, chunking),
                          lanes),
             AttentionSeconds(shape_, target_, ranks, shape, chunking)});
      }
    }
  }
  return Choose(candidates, scratch_bytes);
}

Chunking Planner::BestFeedForward(const LayerRanks& ranks,
                                  const BatchShape& shape,
                                  uint64_t scratch_bytes) const {
  std::vector<Candidate> candidates;
  for (int lanes : LaneChoices(target_)) {
    for (int rows : RowChoices(target_, 1, shape.tokens)) {
      const Chunking chunking = {.lanes = lanes, .rows = rows, .heads = 0};
      candidates.push_back(
          {chunking,
           ScratchBytes(target_,
                        FeedForwardLane(shape_, target_, ranks, chunking),
                        lanes),
           FeedForwardSeconds(shape_, target_, ranks, shape, chunking)});
    }
  }
  return Choose(candidates, scratch_bytes);
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
  for (int layer = 0; layer < shape_.layers.size(); ++layer) {
    const LayerRanks& ranks = shape_.layers[layer];
    builder.AddAttention(layer, BestAttention(ranks, bucket, scratch));
    builder.AddFeedForward(layer, BestFeedForward(ranks, bucket, scratch));
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
  PlanBuilder builder(shape_, target_, BucketOf(shape));
  builder.AddEmbed();
  for (int layer = 0; layer < shape_.layers.size(); ++layer) {
    builder.AddAttention(layer, attention);
    builder.AddFeedForward(layer, feed_forward);
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
