#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/compress/method.h"

namespace svdserve {
namespace {

using ::testing::HasSubstr;

std::vector<double> RandomValues(int count, int seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<double> values(count);
  for (double& value : values) value = normal(random);
  return values;
}

// columns [count, size]: made orthonormal, by Gram and Schmidt, twice.
std::vector<double> Orthonormal(int count, int size, int seed) {
  std::vector<double> columns = RandomValues(count * size, seed);
  for (int pass = 0; pass < 2; ++pass) {
    for (int c = 0; c < count; ++c) {
      double* column = &columns[c * size];
      for (int other = 0; other < c; ++other) {
        const double* unit = &columns[other * size];
        double dot = 0;
        for (int i = 0; i < size; ++i) dot += column[i] * unit[i];
        for (int i = 0; i < size; ++i) column[i] -= dot * unit[i];
      }
      double norm = 0;
      for (int i = 0; i < size; ++i) norm += column[i] * column[i];
      for (int i = 0; i < size; ++i) column[i] /= std::sqrt(norm);
    }
  }
  return columns;
}

// W [in, out] with exactly these singular values, stored as [out, in].
DenseMatrix WithSingularValues(int in, int out,
                               const std::vector<double>& singular) {
  const int count = static_cast<int>(singular.size());
  const std::vector<double> left = Orthonormal(count, in, 1);
  const std::vector<double> right = Orthonormal(count, out, 2);
  DenseMatrix matrix{.name = "w", .in = in, .out = out, .values = {}};
  for (int j = 0; j < out; ++j) {
    for (int i = 0; i < in; ++i) {
      double sum = 0;
      for (int r = 0; r < count; ++r) {
        sum += left[r * in + i] * singular[r] * right[r * out + j];
      }
      matrix.values.push_back(static_cast<float>(sum));
    }
  }
  return matrix;
}

// |W - U·V| / |W|, the slow way.
double MeasuredError(const DenseMatrix& matrix, const Factors& f) {
  double error = 0;
  double all = 0;
  for (int i = 0; i < matrix.in; ++i) {
    for (int j = 0; j < matrix.out; ++j) {
      double product = 0;
      for (int r = 0; r < f.rank; ++r) {
        product += double{f.u[i * f.rank + r]} * f.v[r * matrix.out + j];
      }
      const double value = matrix.values[j * matrix.in + i];
      error += (value - product) * (value - product);
      all += value * value;
    }
  }
  return std::sqrt(error / all);
}

double Norm(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += double{value} * value;
  return std::sqrt(sum);
}

Factors FactorOrDie(const DenseMatrix& matrix, int rank) {
  auto method = MakeMethod("svd");
  EXPECT_TRUE(method.ok()) << method.status();
  absl::StatusOr<Factors> factors = (*method)->Factor(matrix, rank);
  EXPECT_TRUE(factors.ok()) << factors.status();
  return *std::move(factors);
}

TEST(SvdMethodTest, RecoversAMatrixOfThatRank) {
  const DenseMatrix matrix = WithSingularValues(40, 24, {9, 5, 3, 1});
  const Factors factors = FactorOrDie(matrix, 4);
  EXPECT_EQ(factors.rank, 4);
  EXPECT_EQ(factors.u.size(), 40 * 4);
  EXPECT_EQ(factors.v.size(), 4 * 24);
  EXPECT_LT(factors.relative_error, 1e-6);  // W itself is rounded to float
  EXPECT_LT(MeasuredError(matrix, factors), 1e-6);
}

TEST(SvdMethodTest, ErrorIsTheTailOfTheSingularValues) {
  const std::vector<double> singular = {8, 6, 4, 3, 2, 1, 0.5};
  for (const auto& [in, out] : {std::pair(24, 40), std::pair(40, 24)}) {
    const DenseMatrix matrix = WithSingularValues(in, out, singular);
    for (int rank = 1; rank <= 7; ++rank) {
      double tail = 0;
      double all = 0;
      for (int i = 0; i < 7; ++i) {
        all += singular[i] * singular[i];
        if (i >= rank) tail += singular[i] * singular[i];
      }
      const Factors factors = FactorOrDie(matrix, rank);
      EXPECT_NEAR(factors.relative_error, std::sqrt(tail / all), 1e-6);
      EXPECT_NEAR(MeasuredError(matrix, factors), factors.relative_error, 1e-6);
    }
  }
}

TEST(SvdMethodTest, FactorsAreBalanced) {
  const Factors factors =
      FactorOrDie(WithSingularValues(40, 24, {1000, 1, 0.001}), 3);
  EXPECT_NEAR(Norm(factors.u) / Norm(factors.v), 1, 1e-6);
}

TEST(SvdMethodTest, ZeroMatrixHasNoError) {
  const DenseMatrix zero{
      .name = "w", .in = 16, .out = 8, .values = std::vector<float>(128)};
  const Factors factors = FactorOrDie(zero, 4);
  EXPECT_EQ(factors.relative_error, 0);
  EXPECT_EQ(Norm(factors.u), 0);
  EXPECT_EQ(Norm(factors.v), 0);
}

TEST(SvdMethodTest, UnknownMethodNamesTheKnownOnes) {
  const auto method = MakeMethod("asvd");
  EXPECT_EQ(method.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(method.status().message(), HasSubstr("known: svd"));
}

}  // namespace
}  // namespace svdserve
