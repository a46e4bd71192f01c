#include "engine/plan/plan_builder.h"

#include <algorithm>
#include <utility>

#include "engine/plan/cost_model.h"

namespace svdserve {
namespace {

Way WayOf(const Chunking& chunking, std::initializer_list<int> ranks) {
  if (chunking.whole) return Way::kFactoredWhole;
  if (chunking.fused) return Way::kFactoredFused;
  const int dense = std::count(ranks.begin(), ranks.end(), 0);
  if (dense == 0) return Way::kFactored;
  return dense == ranks.size() ? Way::kDense : Way::kMixed;
}

uint64_t Rows(int count, const PlanTarget& target) {
  return AlignUp(count, target.row_tile);
}

}  // namespace

PlanBuilder::PlanBuilder(const ModelShape& shape, const PlanTarget& target,
                         const BatchShape& bucket)
    : shape_(shape), target_(target), shared_end_(KernelScratchBytes(target)) {
  plan_.shape = bucket;
  const uint64_t tokens = bucket.tokens;
  const uint64_t row_bytes = uint64_t{1} * shape.hidden * target.element_bytes;
  const uint64_t offset_bytes = (bucket.sequences + 1) * sizeof(int32_t);
  if (target.device == Device::kCuda) {
    hidden_ = AddResident(Role::kHidden, tokens * row_bytes);
    ids_ = AddResident(Role::kIds, tokens * sizeof(int32_t));
    type_ids_ = AddResident(Role::kTypeIds, tokens * sizeof(uint8_t));
    offsets_ = AddResident(Role::kOffsets, offset_bytes);
    options_ = AddResident(Role::kOptions, bucket.sequences * sizeof(int32_t));
    return;
  }
  // A chunk may start at any row, and its last tile may reach past the last
  // sequence: there is one more tile than the rows need.
  const uint64_t hidden_rows = Rows(bucket.tokens, target) + target.row_tile;
  hidden_ = AddResident(Role::kHidden, hidden_rows * row_bytes);
  offsets_ = AddResident(Role::kOffsets, offset_bytes);
  if (target.kernel_scratch_bytes > 0) {
    kernel_scratch_ = AddUnique({.role = Role::kKernelScratch,
                                 .bytes = target.kernel_scratch_bytes,
                                 .lanes = target.threads,
                                 .lane_stride = KernelScratchStride(target)});
  }
}

uint64_t PlanBuilder::resident_bytes() const {
  uint64_t end = 0;
  for (int index : resident_) {
    end = AlignUp(end, kBufferAlignment) + plan_.buffers[index].bytes;
  }
  return end;
}

int PlanBuilder::AddResident(Role role, uint64_t bytes) {
  resident_.push_back(AddUnique({.role = role, .bytes = bytes}));
  return resident_.back();
}

int PlanBuilder::AddUnique(const Buffer& buffer) {
  auto found = std::find(plan_.buffers.begin(), plan_.buffers.end(), buffer);
  const int index = found - plan_.buffers.begin();
  if (found == plan_.buffers.end()) plan_.buffers.push_back(buffer);
  return index;
}

int PlanBuilder::AddShared(Role role, uint64_t* offset, uint64_t bytes) {
  const int index =
      AddUnique({.role = role, .offset = *offset, .bytes = bytes});
  *offset = AlignUp(*offset + bytes, kBufferAlignment);
  shared_end_ = std::max(shared_end_, *offset);
  return index;
}

std::vector<int> PlanBuilder::AddScratch(const LaneLayout& lane, int lanes) {
  const uint64_t start = KernelScratchBytes(target_);
  std::vector<int> indices;
  for (Buffer buffer : lane.buffers) {
    buffer.offset += start;
    buffer.lanes = lanes;
    buffer.lane_stride = lane.bytes;
    indices.push_back(AddUnique(buffer));
  }
  if (kernel_scratch_ >= 0) indices.push_back(kernel_scratch_);
  shared_end_ = std::max(shared_end_, start + lanes * lane.bytes);
  return indices;
}

void PlanBuilder::AddEmbed() {
  if (target_.device == Device::kCpu) {
    uint64_t at = KernelScratchBytes(target_);
    const uint64_t tokens = plan_.shape.tokens;
    ids_ = AddShared(Role::kIds, &at, tokens * sizeof(int32_t));
    type_ids_ = AddShared(Role::kTypeIds, &at, tokens * sizeof(uint8_t));
  }
  plan_.steps.push_back({.kind = StepKind::kEmbed,
                         .reads = {ids_, type_ids_, offsets_},
                         .writes = {hidden_}});
}

void PlanBuilder::AddAttention(int layer, const Chunking& chunking) {
  const LayerShape& ranks = shape_.layers[layer];
  const LaneLayout lane = AttentionLane(shape_, target_, ranks, chunking);
  plan_.steps.push_back(
      {.kind = StepKind::kAttention,
       .way = WayOf(chunking, {ranks.query, ranks.key, ranks.value,
                               ranks.attention_output}),
       .layer = layer,
       .lanes = chunking.lanes,
       .rows_per_chunk = chunking.rows,
       .heads_per_group = chunking.heads,
       .chained = chunking.chained,
       .reads = {hidden_, offsets_},
       .writes = {hidden_},
       .scratch = AddScratch(lane, chunking.lanes)});
  plan_.predicted_seconds +=
      AttentionSeconds(shape_, target_, ranks, plan_.shape, chunking);
}

void PlanBuilder::AddFeedForward(int layer, const Chunking& chunking) {
  const LayerShape& ranks = shape_.layers[layer];
  const LaneLayout lane = FeedForwardLane(shape_, target_, ranks, chunking);
  plan_.steps.push_back({.kind = StepKind::kFeedForward,
                         .way = WayOf(chunking, {ranks.ffn_in, ranks.ffn_out}),
                         .layer = layer,
                         .lanes = chunking.lanes,
                         .rows_per_chunk = chunking.rows,
                         .rows_at_ends = chunking.rows_at_ends,
                         .chained = chunking.chained,
                         .reads = {hidden_},
                         .writes = {hidden_},
                         .scratch = AddScratch(lane, chunking.lanes)});
  plan_.predicted_seconds +=
      FeedForwardSeconds(shape_, target_, ranks, plan_.shape, chunking);
}

void PlanBuilder::AddPoolAndHead() {
  uint64_t at = KernelScratchBytes(target_);
  const uint64_t rows = Rows(plan_.shape.sequences, target_);
  const auto add = [&](Role role, int width) {
    return AddShared(role, &at, rows * width * sizeof(float));
  };
  const int heads = shape_.head_widths.size();
  int last = add(heads == 0 ? Role::kOutput : Role::kPooled, shape_.hidden);
  plan_.steps.push_back({.kind = StepKind::kPool,
                         .reads = {hidden_, offsets_},
                         .writes = {last}});
  for (int head = 0; head < heads; ++head) {
    const bool final = head + 1 == heads;
    const int next =
        add(final ? Role::kOutput : Role::kPooled, shape_.head_widths[head]);
    Step step = {.kind = StepKind::kHead,
                 .way = Way::kDense,
                 .layer = head,
                 .reads = {last},
                 .writes = {next}};
    if (kernel_scratch_ >= 0) step.scratch = {kernel_scratch_};
    plan_.steps.push_back(std::move(step));
    last = next;
  }
}

Plan PlanBuilder::Finish() && {
  if (options_ >= 0) plan_.steps.back().reads.push_back(options_);
  uint64_t end = shared_end_;
  for (int index : resident_) {
    Buffer& buffer = plan_.buffers[index];
    buffer.offset = AlignUp(end, kBufferAlignment);
    end = buffer.end();
  }
  plan_.peak_bytes = end;
  return std::move(plan_);
}

}  // namespace svdserve
