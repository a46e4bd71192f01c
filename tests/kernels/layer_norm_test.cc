#include "kernels/layer_norm.h"

#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/kernel_testing.h"

namespace svdserve::kernels {
namespace {

// (x and y, residual, width)
class LayerNormTest
    : public testing::TestWithParam<std::tuple<DataType, DataType, int>> {
 protected:
  static constexpr int kRows = 100;

  LayerNormTest()
      : type_(std::get<0>(GetParam())),
        residual_type_(std::get<1>(GetParam())),
        width_(std::get<2>(GetParam())),
        // A mean far from zero tells one-pass variances from two-pass ones.
        x_(type_, Shifted(RandomNormal(kRows * width_, 1))),
        residual_(residual_type_, RandomNormal(kRows * width_, 2)),
        gamma_(RandomNormal(width_, 3)),
        beta_(RandomNormal(width_, 4)) {}

  static std::vector<float> Shifted(std::vector<float> values) {
    for (float& value : values) value += 30.0f;
    return values;
  }

  LayerNormParams Params(Storage* y, bool residual) {
    return {.rows = kRows,
            .width = width_,
            .x_type = type_,
            .residual_type = residual_type_,
            .y_type = type_,
            .x = x_.data(),
            .residual = residual ? residual_.data() : nullptr,
            .y = y->data(),
            .x_stride = width_,
            .residual_stride = width_,
            .y_stride = width_,
            .gamma = gamma_.data(),
            .beta = beta_.data(),
            .eps = 1e-5f};
  }

  std::vector<float> Run(bool residual) {
    Storage y(type_, kRows * width_, NAN);
    EXPECT_EQ(ResidualLayerNorm(Params(&y, residual)), KernelStatus::kOk);
    return y.ToFloats();
  }

  template <typename Real>
  std::vector<Real> Reference(bool residual) const {
    std::vector<Real> y;
    for (int i = 0; i < kRows; ++i) {
      std::vector<Real> z(width_);
      Real sum = 0, squares = 0;
      for (int j = 0; j < width_; ++j) {
        z[j] = x_[i * width_ + j];
        if (residual) z[j] += residual_[i * width_ + j];
        sum += z[j];
      }
      const Real mean = sum / width_;
      for (Real v : z) squares += (v - mean) * (v - mean);
      const Real scale = 1 / std::sqrt(squares / width_ + Real{1e-5f});
      for (int j = 0; j < width_; ++j) {
        Real v = (z[j] - mean) * scale * gamma_[j] + beta_[j];
        if (std::is_same_v<Real, float>) v = Rounded(type_, v);
        y.push_back(v);
      }
    }
    return y;
  }

  DataType type_, residual_type_;
  int width_;
  Storage x_, residual_;
  std::vector<float> gamma_, beta_;
};

TEST_P(LayerNormTest, IsAsExactAsPlainLoops) {
  for (bool residual : {false, true}) {
    ExpectAsExactAsPlain(Run(residual), Reference<float>(residual),
                         Reference<double>(residual), type_);
  }
}

TEST_P(LayerNormTest, WorksInPlace) {
  const std::vector<float> expected = Run(true);
  if (residual_type_ == type_) {
    Storage both(type_, residual_.ToFloats());
    LayerNormParams params = Params(&both, true);
    params.residual = both.data();
    ASSERT_EQ(ResidualLayerNorm(params), KernelStatus::kOk);
    EXPECT_TRUE(SameBits(both.ToFloats(), expected));
  }
  ASSERT_EQ(ResidualLayerNorm(Params(&x_, true)), KernelStatus::kOk);
  EXPECT_TRUE(SameBits(x_.ToFloats(), expected));
}

TEST_P(LayerNormTest, ARowHasTheSameBitsAlone) {
  const std::vector<float> all = Run(true);
  for (int i = 0; i < kRows; ++i) {
    Storage y(type_, width_);
    LayerNormParams params = Params(&y, true);
    params.rows = 1;
    params.x = x_.at(i * width_);
    params.residual = residual_.at(i * width_);
    ASSERT_EQ(ResidualLayerNorm(params), KernelStatus::kOk);
    EXPECT_TRUE(SameBits(y.ToFloats(), {all.begin() + i * width_,
                                        all.begin() + (i + 1) * width_}));
  }
}

std::string CaseName(
    const testing::TestParamInfo<LayerNormTest::ParamType>& info) {
  const auto& [type, residual, width] = info.param;
  const auto name = [](DataType t) {
    return std::string(t == DataType::kF32 ? "f32" : "bf16");
  };
  return name(type) + "_" + name(residual) + "_" + std::to_string(width);
}

INSTANTIATE_TEST_SUITE_P(
    Widths, LayerNormTest,
    testing::Combine(testing::Values(DataType::kF32, DataType::kBF16),
                     testing::Values(DataType::kF32, DataType::kBF16),
                     testing::Values(1, 5, 32, 100, 384, 768)),
    CaseName);

TEST(LayerNorm, ValuesOfAnyScaleGiveUnitRows) {
  for (float scale : {1e-3f, 1.0f, 1e6f}) {
    Storage x(DataType::kF32, RandomNormal(384, 1, scale));
    const std::vector<float> one(384, 1.0f), zero(384, 0.0f);
    ASSERT_EQ(ResidualLayerNorm({.rows = 1,
                                 .width = 384,
                                 .x = x.data(),
                                 .y = x.data(),
                                 .x_stride = 384,
                                 .y_stride = 384,
                                 .gamma = one.data(),
                                 .beta = zero.data()}),
              KernelStatus::kOk);
    double squares = 0;
    for (float v : x.ToFloats()) squares += double{v} * v;
    EXPECT_NEAR(squares / 384, 1.0, 1e-5);
  }
}

TEST(LayerNorm, NullsAreRefused) {
  EXPECT_EQ(ResidualLayerNorm({.rows = 1, .width = 16}),
            KernelStatus::kInvalidArgument);
}

}  // namespace
}  // namespace svdserve::kernels
