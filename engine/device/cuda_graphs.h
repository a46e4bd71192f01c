// CUDA graphs by plan: the launches of a bucket's batches, captured once.
//
// Bounded: the graph that was used longest ago makes room for a new one, so
// that device memory does not creep. Not thread-safe but for the counts.
//
// A capture takes longer than it saves the first time, so a bucket gets its
// graph when it comes again; TimesSeen() says how often it came of late.
//
//   CudaGraph* graph = graphs.Find(plan);
//   if (graph == nullptr && graphs.TimesSeen(plan) > 0) {
//     graph = graphs.Keep(plan, std::move(captured));
//   }
#ifndef SVDSERVE_ENGINE_DEVICE_CUDA_GRAPHS_H_
#define SVDSERVE_ENGINE_DEVICE_CUDA_GRAPHS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <list>
#include <memory>

#include "engine/device/cuda_runtime.h"
#include "engine/plan/plan.h"

namespace svdserve {

class CudaGraphs {
 public:
  explicit CudaGraphs(int capacity) : capacity_(capacity) {}

  // The graph of an equal plan; null if there is none. Allocates nothing.
  CudaGraph* Find(const Plan& plan);
  // How many of the last 256 plans that were asked about had this shape; then
  // counts this one too.
  int TimesSeen(const Plan& plan);
  // `capacity` must be more than the batches that may be under way: the graph
  // that is dropped is not among them.
  CudaGraph* Keep(const Plan& plan, std::unique_ptr<CudaGraph> graph);

  int size() const { return static_cast<int>(entries_.size()); }
  // How many were captured so far.
  int64_t captured() const { return captured_.load(std::memory_order_relaxed); }

 private:
  struct Entry {
    Plan plan;
    std::unique_ptr<CudaGraph> graph;
  };
  const int capacity_;
  std::list<Entry> entries_;                 // the one used last comes first
  std::array<BatchShape, 256> recent_ = {};  // the oldest is at next_recent_
  int next_recent_ = 0;
  std::atomic<int64_t> captured_{0};
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_DEVICE_CUDA_GRAPHS_H_
