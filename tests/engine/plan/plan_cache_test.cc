#include "engine/plan/plan_cache.h"

#include "gtest/gtest.h"
#include "tests/engine/plan/shapes.h"

namespace svdserve {
namespace {

class PlanCacheTest : public ::testing::Test {
 protected:
  // One sequence of `tokens` tokens.
  std::shared_ptr<const Plan> Get(int tokens) {
    auto plan = cache_.Get({1, tokens, tokens});
    EXPECT_TRUE(plan.ok());
    return *plan;
  }

  Planner planner_{MiniLm(HalfRanks()), {.threads = 2}, 64 << 20};
  PlanCache cache_{&planner_, 2};
};

TEST_F(PlanCacheTest, ShapesOfOneBucketShareAPlan) {
  EXPECT_EQ(Get(17), Get(31));
  EXPECT_EQ(cache_.hits(), 1);
  EXPECT_EQ(cache_.misses(), 1);
}

TEST_F(PlanCacheTest, DropsThePlanThatWasUsedLongestAgo) {
  const auto first = Get(16);
  const auto second = Get(32);
  EXPECT_EQ(Get(16), first);
  Get(64);  // drops 32
  EXPECT_EQ(cache_.size(), 2);
  EXPECT_EQ(Get(16), first);
  EXPECT_NE(Get(32), second);
  EXPECT_EQ(second->shape.tokens, 32);  // its holder still has it
}

TEST_F(PlanCacheTest, ErrorsAreNotKept) {
  EXPECT_FALSE(cache_.Get({1, 400, 400}).ok());
  EXPECT_EQ(cache_.size(), 0);
}

}  // namespace
}  // namespace svdserve
