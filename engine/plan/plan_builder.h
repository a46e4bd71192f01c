// Puts a Plan together step by step: internal to engine/plan.
//
// The arena from its start:
//   kernel scratch | what the current step needs | residual stream | offsets
// On CUDA:
//   what the current step needs | residual stream | ids | types | offsets |
//   options
// What the current step needs shares one part with all other steps; the parts
// behind it live through the whole batch.
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
  int AddResident(Role role, uint64_t bytes);
  std::vector<int> AddScratch(const LaneLayout& lane, int lanes);

  const ModelShape& shape_;
  const PlanTarget& target_;
  Plan plan_;
  // Indices into plan_.buffers; -1: there is none.
  int hidden_ = -1;
  int ids_ = -1;
  int type_ids_ = -1;
  int offsets_ = -1;
  int options_ = -1;
  int kernel_scratch_ = -1;
  // In the order of the arena; Finish() puts them behind the shared part.
  std::vector<int> resident_;
  uint64_t shared_end_ = 0;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_PLAN_PLAN_BUILDER_H_
