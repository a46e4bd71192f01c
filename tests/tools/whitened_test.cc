#include "tools/compress/whitened.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tools/compress/method.h"

namespace svdserve {
namespace {

constexpr int kRows = 700;

FloatMatrix RandomRows(int rows, int width, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  FloatMatrix x(rows, width);
  for (int64_t i = 0; i < x.size(); ++i) x.data()[i] = normal(random);
  return x;
}

DoubleMatrix RandomMatrix(int rows, int cols, uint32_t seed) {
  const FloatMatrix random = RandomRows(rows, cols, seed);
  DoubleMatrix m(rows, cols);
  for (size_t i = 0; i < m.values.size(); ++i) m.values[i] = random.data()[i];
  return m;
}

// x·w + b, in double precision.
FloatMatrix Apply(const FloatMatrix& x, const DoubleMatrix& w,
                  const std::vector<double>& b) {
  FloatMatrix y(x.rows(), w.cols);
  for (int i = 0; i < x.rows(); ++i) {
    for (int j = 0; j < w.cols; ++j) {
      double sum = b.empty() ? 0 : b[j];
      for (int k = 0; k < w.rows; ++k) sum += x.row(i)[k] * w.row(k)[j];
      y.row(i)[j] = static_cast<float>(sum);
    }
  }
  return y;
}

FloatMatrix Apply(const FloatMatrix& x, const AffineMap& map) {
  if (map.rank() == 0) return Apply(x, map.u, map.bias);
  return Apply(Apply(x, map.u, {}), map.v, map.bias);
}

// Inputs whose directions differ much in energy, and have a mean.
FloatMatrix UnevenRows(int width, uint32_t seed) {
  FloatMatrix x = RandomRows(kRows, width, seed);
  for (int i = 0; i < x.rows(); ++i) {
    for (int j = 0; j < width; ++j) {
      x.row(i)[j] = x.row(i)[j] * 3 / (1 + j % 7 * j) + 0.5F;
    }
  }
  return Apply(x, RandomMatrix(width, width, seed + 1), {});
}

double SumOfSquares(const FloatMatrix& a, const FloatMatrix& b) {
  double sum = 0;
  for (int64_t i = 0; i < a.size(); ++i) {
    const double d = a.data()[i] - b.data()[i];
    sum += d * d;
  }
  return sum;
}

// The slow way.
double MeasuredError(const FloatMatrix& x, const FloatMatrix& t,
                     const AffineMap& map) {
  FloatMatrix mean(t.rows(), t.width());
  for (int j = 0; j < t.width(); ++j) {
    double sum = 0;
    for (int i = 0; i < t.rows(); ++i) sum += t.row(i)[j];
    for (int i = 0; i < t.rows(); ++i) {
      mean.row(i)[j] = static_cast<float>(sum / t.rows());
    }
  }
  return std::sqrt(SumOfSquares(t, Apply(x, map)) / SumOfSquares(t, mean));
}

struct Size {
  int in, out;
};

// Fewer outputs than inputs, and more: solved from either side.
class WhitenedTest : public testing::TestWithParam<Size> {
 protected:
  WhitenedTest()
      : w_(RandomMatrix(GetParam().in, GetParam().out, 3)),
        bias_(GetParam().out, 0.25) {
    KeepLapackSingleThreaded();
  }

  Moments MomentsOf(const FloatMatrix& x, const FloatMatrix& t, int threads) {
    kernels::Team team(threads, "test");
    MomentsSum sum(x.width(), t.width());
    sum.Add(x, t, team);
    return std::move(sum).Finish();
  }
  // The optimum of the sample, unless there is shrinkage.
  WhitenedFit FitOrDie(const Moments& moments,
                       const DoubleMatrix* metric = nullptr, int threads = 1,
                       double shrinkage = 0) {
    kernels::Team team(threads, "test");
    auto fit = FitWhitened(moments, w_, metric, team, shrinkage);
    EXPECT_TRUE(fit.ok()) << fit.status();
    return fit.ok() ? *std::move(fit) : WhitenedFit();
  }

  const DoubleMatrix w_;
  const std::vector<double> bias_;
  kernels::Team team_{1, "test"};
};

TEST_P(WhitenedTest, NoRankHasALargerErrorThanPlainSvd) {
  const FloatMatrix x = UnevenRows(w_.rows, 5);
  const FloatMatrix t = Apply(x, w_, bias_);
  const Moments moments = MomentsOf(x, t, 1);
  const WhitenedFit fit = FitOrDie(moments);
  DenseMatrix dense{.name = "w", .in = w_.rows, .out = w_.cols, .values = {}};
  const DoubleMatrix stored = Transposed(w_);
  dense.values.assign(stored.values.begin(), stored.values.end());
  const auto svd = MakeMethod("svd");
  ASSERT_TRUE(svd.ok());
  for (int rank = 1; rank <= std::min(w_.rows, w_.cols); rank += 5) {
    const auto factors = (*svd)->Factor(dense, rank);
    ASSERT_TRUE(factors.ok()) << factors.status();
    AffineMap plain{DoubleMatrix(w_.rows, rank), DoubleMatrix(rank, w_.cols),
                    bias_};
    plain.u.values.assign(factors->u.begin(), factors->u.end());
    plain.v.values.assign(factors->v.begin(), factors->v.end());
    const AffineMap ours = fit.Truncate(rank);
    const double error = MeasuredError(x, t, ours);
    EXPECT_LE(error, MeasuredError(x, t, plain) + 1e-6) << rank;
    EXPECT_NEAR(RelativeOutputError(moments, ours, team_), error, 1e-4);
  }
}

TEST_P(WhitenedTest, RecoversWhatHasThisRankOnTheInputs) {
  // Inputs in 6 dimensions: the matrix has full rank, its outputs have 6.
  const FloatMatrix x =
      Apply(RandomRows(kRows, 6, 8), RandomMatrix(6, w_.rows, 9),
            std::vector<double>(w_.rows, 1.0));
  const FloatMatrix t = Apply(x, w_, bias_);
  const WhitenedFit fit = FitOrDie(MomentsOf(x, t, 1));
  EXPECT_LT(MeasuredError(x, t, fit.Truncate(6)), 1e-2);
  EXPECT_GT(MeasuredError(x, t, fit.Truncate(5)), 5e-2);
}

TEST_P(WhitenedTest, ErrorIsTheEnergyThatIsCutOff) {
  const FloatMatrix x = UnevenRows(w_.rows, 5);
  const Moments moments = MomentsOf(x, Apply(x, w_, bias_), 1);
  const WhitenedFit fit = FitOrDie(moments);
  double all = 0;
  for (const double energy : fit.energies) all += energy;
  double kept = 0;
  for (int rank = 1; rank <= 8; ++rank) {
    kept += fit.energies[rank - 1];
    EXPECT_NEAR(RelativeOutputError(moments, fit.Truncate(rank), team_),
                std::sqrt(1 - kept / all), 5e-3);
  }
  EXPECT_LT(RelativeOutputError(moments, fit.Truncate(0), team_), 1e-3);
}

TEST_P(WhitenedTest, MakesGoodForDistortedInputs) {
  const FloatMatrix dense = UnevenRows(w_.rows, 5);
  const FloatMatrix t = Apply(dense, w_, bias_);
  const FloatMatrix distorted =
      Apply(dense, RandomMatrix(w_.rows, w_.rows, 4), {});
  const Moments moments = MomentsOf(distorted, t, 1);
  const AffineMap unchanged{w_, {}, bias_};
  EXPECT_GT(RelativeOutputError(moments, unchanged, team_), 0.5);
  EXPECT_LT(RelativeOutputError(moments, FitOrDie(moments).Truncate(0), team_),
            0.2);
}

TEST_P(WhitenedTest, ShrinkageMakesMoreOfAFewRows) {
  // Targets that the inputs cannot explain, and hardly more rows than inputs.
  const auto targets = [&](const FloatMatrix& x, uint32_t seed) {
    FloatMatrix t = Apply(x, w_, bias_);
    const FloatMatrix noise = RandomRows(t.rows(), t.width(), seed);
    for (int64_t i = 0; i < t.size(); ++i) t.data()[i] += 5 * noise.data()[i];
    return t;
  };
  const FloatMatrix few = RandomRows(w_.rows + 10, w_.rows, 7);
  const Moments moments = MomentsOf(few, targets(few, 8), 1);
  const FloatMatrix fresh = RandomRows(kRows, w_.rows, 9);
  const FloatMatrix t = Apply(fresh, w_, bias_);
  EXPECT_LT(
      MeasuredError(fresh, t,
                    FitOrDie(moments, nullptr, 1, kShrinkage).Truncate(0)),
      0.8 * MeasuredError(fresh, t, FitOrDie(moments).Truncate(0)));
}

TEST_P(WhitenedTest, BiasAbsorbsTheMeanError) {
  const FloatMatrix x = UnevenRows(w_.rows, 5);
  const FloatMatrix t = Apply(x, w_, bias_);
  const FloatMatrix y = Apply(x, FitOrDie(MomentsOf(x, t, 1)).Truncate(2));
  for (int j = 0; j < t.width(); ++j) {
    double sum = 0;
    for (int i = 0; i < t.rows(); ++i) sum += y.row(i)[j] - t.row(i)[j];
    EXPECT_NEAR(sum / t.rows(), 0, 1e-4);
  }
}

TEST_P(WhitenedTest, AMetricKeepsWhatItWeighs) {
  const FloatMatrix x = UnevenRows(w_.rows, 5);
  const FloatMatrix t = Apply(x, w_, bias_);
  const Moments moments = MomentsOf(x, t, 1);
  DoubleMatrix metric(w_.cols, w_.cols);
  for (int j = 0; j < w_.cols; ++j) metric.row(j)[j] = j < 2 ? 1e6 : 1;
  const FloatMatrix plain = Apply(x, FitOrDie(moments).Truncate(3));
  const FloatMatrix weighed = Apply(x, FitOrDie(moments, &metric).Truncate(3));
  double before = 0;
  double after = 0;
  for (int i = 0; i < t.rows(); ++i) {
    for (int j = 0; j < 2; ++j) {
      before += std::pow(plain.row(i)[j] - t.row(i)[j], 2);
      after += std::pow(weighed.row(i)[j] - t.row(i)[j], 2);
    }
  }
  EXPECT_LT(after, before / 100);
}

TEST_P(WhitenedTest, ConstantInputsLeaveTheDenseMatrix) {
  FloatMatrix x(50, w_.rows);
  const FloatMatrix t = Apply(x, w_, bias_);
  const AffineMap map = FitOrDie(MomentsOf(x, t, 1)).Truncate(0);
  for (size_t i = 0; i < w_.values.size(); ++i) {
    ASSERT_NEAR(map.u.values[i], w_.values[i], 1e-9);
  }
}

TEST_P(WhitenedTest, HasTheSameBitsOnAnyTeam) {
  const FloatMatrix x = UnevenRows(w_.rows, 5);
  const FloatMatrix t = Apply(x, w_, bias_);
  const AffineMap one = FitOrDie(MomentsOf(x, t, 1), nullptr, 1).Truncate(4);
  const AffineMap three = FitOrDie(MomentsOf(x, t, 3), nullptr, 3).Truncate(4);
  EXPECT_EQ(one.u.values, three.u.values);
  EXPECT_EQ(one.v.values, three.v.values);
  EXPECT_EQ(one.bias, three.bias);
}

TEST_P(WhitenedTest, ByOutputsItIsTheSame) {
  const FloatMatrix x = UnevenRows(w_.rows, 5);
  const FloatMatrix t = Apply(x, w_, bias_);
  const Moments moments = MomentsOf(x, t, 1);
  MomentsSum outputs(t.width(), 0);
  outputs.Add(t, team_);
  const auto fit =
      FitOutputs(w_, moments.mean_x, std::move(outputs).Finish(), team_);
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_NEAR(
      RelativeOutputError(moments, fit->Truncate(4), team_),
      RelativeOutputError(moments, FitOrDie(moments).Truncate(4), team_), 5e-3);
}

INSTANTIATE_TEST_SUITE_P(Sizes, WhitenedTest,
                         testing::Values(Size{48, 20}, Size{20, 48},
                                         Size{32, 32}),
                         [](const auto& info) {
                           return std::to_string(info.param.in) + "x" +
                                  std::to_string(info.param.out);
                         });

}  // namespace
}  // namespace svdserve
