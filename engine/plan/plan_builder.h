// Puts a Plan together step by step: internal to engine/plan.
//
// The arena from its start:
//   kernel scratch | what the current step needs | residual stream | offsets
// The middle part is shared by all steps, one after the other; the last two
// parts live through the whole batch.
#ifndef SVDSERVE_ENGINE_PLAN_PLAN_BUILDER_H_
#define SVDSERVE_ENGINE_PLAN_PLAN_BUILDER_H_

#include <cstdint>
#include <vector>

#include "engine/plan/layout.h"
#include "engine/plan/plan.h"

namespace svdserve {

class PlanBuilder {
 public:
  // `bucket` is the batch's shape, rounded up.
  PlanBuilder(const ModelShape& shape, const PlanTarget& target,
              const BatchShape& bucket);

  // What lives through the whole batch.
  uint64_t resident_bytes() const;

  void AddEmbed();
  void AddAttention(int layer, const Chunking& chunking);
  void AddFeedForward(int layer, const Chunking& chunking);
  void AddPoolAndHead();
  Plan Finish() &&;

 private:
  // Puts `bytes` behind `offset` in the shared part; returns the index.
  int AddShared(Role role, uint64_t* offset, uint64_t bytes);
  int AddUnique(const Buffer& buffer);
  std::vector<int> AddScratch(const LaneLayout& lane, int lanes);

  const ModelShape& shape_;
  const PlanTarget& target_;
  Plan plan_;
  int hidden_ = 0;   // indices into plan_.buffers; their offsets are set by
  int offsets_ = 0;  // Finish(), behind the shared part
  int kernel_scratch_ = -1;
  uint64_t shared_end_ = 0;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_PLAN_PLAN_BUILDER_H_
