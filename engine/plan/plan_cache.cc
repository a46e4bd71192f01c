#include "engine/plan/plan_cache.h"

#include <utility>

namespace svdserve {

absl::StatusOr<std::shared_ptr<const Plan>> PlanCache::Get(
    const BatchShape& shape) {
  const BatchShape bucket = BucketOf(shape);
  const Key key = {bucket.sequences, bucket.tokens, bucket.max_tokens};
  if (auto found = by_key_.find(key); found != by_key_.end()) {
    ++hits_;
    plans_.splice(plans_.begin(), plans_, found->second);
    return plans_.front().plan;
  }
  ++misses_;
  absl::StatusOr<Plan> plan = planner_->MakePlan(shape);
  if (!plan.ok()) return plan.status();
  if (size() == capacity_) {
    by_key_.erase(plans_.back().key);
    plans_.pop_back();
  }
  plans_.push_front({key, std::make_shared<const Plan>(*std::move(plan))});
  by_key_[key] = plans_.begin();
  return plans_.front().plan;
}

}  // namespace svdserve
