#include "tools/compress/head_reduction.h"

#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace svdserve {
namespace {

constexpr int kHidden = 24;
constexpr int kHeads = 2;
constexpr int kHeadDim = 8;
constexpr int kWidth = kHeads * kHeadDim;
constexpr int kRows = 400;

DoubleMatrix RandomMatrix(int rows, int cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  DoubleMatrix m(rows, cols);
  for (double& value : m.values) value = normal(random);
  return m;
}

AffineMap RandomMap(uint32_t seed) {
  return {RandomMatrix(kHidden, kWidth, seed),
          {},
          RandomMatrix(1, kWidth, seed + 50).values};
}

// Columns of each head become `rank` independent ones.
AffineMap OfRank(AffineMap map, int rank) {
  for (int h = 0; h < kHeads; ++h) {
    for (int c = rank; c < kHeadDim; ++c) {
      const int to = h * kHeadDim + c;
      const int from = h * kHeadDim + c % rank;
      for (int i = 0; i < kHidden; ++i) {
        map.u.row(i)[to] = map.u.row(i)[from] * c;
      }
      map.bias[to] = map.bias[from] * c;
    }
  }
  return map;
}

// x·u + bias.
DoubleMatrix Apply(const DoubleMatrix& x, const AffineMap& map) {
  kernels::Team team(1, "test");
  DoubleMatrix y = Multiply(x, Transpose::kNo, map.u, Transpose::kNo, team);
  for (int i = 0; i < y.rows; ++i) {
    for (int j = 0; j < y.cols; ++j) y.row(i)[j] += map.bias[j];
  }
  return y;
}

// Scores of the first 20 rows, each row less its mean: what a softmax sees.
std::vector<double> Scores(const DoubleMatrix& x, const AffineMap& query,
                           const AffineMap& key) {
  constexpr int kTokens = 20;
  const DoubleMatrix q = Apply(x, query);
  const DoubleMatrix k = Apply(x, key);
  const int width = q.cols / kHeads;
  std::vector<double> scores;
  for (int h = 0; h < kHeads; ++h) {
    for (int i = 0; i < kTokens; ++i) {
      double mean = 0;
      for (int j = 0; j < kTokens; ++j) {
        double score = 0;
        for (int d = h * width; d < (h + 1) * width; ++d) {
          score += q.row(i)[d] * k.row(j)[d];
        }
        scores.push_back(score);
        mean += score / kTokens;
      }
      for (int j = 0; j < kTokens; ++j) scores[scores.size() - 1 - j] -= mean;
    }
  }
  return scores;
}

double RelativeDifference(const std::vector<double>& a,
                          const std::vector<double>& b) {
  double difference = 0;
  double all = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    all += a[i] * a[i];
  }
  return std::sqrt(difference / all);
}

class HeadReductionTest : public testing::Test {
 protected:
  HeadReductionTest() : x_(RandomMatrix(kRows, kHidden, 1)) {
    KeepLapackSingleThreaded();
    for (int i = 0; i < kRows; ++i) {
      for (int j = 0; j < kHidden; ++j) {
        x_.row(i)[j] = x_.row(i)[j] / (1 + j) + 0.3;
      }
    }
  }
  // Moments of `x` with `t`.
  Moments MomentsOf(const DoubleMatrix& x, const DoubleMatrix& t) {
    FloatMatrix inputs(x.rows, x.cols);
    FloatMatrix targets(t.rows, t.cols);
    for (int64_t i = 0; i < inputs.size(); ++i) {
      inputs.data()[i] = static_cast<float>(x.values[i]);
    }
    for (int64_t i = 0; i < targets.size(); ++i) {
      targets.data()[i] = static_cast<float>(t.values[i]);
    }
    MomentsSum sum(x.cols, t.cols);
    sum.Add(inputs, targets, team_);
    return std::move(sum).Finish();
  }
  // The difference of scores with heads of this width, and what was foretold.
  std::pair<double, double> ReduceScores(const AffineMap& query,
                                         const AffineMap& key, int width) {
    auto reduction =
        QueryKeyReduction::Create(MomentsOf(x_, x_), query, key, kHeads, team_);
    EXPECT_TRUE(reduction.ok()) << reduction.status();
    AffineMap narrow_query;
    AffineMap narrow_key;
    reduction->Reduce(width, &narrow_query, &narrow_key);
    EXPECT_EQ(narrow_query.out(), kHeads * width);
    EXPECT_EQ(narrow_key.out(), kHeads * width);
    return {RelativeDifference(Scores(x_, query, key),
                               Scores(x_, narrow_query, narrow_key)),
            reduction->LostByWidth()[width]};
  }
  // The same for value and output; contexts are values, as if every token
  // looked at itself alone.
  std::pair<double, double> ReduceOutputs(const AffineMap& value,
                                          const DoubleMatrix& output,
                                          int width) {
    const DoubleMatrix context = Apply(x_, value);
    const DoubleMatrix t =
        Multiply(context, Transpose::kNo, output, Transpose::kNo, team_);
    const Moments moments = MomentsOf(context, t);
    auto reduction =
        ValueOutputReduction::Create(moments, output, kHeads, team_);
    EXPECT_TRUE(reduction.ok()) << reduction.status();
    AffineMap narrow = value;
    AffineMap made;
    const absl::Status status = reduction->Reduce(width, team_, &narrow, &made);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(narrow.out(), kHeads * width);
    return {RelativeDifference(t.values, Apply(Apply(x_, narrow), made).values),
            reduction->LostByWidth()[width]};
  }

  DoubleMatrix x_;  // [rows, hidden]
  kernels::Team team_{1, "test"};
};

TEST_F(HeadReductionTest, ScoresOfFullWidthAreTheSame) {
  const auto [difference, lost] =
      ReduceScores(RandomMap(2), RandomMap(3), kHeadDim);
  EXPECT_LT(difference, 1e-6);
  EXPECT_EQ(lost, 0);
}

TEST_F(HeadReductionTest, ScoresOfALowerRankNeedNoMore) {
  const auto [difference, lost] =
      ReduceScores(OfRank(RandomMap(2), 3), RandomMap(3), 3);
  EXPECT_LT(difference, 1e-3);
  EXPECT_LT(lost, 1e-6);
}

TEST_F(HeadReductionTest, ScoresLoseWhatWasForetold) {
  double last = 0;
  for (int width = kHeadDim - 1; width >= 1; --width) {
    const auto [difference, lost] =
        ReduceScores(RandomMap(2), RandomMap(3), width);
    EXPECT_GE(lost, last);
    // Foretold of all pairs of tokens; measured on some.
    EXPECT_NEAR(difference, std::sqrt(lost), 0.1 + 0.5 * std::sqrt(lost));
    last = lost;
  }
  EXPECT_GT(last, 0.01);
}

TEST_F(HeadReductionTest, OutputsOfFullWidthAreTheSame) {
  const auto [difference, lost] =
      ReduceOutputs(RandomMap(4), RandomMatrix(kWidth, kHidden, 5), kHeadDim);
  EXPECT_LT(difference, 1e-4);
  EXPECT_EQ(lost, 0);
}

TEST_F(HeadReductionTest, OutputsOfALowerRankNeedNoMore) {
  const auto [difference, lost] = ReduceOutputs(
      OfRank(RandomMap(4), 3), RandomMatrix(kWidth, kHidden, 5), 3);
  EXPECT_LT(difference, 1e-2);
  EXPECT_LT(lost, 1e-6);
}

TEST_F(HeadReductionTest, OutputsLoseNoMoreThanTheHeadsAlone) {
  // The output matrix is fitted to all heads at once, so it does better than
  // the heads' own losses say.
  for (int width = 1; width < kHeadDim; ++width) {
    const auto [difference, lost] =
        ReduceOutputs(RandomMap(4), RandomMatrix(kWidth, kHidden, 5), width);
    EXPECT_GT(lost, 0);
    EXPECT_LT(difference, 1);
  }
}

}  // namespace
}  // namespace svdserve
