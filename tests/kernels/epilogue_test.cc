#include "kernels/epilogue.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/kernel_testing.h"

namespace svdserve::kernels {
namespace {

// Activations of every float that matters, in one row.
std::vector<float> Sweep() {
  std::vector<float> x;
  for (float v = -20.0f; v <= 20.0f; v += 1.0f / 512) x.push_back(v);
  for (float v = 1e-30f; v < 1e30f; v *= 3) {
    x.push_back(v);
    x.push_back(-v);
  }
  return x;
}

std::vector<float> Activated(Activation activation,
                             const std::vector<float>& x) {
  std::vector<float> y(x.size());
  const int columns = static_cast<int>(x.size());
  EXPECT_EQ(Epilogue({.rows = 1,
                      .columns = columns,
                      .c = x.data(),
                      .c_stride = columns,
                      .activation = activation,
                      .y = y.data(),
                      .y_stride = columns}),
            KernelStatus::kOk);
  return y;
}

// Value by value to two ulps of the larger of argument and result, and the
// tolerance rule over all that are not huge.
void ExpectAsExact(Activation activation, double (*exact)(double),
                   float (*plain)(float)) {
  const std::vector<float> x = Sweep();
  const std::vector<float> y = Activated(activation, x);
  std::vector<float> near_y, plain_y;
  std::vector<double> exact_y;
  for (size_t i = 0; i < x.size(); ++i) {
    const double want = exact(x[i]);
    const double ulp =
        std::ldexp(std::max(std::abs(want), std::abs(double{x[i]})), -23);
    EXPECT_LE(std::abs(y[i] - want), 2 * ulp) << "at " << x[i];
    if (std::abs(x[i]) > 20) continue;
    near_y.push_back(y[i]);
    plain_y.push_back(plain(x[i]));
    exact_y.push_back(want);
  }
  ExpectAsExactAsPlain(near_y, plain_y, exact_y);
}

TEST(Epilogue, GeluIsExact) {
  ExpectAsExact(
      Activation::kGelu,
      [](double x) { return 0.5 * x * std::erfc(-x * std::sqrt(0.5)); },
      [](float x) { return 0.5f * x * (1 + std::erf(x * 0.70710678f)); });
}

TEST(Epilogue, GeluTanhIsExact) {
  ExpectAsExact(
      Activation::kGeluTanh,
      [](double x) {
        const double u = std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
        return x / (1 + std::exp(-2 * u));
      },
      [](float x) {
        const float u = 0.79788456f * (x + 0.044715f * x * x * x);
        return 0.5f * x * (1 + std::tanh(u));
      });
}

TEST(Epilogue, TanhIsExact) {
  ExpectAsExact(
      Activation::kTanh, [](double x) { return std::tanh(x); },
      [](float x) { return std::tanh(x); });
}

TEST(Epilogue, ReluIsExact) {
  const std::vector<float> x = Sweep();
  const std::vector<float> y = Activated(Activation::kRelu, x);
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(y[i], x[i] > 0 ? x[i] : 0);
}

TEST(Epilogue, NanStaysNanAndInfinityGoesToTheLimit) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {NAN, -NAN, kInf, -kInf};
  for (Activation activation :
       {Activation::kGelu, Activation::kGeluTanh, Activation::kRelu}) {
    const std::vector<float> y = Activated(activation, x);
    EXPECT_TRUE(std::isnan(y[0]) && std::isnan(y[1]));
    EXPECT_EQ(y[2], kInf);
    EXPECT_NEAR(y[3], 0.0f, 1e-30);
  }
  const std::vector<float> y = Activated(Activation::kTanh, x);
  EXPECT_TRUE(std::isnan(y[0]) && std::isnan(y[1]));
  EXPECT_EQ(y[2], 1.0f);
  EXPECT_EQ(y[3], -1.0f);
}

TEST(Epilogue, AddsBiasThenActivatesThenAccumulatesIntoStridedRows) {
  const std::vector<float> c = {1, -2, 3, 9, -4, 5, -6, 9};  // stride 4
  const std::vector<float> bias = {1, 1, 1};
  std::vector<float> y = {10, 20, 30, 7, 7, 40, 50, 60, 7, 7};  // stride 5
  ASSERT_EQ(Epilogue({.rows = 2,
                      .columns = 3,
                      .c = c.data(),
                      .c_stride = 4,
                      .bias = bias.data(),
                      .activation = Activation::kRelu,
                      .accumulate = true,
                      .y = y.data(),
                      .y_stride = 5}),
            KernelStatus::kOk);
  EXPECT_EQ(y, (std::vector<float>{12, 20, 34, 7, 7, 40, 56, 60, 7, 7}));
}

TEST(Epilogue, RowsThatOverlapAreRefused) {
  std::vector<float> c(32), y(32);
  EXPECT_EQ(Epilogue({.rows = 2,
                      .columns = 16,
                      .c = c.data(),
                      .c_stride = 16,
                      .y = y.data(),
                      .y_stride = 8}),
            KernelStatus::kInvalidArgument);
}

}  // namespace
}  // namespace svdserve::kernels
