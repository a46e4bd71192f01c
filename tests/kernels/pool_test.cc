#include "kernels/pool.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/normalize.h"
#include "tests/kernels/kernel_testing.h"

namespace svdserve::kernels {
namespace {

constexpr int kWidth = 75;
constexpr int kStride = 80;

std::vector<float> RunPool(PoolKind kind, DataType type, Storage* x, int rows) {
  std::vector<float> y(kWidth, NAN);
  EXPECT_EQ(Pool({.kind = kind,
                  .rows = rows,
                  .width = kWidth,
                  .type = type,
                  .x = x->data(),
                  .x_stride = kStride,
                  .y = y.data()}),
            KernelStatus::kOk);
  return y;
}

class PoolTest : public testing::TestWithParam<DataType> {};

TEST_P(PoolTest, MeanIsAsExactAsAPlainLoop) {
  for (int rows : {1, 2, 17, 512}) {
    Storage x(GetParam(), RandomNormal(rows * kStride, 1));
    std::vector<float> plain;
    std::vector<double> exact;
    for (int j = 0; j < kWidth; ++j) {
      float sum = 0;
      double exact_sum = 0;
      for (int i = 0; i < rows; ++i) {
        sum += x[i * kStride + j];
        exact_sum += x[i * kStride + j];
      }
      plain.push_back(sum / rows);
      exact.push_back(exact_sum / rows);
    }
    ExpectAsExactAsPlain(RunPool(PoolKind::kMean, GetParam(), &x, rows), plain,
                         exact);
  }
}

TEST_P(PoolTest, MaxAndClsAreExact) {
  constexpr int kRows = 17;
  Storage x(GetParam(), RandomNormal(kRows * kStride, 1));
  const auto maximum = RunPool(PoolKind::kMax, GetParam(), &x, kRows);
  const auto cls = RunPool(PoolKind::kCls, GetParam(), &x, kRows);
  for (int j = 0; j < kWidth; ++j) {
    float expected = x[j];
    EXPECT_EQ(cls[j], expected);
    for (int i = 1; i < kRows; ++i) {
      expected = std::max(expected, x[i * kStride + j]);
    }
    EXPECT_EQ(maximum[j], expected);
  }
}

TEST_P(PoolTest, NanReachesItsColumnOnly) {
  for (PoolKind kind : {PoolKind::kMean, PoolKind::kMax}) {
    for (int row : {0, 2, 4}) {
      Storage x(GetParam(), RandomNormal(5 * kStride, 1));
      x.Set(row * kStride + 3, NAN);
      const std::vector<float> y = RunPool(kind, GetParam(), &x, 5);
      for (int j = 0; j < kWidth; ++j) EXPECT_EQ(std::isnan(y[j]), j == 3);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, PoolTest,
                         testing::Values(DataType::kF32, DataType::kBF16));

TEST(Normalize, GivesUnitLengthAtAnyScale) {
  for (float scale : {1e-8f, 1.0f, 1e30f}) {
    std::vector<float> x = RandomNormal(100, 1, scale);
    const float ratio = x[1] / x[0];
    Normalize(x.data(), 100);
    double squares = 0;
    for (float v : x) squares += double{v} * v;
    EXPECT_NEAR(squares, 1.0, 1e-6);
    EXPECT_NEAR(x[1] / x[0], ratio, 1e-6 * std::abs(ratio));
  }
}

TEST(Normalize, ZeroStaysZero) {
  std::vector<float> x(8, 0.0f);
  Normalize(x.data(), 8);
  EXPECT_EQ(x, std::vector<float>(8, 0.0f));
}

TEST(AllFinite, FindsNanAndInfinityAnywhere) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (float bad : {static_cast<float>(NAN), kInf, -kInf}) {
    for (int at : {0, 7, 18}) {
      std::vector<float> x(19, std::numeric_limits<float>::max());
      EXPECT_TRUE(AllFinite(x.data(), 19));
      x[at] = bad;
      EXPECT_FALSE(AllFinite(x.data(), 19));
    }
  }
}

}  // namespace
}  // namespace svdserve::kernels
