// Where the buffers of one chunk lie, relative to the start of its lane.
//
// Pure functions. Buffers whose lifetimes within the step meet never overlap;
// the others share bytes as the comments in layout.cc tell.
#ifndef SVDSERVE_ENGINE_PLAN_LAYOUT_H_
#define SVDSERVE_ENGINE_PLAN_LAYOUT_H_

#include <cstdint>
#include <vector>

#include "engine/model/model_shape.h"
#include "engine/plan/plan.h"

namespace svdserve {

inline constexpr uint64_t kBufferAlignment = 64;

constexpr uint64_t AlignUp(uint64_t bytes, uint64_t alignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

struct LaneLayout {
  std::vector<Buffer> buffers;  // offsets from the lane's start; empty ones are
                                // left out
  uint64_t bytes = 0;           // of one lane, aligned
};

LaneLayout AttentionLane(const ModelShape& shape, const PlanTarget& target,
                         const LayerShape& layer, const Chunking& chunking);
LaneLayout FeedForwardLane(const ModelShape& shape, const PlanTarget& target,
                           const LayerShape& layer, const Chunking& chunking);

// Scratch of the kernels, at the start of the arena.
uint64_t KernelScratchStride(const PlanTarget& target);
uint64_t KernelScratchBytes(const PlanTarget& target);

// A step's share of the arena before the residual stream: kernels and lanes.
inline uint64_t ScratchBytes(const PlanTarget& target, const LaneLayout& lane,
                             int lanes) {
  return KernelScratchBytes(target) + lanes * lane.bytes;
}

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_PLAN_LAYOUT_H_
