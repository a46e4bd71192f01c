#include "engine/plan/layout.h"

#include <algorithm>

namespace svdserve {
namespace {

// Lays buffers one after another, from wherever it is told to go on.
class LaneBuilder {
 public:
  explicit LaneBuilder(int rows) : rows_(rows) {}

  // [rows, columns] at `offset`; returns where it ends.
  uint64_t Place(Role role, uint64_t offset, uint64_t columns,
                 int bytes_per_value) {
    return PlaceRows(rows_, role, offset, columns, bytes_per_value);
  }
  uint64_t PlaceRows(uint64_t rows, Role role, uint64_t offset,
                     uint64_t columns, int bytes_per_value) {
    if (columns == 0) return offset;
    const uint64_t bytes = rows * columns * bytes_per_value;
    layout_.buffers.push_back({.role = role, .offset = offset, .bytes = bytes});
    const uint64_t end = AlignUp(offset + bytes, kBufferAlignment);
    layout_.bytes = std::max(layout_.bytes, end);
    return end;
  }
  // From a buffer's start to the next one's.
  uint64_t Bytes(uint64_t columns, int bytes_per_value) const {
    return AlignUp(rows_ * columns * bytes_per_value, kBufferAlignment);
  }
  LaneLayout Finish() { return std::move(layout_); }

 private:
  uint64_t rows_;
  LaneLayout layout_;
};

constexpr int kUpdateBytes = 4;  // sums stay fp32 until they are normalised

bool HasUpdate(const PlanTarget& target, const Chunking& chunking) {
  return target.device == Device::kCpu || chunking.update;
}

}  // namespace

//   context | factors | qkv       while attention runs; fused: no qkv
//   context | narrow | update     while its output is projected
// On CUDA an update exists where the chunking says so, and of all heads at once
// the context takes the place of Q, if it is as wide: a block of attention
// reads its queries before it writes, and no other block reads them.
//   factors | q k v                or, not as wide, factors | context | q k v
//   narrow  | context update                        narrow  | context | update
// Chained, the next step's factors lie where that step has its own, first:
//   next    | context
LaneLayout AttentionLane(const ModelShape& shape, const PlanTarget& target,
                         const LayerShape& layer, const Chunking& chunking) {
  const int element = target.element_bytes;
  const int query_dim = shape.query_dim(layer);
  const int value_dim = shape.value_dim(layer);
  const uint64_t width = shape.heads * value_dim;
  const uint64_t factors = layer.query + layer.key + layer.value;
  const int heads = chunking.fused ? 0 : chunking.heads;
  const uint64_t qkv_width = heads * (2 * query_dim + value_dim);
  LaneBuilder lane(chunking.rows);
  uint64_t update = 0;
  if (target.device == Device::kCuda &&
      (heads == shape.heads || chunking.chained)) {
    const uint64_t last =
        chunking.chained
            ? lane.Place(Role::kNextFactors, 0, layer.ffn_in, element)
            : lane.Place(Role::kNarrow, 0, layer.attention_output, element);
    const uint64_t context =
        std::max(lane.Place(Role::kFactors, 0, factors, element), last);
    const uint64_t end = context + lane.Bytes(width, element);
    const uint64_t qkv = query_dim == value_dim ? context : end;
    lane.Place(Role::kQkv, qkv, qkv_width, element);
    update = lane.Place(Role::kContext, context, width, element);
  } else {
    const uint64_t shared = lane.Place(Role::kContext, 0, width, element);
    const uint64_t qkv = lane.Place(Role::kFactors, shared, factors, element);
    lane.Place(Role::kQkv, qkv, qkv_width, element);
    update = lane.Place(Role::kNarrow, shared, layer.attention_output, element);
  }
  if (HasUpdate(target, chunking)) {
    lane.Place(Role::kUpdate, update, shape.hidden, kUpdateBytes);
  }
  return lane.Finish();
}

// Whole: nothing.
//
// Fused: factors | narrow, for one kernel reads and writes them; the update
// comes behind both.
//
// Both matrices factored (the factors of the second replace those of the
// first, which are dead by then; the update replaces the intermediate):
//   factors | inner     x·U1, then act(factors·V1)
//   narrow  | inner     inner·U2
//   narrow  | update    narrow·V2
// Those of all rows at once, if asked for: a chunk's rows of the second take
// the place of rows that this chunk or an earlier one has read, unless they are
// wider, and come behind all of the first then.
// A dense second matrix reads the intermediate while it writes the update, so
// the update takes the place of the factors.
LaneLayout FeedForwardLane(const ModelShape& shape, const PlanTarget& target,
                           const LayerShape& layer, const Chunking& chunking) {
  const int element = target.element_bytes;
  LaneBuilder lane(chunking.rows);
  if (chunking.whole) return lane.Finish();
  if (chunking.rows_at_ends > 0) {
    const uint64_t rows = chunking.rows_at_ends;
    const uint64_t factors =
        lane.PlaceRows(rows, Role::kFactors, 0, layer.ffn_in, element);
    const uint64_t narrow = layer.ffn_out > layer.ffn_in ? factors : 0;
    const uint64_t end =
        lane.PlaceRows(rows, Role::kNarrow, narrow, layer.ffn_out, element);
    lane.Place(Role::kInner, std::max(factors, end), shape.intermediate,
               element);
    return lane.Finish();
  }
  const bool has_update = HasUpdate(target, chunking);
  uint64_t inner = lane.Place(Role::kFactors, 0, layer.ffn_in, element);
  if (chunking.fused) {
    const uint64_t end =
        lane.Place(Role::kNarrow, inner, layer.ffn_out, element);
    if (has_update) lane.Place(Role::kUpdate, end, shape.hidden, kUpdateBytes);
    return lane.Finish();
  }
  inner = std::max(inner, lane.Place(Role::kNarrow, 0, layer.ffn_out, element));
  if (has_update) {
    const bool dense_out = layer.ffn_out == 0;
    const uint64_t end = lane.Place(Role::kUpdate, dense_out ? 0 : inner,
                                    shape.hidden, kUpdateBytes);
    if (dense_out) inner = std::max(inner, end);
  }
  lane.Place(Role::kInner, inner, shape.intermediate, element);
  return lane.Finish();
}

uint64_t KernelScratchStride(const PlanTarget& target) {
  return AlignUp(target.kernel_scratch_bytes, kBufferAlignment);
}

uint64_t KernelScratchBytes(const PlanTarget& target) {
  return target.threads * KernelScratchStride(target);
}

}  // namespace svdserve
