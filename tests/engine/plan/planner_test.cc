#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "engine/plan/plan.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/plan/shapes.h"

namespace svdserve {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr PlanTarget kTwoCores = {.element_bytes = 4,
                                  .threads = 2,
                                  .row_tile = 16,
                                  .heads_per_panel = 2,
                                  .kernel_scratch_bytes = 4096};

uint64_t Charges(const CostFunction& cost, const std::vector<int>& lengths) {
  uint64_t sum = 0;
  for (int length : lengths) sum += cost.ChargeFor(length);
  return sum;
}

// An arena from just enough to more than plenty.
uint64_t RandomArena(std::mt19937& random, uint64_t minimum) {
  const double factor = std::exp2(Pick(random, 0, 800) / 100.0);
  return Pick(random, 0, 9) == 0 ? minimum
                                 : static_cast<uint64_t>(minimum * factor);
}

TEST(PlannerTest, ChargesCoverThePeakOfEveryBatch) {
  std::mt19937 random(1);
  int planned = 0;
  for (int round = 0; round < 400; ++round) {
    const ModelShape shape = RandomModel(random);
    const PlanTarget target = RandomTarget(random);
    const uint64_t least = Planner(shape, target, 0).MinimumArenaBytes();
    const Planner planner(shape, target, RandomArena(random, least));
    for (int batch = 0; batch < 10; ++batch) {
      const std::vector<int> lengths = RandomLengths(random, shape, 40);
      const auto plan = planner.MakePlan(ShapeOfLengths(lengths));
      if (!plan.ok()) continue;
      ++planned;
      ASSERT_LE(plan->peak_bytes, planner.cost().fixed_bytes() +
                                      Charges(planner.cost(), lengths));
      ASSERT_LE(plan->peak_bytes, planner.arena_bytes());
    }
  }
  EXPECT_GT(planned, 1000);
}

TEST(PlannerTest, WhatAdmissionLetsInAlwaysHasAPlan) {
  std::mt19937 random(2);
  int batches = 0;
  for (int round = 0; round < 400; ++round) {
    const ModelShape shape = RandomModel(random);
    const PlanTarget target = RandomTarget(random);
    const uint64_t least = Planner(shape, target, 0).MinimumArenaBytes();
    const Planner planner(shape, target, RandomArena(random, least));
    for (int batch = 0; batch < 10; ++batch) {
      // Fill up as a scheduler does.
      uint64_t sum = planner.cost().fixed_bytes();
      std::vector<int> lengths;
      for (int length : RandomLengths(random, shape, 300)) {
        const uint64_t charge = planner.cost().ChargeFor(length);
        if (sum + charge > planner.arena_bytes()) continue;
        sum += charge;
        lengths.push_back(length);
      }
      if (lengths.empty()) continue;
      ++batches;
      const auto plan = planner.MakePlan(ShapeOfLengths(lengths));
      ASSERT_TRUE(plan.ok()) << plan.status();
    }
  }
  EXPECT_GT(batches, 3000);
}

TEST(PlannerTest, MinimumArenaAdmitsTheLongestInputAndLessDoesNot) {
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    const ModelShape shape = RandomModel(random);
    const PlanTarget target = RandomTarget(random);
    const uint64_t least = Planner(shape, target, 0).MinimumArenaBytes();
    EXPECT_EQ(Planner(shape, target, least).cost().LongestThatFits(least),
              shape.max_tokens);
    EXPECT_LT(
        Planner(shape, target, least - 1).cost().LongestThatFits(least - 1),
        shape.max_tokens);
  }
}

TEST(PlannerTest, SmallerArenaGivesSmallerChunksDownToTheMinimum) {
  const ModelShape shape = MiniLm(HalfRanks());
  const BatchShape batch = {.sequences = 16, .tokens = 4096, .max_tokens = 256};
  const Planner roomy(shape, kTwoCores, 64 << 20);
  const auto best = roomy.MakePlan(batch);
  ASSERT_TRUE(best.ok());
  uint64_t last = best->peak_bytes + 1;
  int different = 0;
  for (uint64_t arena = best->peak_bytes + 100000;; arena -= 100000) {
    const Planner planner(shape, kTwoCores, arena);
    const auto plan = planner.MakePlan(batch);
    if (!plan.ok()) {
      // Nothing below this can run it: the smallest chunks were tried.
      EXPECT_THAT(std::string(plan.status().message()),
                  AllOf(HasSubstr("needs"), HasSubstr("the arena has")));
      break;
    }
    EXPECT_LE(plan->peak_bytes, arena);
    EXPECT_LE(plan->peak_bytes, last);
    if (plan->peak_bytes < last) ++different;
    last = plan->peak_bytes;
  }
  EXPECT_GE(different, 2);
  // Residual stream plus about 0.5 MiB is enough in the end.
  EXPECT_LT(last, 4096 * 384 * 4 + (1 << 20));
}

TEST(PlannerTest, PeakOfMiniLmIsFarBelowTheDenseForward) {
  const ModelShape shape = MiniLm(HalfRanks());
  Planner sizing(shape, kTwoCores, 0);
  const Planner planner(shape, kTwoCores, sizing.ArenaBytesFor(16384, 512));
  const auto plan =
      planner.MakePlan({.sequences = 32, .tokens = 8192, .max_tokens = 256});
  ASSERT_TRUE(plan.ok());
  EXPECT_LT(plan->peak_bytes, planner.DenseBytes(8192) / 5);
  EXPECT_EQ(planner.DenseBytes(8192), uint64_t{8192} * 10 * 384 * 4);
}

TEST(PlannerTest, DefaultArenaHoldsTheBatchItWasMadeFor) {
  std::mt19937 random(4);
  for (int round = 0; round < 100; ++round) {
    const ModelShape shape = RandomModel(random);
    const PlanTarget target = RandomTarget(random);
    const Planner sizing(shape, target, 0);
    const int sequences = Pick(random, 1, 300);
    const uint64_t arena =
        sizing.ArenaBytesFor(sequences * shape.max_tokens, sequences);
    const Planner planner(shape, target, arena);
    EXPECT_TRUE(planner
                    .MakePlan({.sequences = sequences,
                               .tokens = sequences * shape.max_tokens,
                               .max_tokens = shape.max_tokens})
                    .ok());
  }
}

TEST(PlannerTest, SmallBatchesShareOneChunkAndLargeOnesDoNot) {
  const Planner planner(MiniLm(HalfRanks()), kTwoCores, 64 << 20);
  const auto small =
      planner.MakePlan({.sequences = 1, .tokens = 16, .max_tokens = 16});
  const auto large =
      planner.MakePlan({.sequences = 32, .tokens = 4096, .max_tokens = 128});
  ASSERT_TRUE(small.ok());
  ASSERT_TRUE(large.ok());
  EXPECT_EQ(small->steps[1].lanes, 1);
  EXPECT_EQ(large->steps[1].lanes, 2);
  EXPECT_LT(small->predicted_seconds, large->predicted_seconds);
}

TEST(PlannerTest, PlansAreValues) {
  const Planner planner(MiniLm(HalfRanks()), kTwoCores, 64 << 20);
  const BatchShape batch = {.sequences = 3, .tokens = 300, .max_tokens = 128};
  EXPECT_EQ(planner.MakePlan(batch)->ToString(),
            planner.MakePlan(batch)->ToString());
  EXPECT_EQ(planner.MakePlan(batch)->ToString(),
            planner.MakePlan(BucketOf(batch))->ToString());
  EXPECT_THAT(planner.MakePlan(batch)->ToString(),
              AllOf(HasSubstr("attention 5 factored, chunks of"),
                    HasSubstr("hidden: ["), HasSubstr("side by side")));
}

TEST(PlannerTest, BucketsContainTheirShapesAndAddLittle) {
  std::mt19937 random(5);
  for (int round = 0; round < 2000; ++round) {
    const ModelShape shape = RandomModel(random);
    const BatchShape batch = ShapeOfLengths(RandomLengths(random, shape, 100));
    const BatchShape bucket = BucketOf(batch);
    EXPECT_EQ(BucketOf(bucket), bucket);
    EXPECT_GE(bucket.tokens, batch.tokens);
    EXPECT_LT(bucket.tokens, batch.tokens + 256);
    EXPECT_GE(bucket.sequences, batch.sequences);
    EXPECT_LT(bucket.sequences, batch.sequences + 16);
    EXPECT_GE(bucket.max_tokens, batch.max_tokens);
  }
}

TEST(PlannerTest, RefusesShapesThatCannotBe) {
  const Planner planner(MiniLm(HalfRanks()), kTwoCores, 64 << 20);
  EXPECT_FALSE(planner.MakePlan({0, 0, 0}).ok());
  EXPECT_FALSE(planner.MakePlan({2, 1, 1}).ok());
  EXPECT_FALSE(planner.MakePlan({1, 20, 10}).ok());
  EXPECT_FALSE(planner.MakePlan({1 << 24, 2147483647, 256}).ok());
  EXPECT_THAT(std::string(planner.MakePlan({1, 300, 300}).status().message()),
              AllOf(HasSubstr("300 tokens"), HasSubstr("up to 256")));
}

}  // namespace
}  // namespace svdserve
