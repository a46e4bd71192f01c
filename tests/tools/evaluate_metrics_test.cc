// Expected values without another source are by NumPy and SciPy 1.x:
// np.percentile, stats.spearmanr, and neighbours by np.argsort.
#include <cmath>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/evaluate/metrics.h"

namespace svdserve {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Thirteen texts in three dimensions; no two neighbours are equally near.
const Outputs kDense = {
    .width = 3, .values = {2,  3,  -4, 3,  0,  0,  1,  -2, 4, -4, -2, -1, 1,
                           -1, -3, -4, -4, -4, -3, 4,  -3, 1, 2,  -2, -2, -1,
                           -2, 4,  -3, 4,  3,  3,  -3, -1, 1, 0,  1,  2,  1}};
const Outputs kCompressed = {
    .width = 3, .values = {1,  4,  -4, 4,  -1, 0,  2,  -3, 3, -4, -1, -2, 2,
                           -1, -4, -4, -3, -3, -2, 3,  -4, 2, 3,  -1, -3, -2,
                           -2, 4,  -3, 5,  2,  3,  -4, -2, 2, -1, 0,  1,  0}};

TEST(RowCosines, AreOfRowsWithRows) {
  const std::vector<double> cosines = RowCosines(kDense, kCompressed);
  ASSERT_EQ(cosines.size(), 13);
  EXPECT_NEAR(cosines[0], 0.969762275752854, 1e-12);
  EXPECT_NEAR(cosines[3], 20 / 21.0, 1e-12);
}

TEST(RowCosines, ZerosAreLikeZerosOnly) {
  EXPECT_THAT(RowCosines({.width = 2, .values = {0, 0, 0, 0, 3, 0}},
                         {.width = 2, .values = {0, 0, 1, 0, -2, 0}}),
              ElementsAre(1, 0, -1));
}

TEST(Summary, OfPercentilesBetweenValues) {
  const Distribution d = Summarize({0.1, 0.5, 0.2, 0.9, 0.4});
  EXPECT_NEAR(d.mean, 0.42, 1e-12);
  EXPECT_EQ(d.min, 0.1);
  EXPECT_NEAR(d.p1, 0.104, 1e-12);
  EXPECT_NEAR(d.p5, 0.12, 1e-12);
  EXPECT_NEAR(d.p50, 0.4, 1e-12);
}

TEST(Summary, OfOneValueIsThatValue) {
  const Distribution d = Summarize({0.25});
  EXPECT_THAT((std::vector{d.mean, d.min, d.p1, d.p5, d.p50}),
              ElementsAre(0.25, 0.25, 0.25, 0.25, 0.25));
}

TEST(CosineHistogram, BeginsAtARoundNumberBelowTheLeast) {
  const Histogram h = CosineHistogram({0.81, 0.91, 0.999, 1}, 4);
  EXPECT_NEAR(h.low, 0.8, 1e-12);
  EXPECT_EQ(h.high, 1);
  EXPECT_THAT(h.counts, ElementsAre(1, 0, 1, 2));
}

TEST(CosineHistogram, IsFineWhereAllIsNearOne) {
  const Histogram h = CosineHistogram({0.99985, 0.99999}, 2);
  EXPECT_NEAR(h.low, 0.9998, 1e-12);
  EXPECT_THAT(h.counts, ElementsAre(1, 1));
}

TEST(CosineHistogram, HoldsTheExtremes) {
  EXPECT_THAT(CosineHistogram({1, 1}, 3).counts, ElementsAre(0, 0, 2));
  const Histogram h = CosineHistogram({-1, 1}, 2);
  EXPECT_LE(h.low, -1);
  EXPECT_THAT(h.counts, ElementsAre(1, 1));
}

TEST(Neighbours, RecallIsTheShareThatStays) {
  const NeighbourAgreement n = CompareNeighbours(kDense, kCompressed, 100, 0);
  EXPECT_EQ(n.queries, 13);
  EXPECT_NEAR(n.recall_at_1.value(), 8 / 13.0, 1e-12);
  EXPECT_NEAR(n.recall_at_10.value(), 119 / 130.0, 1e-12);
}

TEST(Neighbours, AreTheSameOfTheSame) {
  const NeighbourAgreement n = CompareNeighbours(kDense, kDense, 5, 3);
  EXPECT_EQ(n.queries, 5);
  EXPECT_EQ(n.recall_at_1, 1);
  EXPECT_EQ(n.recall_at_10, 1);
}

TEST(Neighbours, OfTooFewTextsSayNothing) {
  const Outputs two = {.width = 1, .values = {1, 2}};
  EXPECT_FALSE(CompareNeighbours(two, two, 9, 0).recall_at_1.has_value());
  // Ten others: all are among the ten nearest, whatever the model.
  Outputs eleven = {.width = 1, .values = std::vector<float>(11, 1)};
  EXPECT_TRUE(CompareNeighbours(eleven, eleven, 9, 0).recall_at_1.has_value());
  EXPECT_FALSE(
      CompareNeighbours(eleven, eleven, 9, 0).recall_at_10.has_value());
}

TEST(Spearman, EqualValuesShareTheirMeanRank) {
  EXPECT_THAT(Spearman({1, 2, 2, 3, 5, 5, 5, 8}, {2, 1, 4, 4, 3, 7, 9, 9}),
              testing::Optional(DoubleNear(0.7641078192857804, 1e-12)));
}

TEST(Spearman, SeesOrderOnly) {
  EXPECT_THAT(Spearman({1, 2, 3}, {-5, 0, 1000}),
              testing::Optional(DoubleNear(1, 1e-12)));
  EXPECT_THAT(Spearman({1, 2, 3}, {9, 8, 1}),
              testing::Optional(DoubleNear(-1, 1e-12)));
}

TEST(Spearman, OfWhatHasNoOrderIsNone) {
  EXPECT_FALSE(Spearman({}, {}).has_value());
  EXPECT_FALSE(Spearman({1}, {2}).has_value());
  EXPECT_FALSE(Spearman({1, 1, 1}, {1, 2, 3}).has_value());
}

TEST(Similarities, OfAllPairs) {
  const SimilarityAgreement s =
      CompareSimilarities(kDense, kCompressed, 1000, 0);
  EXPECT_EQ(s.pairs, 13 * 12 / 2);
  EXPECT_FALSE(s.sampled);
  // Some pairs are equally similar but for rounding, which may go either way.
  EXPECT_NEAR(s.spearman.value(), 0.8505434610958311, 2e-3);
}

TEST(Similarities, OfASampleAreNearThoseOfAll) {
  const SimilarityAgreement sample =
      CompareSimilarities(kDense, kCompressed, 77, 1);
  EXPECT_EQ(sample.pairs, 77);
  EXPECT_TRUE(sample.sampled);
  EXPECT_NEAR(sample.spearman.value(), 0.85, 0.1);
  EXPECT_EQ(sample.spearman,
            CompareSimilarities(kDense, kCompressed, 77, 1).spearman);
  EXPECT_NE(sample.spearman,
            CompareSimilarities(kDense, kCompressed, 77, 2).spearman);
}

TEST(Logits, AgreementAndError) {
  const LogitAgreement l =
      CompareLogits({.width = 2, .values = {1, 0, 0, 1, 3, 2}},
                    {.width = 2, .values = {2, 0, 1, 0, 3.5, 2}});
  EXPECT_NEAR(l.argmax.value(), 2 / 3.0, 1e-12);
  EXPECT_NEAR(l.mean_error, (1 + 0 + 1 + 1 + 0.5 + 0) / 6, 1e-12);
  EXPECT_EQ(l.max_error, 1);
  EXPECT_FALSE(l.score_spearman.has_value());
}

TEST(Logits, OneScoreHasAnOrderButNoLabel) {
  const LogitAgreement l = CompareLogits({.width = 1, .values = {1, 2, 3}},
                                         {.width = 1, .values = {1, 3, 2}});
  EXPECT_FALSE(l.argmax.has_value());
  EXPECT_NEAR(l.score_spearman.value(), 0.5, 1e-12);
}

TEST(RelativeError, IsOverAllThatWasAdded) {
  RelativeError error;
  const std::vector<float> a = {3, 0};
  const std::vector<float> b = {3, 2};
  error.Add(a.data(), b.data(), 2);
  error.Add(b.data(), b.data(), 2);
  EXPECT_NEAR(error.value().value(), std::sqrt(4 / (9.0 + 9 + 4)), 1e-12);
}

TEST(RelativeError, OfNothingIsNoneOrZero) {
  const float zero = 0;
  const float one = 1;
  RelativeError error;
  EXPECT_EQ(error.value(), 0);
  error.Add(&zero, &one, 1);
  EXPECT_FALSE(error.value().has_value());
}

TEST(Sample, IsOfDifferentNumbersInOrder) {
  const std::vector<int> sample = Sample(100, 30, 4);
  EXPECT_EQ(std::set<int>(sample.begin(), sample.end()).size(), 30);
  EXPECT_TRUE(std::is_sorted(sample.begin(), sample.end()));
  EXPECT_EQ(sample, Sample(100, 30, 4));
  EXPECT_NE(sample, Sample(100, 30, 5));
  EXPECT_THAT(Sample(3, 9, 0), ElementsAre(0, 1, 2));
  EXPECT_THAT(Sample(3, 0, 0), IsEmpty());
}

}  // namespace
}  // namespace svdserve
