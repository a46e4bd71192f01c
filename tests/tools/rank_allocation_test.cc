#include "tools/compress/rank_allocation.h"

#include <algorithm>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace svdserve {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

LayerSizes Bert(int hidden, int intermediate) {
  LayerSizes sizes;
  sizes.fill({.in = hidden, .out = hidden});
  sizes[static_cast<int>(MatrixKind::kFfnIn)] = {.in = hidden,
                                                 .out = intermediate};
  sizes[static_cast<int>(MatrixKind::kFfnOut)] = {.in = intermediate,
                                                  .out = hidden};
  return sizes;
}

double KeptRatio(const LayerSizes& sizes, const KindRanks& ranks) {
  return static_cast<double>(LayerParameters(sizes, ranks)) /
         LayerParameters(sizes, KindRanks{});
}

double Share(const MatrixSize& size, int rank) {
  return static_cast<double>(size.parameters(rank)) / size.dense_parameters();
}

TEST(RankAllocationTest, HalfOfMiniLm) {
  const auto ranks = AllocateRanks(Bert(384, 1536), 0.5);
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  EXPECT_THAT(*ranks, ElementsAre(96, 96, 96, 96, 160, 144));
}

TEST(RankAllocationTest, HalfOfBertBase) {
  const LayerSizes sizes = Bert(768, 3072);
  const auto ranks = AllocateRanks(sizes, 0.5);
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  EXPECT_THAT(*ranks, ElementsAre(192, 192, 192, 192, 304, 304));
  EXPECT_LE(KeptRatio(sizes, *ranks), 0.5);
  EXPECT_GT(KeptRatio(sizes, *ranks), 0.49);
}

TEST(RankAllocationTest, SmallMatricesGetRankEight) {
  const auto ranks = AllocateRanks(Bert(32, 64), 0.5);
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  EXPECT_THAT(*ranks, ElementsAre(8, 8, 8, 8, 8, 8));
}

TEST(RankAllocationTest, MatricesThatFactorsDoNotShrinkStayDense) {
  const auto ranks = AllocateRanks(Bert(384, 1536), 0.999);
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  EXPECT_GT(std::count(ranks->begin(), ranks->end(), 0), 0);
  EXPECT_LT(std::count(ranks->begin(), ranks->end(), 0), kMatrixKinds);
}

TEST(RankAllocationTest, RefusesARatioOutOfRange) {
  for (const double ratio :
       {0.0, -0.5, 1.0, 50.0, std::numeric_limits<double>::quiet_NaN()}) {
    const auto ranks = AllocateRanks(Bert(384, 1536), ratio);
    EXPECT_EQ(ranks.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(ranks.status().message(), HasSubstr("above 0 and below 1"));
  }
}

TEST(RankAllocationTest, NamesTheLeastRatioOfAModel) {
  const LayerSizes sizes = Bert(64, 128);
  const auto refused = AllocateRanks(sizes, 0.2);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(refused.status().message(), HasSubstr("0.2188"));
  const auto ranks = AllocateRanks(sizes, 0.2188);
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  EXPECT_THAT(*ranks, ElementsAre(8, 8, 8, 8, 8, 8));
}

struct Case {
  int hidden;
  int intermediate;
  double ratio;
};

class RankAllocationPropertyTest : public testing::TestWithParam<Case> {};

TEST_P(RankAllocationPropertyTest, UsesTheBudgetAndNoMore) {
  const Case& c = GetParam();
  const LayerSizes sizes = Bert(c.hidden, c.intermediate);
  const auto ranks = AllocateRanks(sizes, c.ratio);
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  const int64_t budget = c.ratio * LayerParameters(sizes, KindRanks{});
  EXPECT_LE(LayerParameters(sizes, *ranks), budget);
  for (int k = 0; k < kMatrixKinds; ++k) {
    if ((*ranks)[k] == 0) continue;
    EXPECT_LT(sizes[k].parameters((*ranks)[k]), sizes[k].dense_parameters());
    EXPECT_TRUE((*ranks)[k] % 16 == 0 || (*ranks)[k] == 8);
    if (Share(sizes[k], (*ranks)[k]) >= c.ratio) continue;
    KindRanks raised = *ranks;  // one step up for what has less is too much
    raised[k] = raised[k] / 16 * 16 + 16;
    if (sizes[k].parameters(raised[k]) >= sizes[k].dense_parameters()) {
      raised[k] = 0;
    }
    EXPECT_GT(LayerParameters(sizes, raised), budget) << k;
  }
}

TEST_P(RankAllocationPropertyTest, KindsGetNearlyTheSameShare) {
  const Case& c = GetParam();
  const LayerSizes sizes = Bert(c.hidden, c.intermediate);
  const auto ranks = AllocateRanks(sizes, c.ratio);
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  double step = 0;  // the coarsest step of any kind, as a share
  for (const MatrixSize& size : sizes) {
    step = std::max(step, Share(size, 16));
  }
  for (int k = 0; k < kMatrixKinds; ++k) {
    EXPECT_NEAR(Share(sizes[k], (*ranks)[k]), c.ratio, step) << k;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Sizes, RankAllocationPropertyTest,
    testing::Values(Case{64, 128, 0.25}, Case{64, 256, 0.5},
                    Case{128, 512, 0.3}, Case{384, 1536, 0.1},
                    Case{384, 1536, 0.25}, Case{384, 1536, 0.5},
                    Case{384, 1536, 0.75}, Case{384, 1536, 0.95},
                    Case{768, 3072, 0.4}, Case{1024, 4096, 0.6},
                    Case{312, 1200, 0.5}));

}  // namespace
}  // namespace svdserve
