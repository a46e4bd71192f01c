// Plans by bucket, so that batches of a known shape are not planned again.
//
// Bounded: the plan that was used longest ago makes room for a new one. Not
// thread-safe: a worker owns its cache. A plan stays valid for as long as its
// holder keeps it, whatever the cache drops.
//
//   PlanCache cache(&planner, 256);
//   absl::StatusOr<std::shared_ptr<const Plan>> plan =
//   cache.Get(batch.Shape());
#ifndef SVDSERVE_ENGINE_PLAN_PLAN_CACHE_H_
#define SVDSERVE_ENGINE_PLAN_PLAN_CACHE_H_

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <tuple>

#include "absl/status/statusor.h"
#include "engine/plan/plan.h"

namespace svdserve {

class PlanCache {
 public:
  // `planner` must outlive the cache; `capacity` >= 1 plans.
  PlanCache(const Planner* planner, int capacity)
      : planner_(planner), capacity_(capacity) {}

  // Errors are MakePlan()'s and are not kept.
  absl::StatusOr<std::shared_ptr<const Plan>> Get(const BatchShape& shape);

  int size() const { return static_cast<int>(plans_.size()); }
  int64_t hits() const { return hits_; }
  int64_t misses() const { return misses_; }

 private:
  using Key = std::tuple<int, int, int>;
  struct Entry {
    Key key;
    std::shared_ptr<const Plan> plan;
  };

  const Planner* planner_;
  const int capacity_;
  std::list<Entry> plans_;  // the one used last comes first
  std::map<Key, std::list<Entry>::iterator> by_key_;
  int64_t hits_ = 0;
  int64_t misses_ = 0;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_PLAN_PLAN_CACHE_H_
