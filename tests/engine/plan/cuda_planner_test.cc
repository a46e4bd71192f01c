// Plans for CUDA: what they cost, which ways they take, how small they get.
#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "engine/plan/cost_model.h"
#include "engine/plan/cuda_cost_model.h"
#include "engine/plan/plan.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/plan/cuda_shapes.h"

namespace svdserve {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

uint64_t Charges(const CostFunction& cost, const std::vector<int>& lengths) {
  uint64_t sum = 0;
  for (int length : lengths) sum += cost.ChargeFor(length);
  return sum;
}

// A random model on a random GPU, with an arena from just enough to plenty.
struct Case {
  explicit Case(std::mt19937& random)
      : shape(RandomModel(random)),
        target(RandomGpu(random, shape)),
        least(Planner(shape, target, 0).MinimumArenaBytes()),
        planner(shape, target,
                static_cast<uint64_t>(
                    least * std::exp2(Pick(random, 0, 800) / 100.0))) {}

  ModelShape shape;
  PlanTarget target;
  uint64_t least;
  Planner planner;
};

TEST(CudaPlannerTest, FewRowsAreChained) {
  ModelShape shape = Encoder(384, 12, 6, {32, 16, 32, 48, 96, 32});
  shape.intermediate = 200;  // one kernel for the feed-forward would be faster
  PlanTarget target = Hopper(shape);
  for (LayerFusion& layer : target.fusion) {
    layer.chain_rows = 192;
    layer.feed_forward_whole = true;
  }
  target.fusion[3].chain_rows = 0;
  target.fusion[5].feed_forward_whole = true;
  const Planner planner(shape, target, uint64_t{64} << 20);
  for (const auto& [sequences, tokens] :
       {std::pair(1, 16), {1, 128}, {2, 96}, {2, 128}}) {
    const Plan plan = *planner.MakePlan(Uniform(sequences, tokens));
    for (const Step& step : plan.steps) {
      EXPECT_EQ(step.chained,
                step.layer >= 0 && step.layer != 3 && sequences * tokens <= 192)
          << plan.ToString();
    }
  }
}

// Too many rows for one chunk of the intermediate, too few for fused kernels.
TEST(CudaPlannerTest, ChunksOfTheIntermediateHaveWholeEnds) {
  for (const int rank : {192, 320}) {
    ModelShape shape = Encoder(768, 12, 2, {128, 128, 128, 128, rank, rank});
    shape.max_tokens = 512;
    shape.intermediate = 3072;
    const PlanTarget target = Hopper(shape);
    const Planner planner(shape, target, uint64_t{1} << 30);
    const Plan many = *planner.MakePlan(Uniform(32, 128));
    EXPECT_EQ(many.steps[2].rows_at_ends, 4096) << many.ToString();
    EXPECT_EQ(many.steps[2].rows_per_chunk, 2048);
    EXPECT_EQ(many.Find(many.steps[2], Role::kNarrow)->bytes, 2 * 4096 * rank);
    EXPECT_LE(many.peak_bytes, 0.35 * planner.DenseBytes(4096));
    const Plan few = *planner.MakePlan(Uniform(8, 128));
    EXPECT_EQ(few.steps[2].rows_at_ends, 0) << few.ToString();
    EXPECT_EQ(few.steps[2].rows_per_chunk, 1024);
  }
}

TEST(CudaPlannerTest, SplitSumsOfFewRowsAreFasterAndTakeTheSameBytes) {
  const ModelShape shape = BertBase(BertBaseHalf());
  const PlanTarget strict = Hopper(shape);
  PlanTarget fast = strict;
  fast.split_sum_rows = 256;
  for (const int tokens : {16, 128, 256, 320, 1024}) {
    const BatchShape batch = Uniform(1, tokens);
    const Chunking chunking = {.rows = tokens};
    const auto seconds = [&](const PlanTarget& target) {
      return FeedForwardSeconds(shape, target, BertBaseHalf(), batch, chunking);
    };
    if (tokens <= 256) {
      EXPECT_LT(seconds(fast), 0.9 * seconds(strict)) << tokens;
    } else {
      EXPECT_EQ(seconds(fast), seconds(strict)) << tokens;
    }
    const uint64_t arena = uint64_t{64} << 20;
    EXPECT_EQ(Planner(shape, fast, arena).MakePlan(batch)->peak_bytes,
              Planner(shape, strict, arena).MakePlan(batch)->peak_bytes);
  }
}

TEST(CudaPlannerTest, ChargesCoverThePeakOfEveryBatch) {
  std::mt19937 random(1);
  int planned = 0;
  for (int round = 0; round < 100; ++round) {
    const Case c(random);
    for (int batch = 0; batch < 10; ++batch) {
      const std::vector<int> lengths = RandomLengths(random, c.shape, 40);
      const auto plan = c.planner.MakePlan(ShapeOfLengths(lengths));
      if (!plan.ok()) continue;
      ++planned;
      ASSERT_LE(plan->peak_bytes, c.planner.cost().fixed_bytes() +
                                      Charges(c.planner.cost(), lengths));
      ASSERT_LE(plan->peak_bytes, c.planner.arena_bytes());
    }
  }
  EXPECT_GT(planned, 300);
}

TEST(CudaPlannerTest, WhatAdmissionLetsInAlwaysHasAPlan) {
  std::mt19937 random(2);
  int batches = 0;
  for (int round = 0; round < 100; ++round) {
    const Case c(random);
    for (int batch = 0; batch < 10; ++batch) {
      uint64_t sum = c.planner.cost().fixed_bytes();
      std::vector<int> lengths;
      for (int length : RandomLengths(random, c.shape, 300)) {
        const uint64_t charge = c.planner.cost().ChargeFor(length);
        if (sum + charge > c.planner.arena_bytes()) continue;
        sum += charge;
        lengths.push_back(length);
      }
      if (lengths.empty()) continue;
      ++batches;
      const auto plan = c.planner.MakePlan(ShapeOfLengths(lengths));
      ASSERT_TRUE(plan.ok()) << plan.status();
    }
  }
  EXPECT_GT(batches, 700);
}

TEST(CudaPlannerTest, MinimumArenaAdmitsTheLongestInput) {
  std::mt19937 random(3);
  for (int round = 0; round < 100; ++round) {
    const Case c(random);
    const Planner least(c.shape, c.target, c.least);
    EXPECT_EQ(least.cost().LongestThatFits(c.least), c.shape.max_tokens);
    EXPECT_TRUE(least.MakePlan(Uniform(1, c.shape.max_tokens)).ok());
  }
}

TEST(CudaPlannerTest, DefaultArenaHoldsTheBatchItWasMadeFor) {
  std::mt19937 random(4);
  for (int round = 0; round < 100; ++round) {
    const Case c(random);
    const BatchShape batch = Uniform(Pick(random, 1, 300), c.shape.max_tokens);
    const Planner planner(
        c.shape, c.target,
        c.planner.ArenaBytesFor(batch.tokens, batch.sequences));
    const uint64_t charges =
        batch.sequences * planner.cost().ChargeFor(batch.max_tokens);
    EXPECT_LE(planner.cost().fixed_bytes() + charges, planner.arena_bytes());
    EXPECT_TRUE(planner.MakePlan(batch).ok());
  }
}

TEST(CudaPlannerTest, FusedWaysOnlyWhereTheKernelsTakeTheLayer) {
  std::mt19937 random(5);
  int fused = 0;
  int whole = 0;
  for (int round = 0; round < 100; ++round) {
    const Case c(random);
    const auto plan =
        c.planner.MakePlan(ShapeOfLengths(RandomLengths(random, c.shape, 40)));
    if (!plan.ok()) continue;
    for (const Step& step : plan->steps) {
      if (step.way == Way::kFactoredWhole) {
        ++whole;
        const LayerShape& ranks = c.shape.layers[step.layer];
        EXPECT_EQ(step.kind, StepKind::kFeedForward);
        EXPECT_TRUE(c.target.fusion.at(step.layer).feed_forward_whole);
        EXPECT_GT(std::min(ranks.ffn_in, ranks.ffn_out), 0);
        EXPECT_TRUE(step.scratch.empty());
      }
      if (step.way != Way::kFactoredFused) continue;
      ++fused;
      const LayerFusion fusion = c.target.fusion.at(step.layer);
      const LayerShape& ranks = c.shape.layers[step.layer];
      if (step.kind == StepKind::kAttention) {
        EXPECT_LE(plan->shape.max_tokens, fusion.attention_max_tokens);
        EXPECT_GT(std::min({ranks.query, ranks.key, ranks.value}), 0);
        EXPECT_EQ(plan->Find(step, Role::kQkv), nullptr);
      } else {
        EXPECT_TRUE(fusion.feed_forward);
        EXPECT_GT(std::min(ranks.ffn_in, ranks.ffn_out), 0);
        EXPECT_EQ(plan->Find(step, Role::kInner), nullptr);
      }
    }
  }
  EXPECT_GT(fused, 20);
  EXPECT_GT(whole, 0);
}

TEST(CudaPlannerTest, EveryChunkHoldsTheLongestSequence) {
  std::mt19937 random(6);
  for (int round = 0; round < 100; ++round) {
    const Case c(random);
    const BatchShape batch = ShapeOfLengths(RandomLengths(random, c.shape, 40));
    const auto plan = c.planner.MakePlan(batch);
    if (!plan.ok()) continue;
    for (const Step& step : plan->steps) {
      EXPECT_EQ(step.lanes, 1);
      if (step.kind == StepKind::kAttention) {
        EXPECT_GE(step.rows_per_chunk, batch.max_tokens);
      }
      if (step.way == Way::kFactored || step.way == Way::kDense) {
        EXPECT_EQ(step.heads_per_group > 0, step.kind == StepKind::kAttention);
      }
    }
  }
}

TEST(CudaPlannerTest, SmallerArenaGivesSmallerChunksDownToTheMinimum) {
  const ModelShape shape = BertBase(BertBaseHalf());
  const PlanTarget target = Hopper(shape);
  const BatchShape batch = Uniform(32, 512);
  constexpr uint64_t kStep = 500'000;
  uint64_t last = 0;
  double seconds = 0;
  int different = 0;
  for (uint64_t arena = 80'000'000;; arena -= kStep) {
    const auto plan = Planner(shape, target, arena).MakePlan(batch);
    if (!plan.ok()) {
      EXPECT_THAT(std::string(plan.status().message()),
                  AllOf(HasSubstr("needs"), HasSubstr("the arena has")));
      break;
    }
    EXPECT_LE(plan->peak_bytes, arena);
    EXPECT_GE(plan->predicted_seconds, seconds * 0.95);
    if (plan->peak_bytes < last) ++different;
    last = plan->peak_bytes;
    seconds = plan->predicted_seconds;
  }
  EXPECT_GE(different, 5);
  // In the end little more than the residual stream: one sequence's chunks.
  EXPECT_LT(last, 16384 * 1541 + 512 * 2688 + 2 * kStep);
}

TEST(CudaPlannerTest, SmallBatchesRunInOneChunkAndLargeOnesFused) {
  const ModelShape shape = BertBase(BertBaseHalf());
  const PlanTarget target = Hopper(shape);
  const Planner planner(shape, target,
                        Planner(shape, target, 0).ArenaBytesFor(65536, 512));
  const auto small = planner.MakePlan(Uniform(1, 128));
  const auto large = planner.MakePlan(Uniform(64, 512));
  ASSERT_TRUE(small.ok());
  ASSERT_TRUE(large.ok());
  EXPECT_TRUE(small->IsSingleChunk());
  EXPECT_FALSE(large->IsSingleChunk());
  // One row of blocks would leave the chip idle; many fill it.
  EXPECT_EQ(small->steps[2].way, Way::kFactored);
  EXPECT_EQ(large->steps[1].way, Way::kFactoredFused);
  EXPECT_EQ(large->steps[2].way, Way::kFactoredFused);
}

TEST(CudaPlannerTest, ManyRowsRunTheFeedForwardByOneKernelWithoutBuffers) {
  const ModelShape shape = BertBase(BertBaseHalf());
  const PlanTarget without = Hopper(shape);
  PlanTarget with = without;
  for (LayerFusion& fusion : with.fusion) fusion.feed_forward_whole = true;
  const Planner planner(shape, with, 200 << 20);
  const auto plan = planner.MakePlan(Uniform(32, 512));
  ASSERT_TRUE(plan.ok());
  const Step& step = plan->steps[2];
  EXPECT_EQ(step.way, Way::kFactoredWhole);
  EXPECT_EQ(step.rows_per_chunk, 16384);
  EXPECT_TRUE(step.scratch.empty());
  EXPECT_THAT(plan->ToString(), HasSubstr("feed_forward 0 whole, chunks of"));
  const Planner before(shape, without, 200 << 20);
  EXPECT_LT(plan->peak_bytes, before.MakePlan(Uniform(32, 512))->peak_bytes);
  // Few rows leave multiprocessors idle; their chunks' budget is what it was.
  EXPECT_EQ(planner.MakePlan(Uniform(8, 128))->steps[2].way, Way::kFactored);
  EXPECT_EQ(planner.cost().fixed_bytes(), before.cost().fixed_bytes());
}

TEST(CudaPlannerTest, AWaveThatIsBegunIsPaidWhole) {
  const ModelShape shape = BertBase(BertBaseHalf());
  const PlanTarget target = Hopper(shape);
  const auto seconds = [&](int rows) {
    return FeedForwardSeconds(shape, target, shape.layers[0], Uniform(rows, 1),
                              {.rows = rows, .fused = true});
  };
  const int wave = FusedFeedForwardWaveRows(target);
  EXPECT_LT(seconds(wave), 1.5 * seconds(wave / 2));
  EXPECT_GT(seconds(wave + 1), 1.5 * seconds(wave));
}

TEST(CudaPlannerTest, LongSequencesRunUnfused) {
  const ModelShape shape = BertBase(BertBaseHalf());
  const Planner planner(shape, Hopper(shape), 200 << 20);
  const auto plan = planner.MakePlan(Uniform(8, 2048));
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->steps[1].way, Way::kFactored);
  EXPECT_EQ(plan->steps[2].way, Way::kFactoredFused);
  EXPECT_THAT(plan->ToString(),
              AllOf(HasSubstr("attention 0 factored, chunks of"),
                    HasSubstr("feed_forward 0 fused, chunks of")));
}

TEST(CudaPlannerTest, GivenChunksAreTakenWhereTheKernelsCan) {
  const ModelShape shape = BertBase(BertBaseHalf());
  PlanTarget target = Hopper(shape);
  target.fusion[1] = {};
  const Planner planner(shape, target, 0);
  const Chunking chunks = {.rows = 4096, .fused = true};
  const Plan plan = planner.MakePlanWith(Uniform(32, 512), chunks, chunks);
  EXPECT_EQ(plan.steps[1].way, Way::kFactoredFused);
  EXPECT_EQ(plan.steps[2].way, Way::kFactoredFused);
  EXPECT_EQ(plan.steps[3].way, Way::kFactored);
  EXPECT_EQ(plan.steps[3].heads_per_group, 12);
  EXPECT_EQ(plan.steps[4].way, Way::kFactored);
  for (int step = 1; step < 5; ++step) {
    EXPECT_EQ(plan.steps[step].rows_per_chunk, 4096);
  }
}

TEST(CudaPlannerTest, WaysAreNamedByTheMatrices) {
  const Chunking attention = {.rows = 512, .heads = 4};
  const Chunking feed_forward = {.rows = 512};
  const auto plan = [&](LayerShape ranks) {
    const ModelShape shape = BertBase(ranks);
    return Planner(shape, Hopper(shape), 0)
        .MakePlanWith(Uniform(4, 128), attention, feed_forward);
  };
  EXPECT_EQ(plan({}).steps[1].way, Way::kDense);
  EXPECT_EQ(plan({64, 0, 64, 64, 0, 64}).steps[1].way, Way::kMixed);
  EXPECT_EQ(plan({64, 0, 64, 64, 0, 64}).steps[2].way, Way::kMixed);
  EXPECT_EQ(plan(BertBaseHalf()).steps[2].way, Way::kFactored);
  EXPECT_THAT(plan(BertBaseHalf()).ToString(), Not(HasSubstr("fused")));
}

// The bars of peak activation, as shares of the dense forward's.
struct Bar {
  int sequences;
  int tokens;
  double share;
};

class MemoryBarTest : public ::testing::TestWithParam<Bar> {
 protected:
  static std::vector<ModelShape> Encoders() {
    return {BertBase(BertBaseHalf()),
            Encoder(384, 12, 6, {96, 96, 96, 96, 160, 160}),
            Encoder(1024, 16, 24, {256, 256, 256, 256, 320, 320})};
  }
  uint64_t Allowed(const Planner& planner) const {
    return GetParam().share *
           planner.DenseBytes(GetParam().sequences * GetParam().tokens);
  }
  BatchShape Batch() const {
    return Uniform(GetParam().sequences, GetParam().tokens);
  }
};

TEST_P(MemoryBarTest, AnArenaOfTheBarsSizeIsEnough) {
  for (const ModelShape& shape : Encoders()) {
    const PlanTarget target = Hopper(shape);
    const uint64_t arena = Allowed(Planner(shape, target, 0));
    const auto plan = Planner(shape, target, arena).MakePlan(Batch());
    ASSERT_TRUE(plan.ok()) << plan.status();
    const auto roomy = Planner(shape, target, 8 * arena).MakePlan(Batch());
    ASSERT_TRUE(roomy.ok());
    EXPECT_LE(plan->predicted_seconds, 1.3 * roomy->predicted_seconds)
        << plan->ToString();
  }
}

// Smaller batches may have chunks as large as a full batch has.
class FullBatchTest : public MemoryBarTest {};
TEST_P(FullBatchTest, TheDefaultArenaKeepsBelowTheBar) {
  for (const ModelShape& shape : Encoders()) {
    const PlanTarget target = Hopper(shape);
    const uint64_t arena = Planner(shape, target, 0).ArenaBytesFor(65536, 512);
    const Planner planner(shape, target, arena);
    const auto plan = planner.MakePlan(Batch());
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_LE(plan->peak_bytes, Allowed(planner)) << plan->ToString();
  }
}

std::string BarName(const testing::TestParamInfo<Bar>& info) {
  return std::to_string(info.param.sequences) + "x" +
         std::to_string(info.param.tokens);
}
constexpr Bar kFullBatches[] = {
    {32, 512, 0.20}, {64, 512, 0.20}, {8, 2048, 0.20}};
INSTANTIATE_TEST_SUITE_P(Full, MemoryBarTest, ::testing::ValuesIn(kFullBatches),
                         BarName);
INSTANTIATE_TEST_SUITE_P(Small, MemoryBarTest,
                         ::testing::Values(Bar{32, 128, 0.35}), BarName);
INSTANTIATE_TEST_SUITE_P(Full, FullBatchTest, ::testing::ValuesIn(kFullBatches),
                         BarName);

}  // namespace
}  // namespace svdserve
