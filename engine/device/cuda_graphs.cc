#include "engine/device/cuda_graphs.h"

#include <algorithm>
#include <utility>

namespace svdserve {

// Plans of other buckets differ in their first member, so that comparing costs
// little.
CudaGraph* CudaGraphs::Find(const Plan& plan) {
  for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
    if (!(entry->plan == plan)) continue;
    entries_.splice(entries_.begin(), entries_, entry);
    return entry->graph.get();
  }
  return nullptr;
}

int CudaGraphs::TimesSeen(const Plan& plan) {
  const auto times = std::ranges::count(recent_, plan.shape);
  recent_[next_recent_] = plan.shape;
  next_recent_ = (next_recent_ + 1) % static_cast<int>(recent_.size());
  return static_cast<int>(times);
}

CudaGraph* CudaGraphs::Keep(const Plan& plan,
                            std::unique_ptr<CudaGraph> graph) {
  if (size() == capacity_) entries_.pop_back();
  entries_.push_front({plan, std::move(graph)});
  captured_.fetch_add(1, std::memory_order_relaxed);
  return entries_.front().graph.get();
}

}  // namespace svdserve
