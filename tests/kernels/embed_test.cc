#include "kernels/embed.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/kernel_testing.h"

namespace svdserve::kernels {
namespace {

constexpr int kVocab = 50;
constexpr int kPositions = 20;
constexpr int kTypes = 2;
constexpr int kWidth = 72;

class EmbedTest : public testing::TestWithParam<DataType> {
 protected:
  EmbedTest()
      : type_(GetParam()),
        word_(type_, RandomNormal(kVocab * kWidth, 1)),
        position_(type_, RandomNormal(kPositions * kWidth, 2)),
        token_type_(type_, RandomNormal(kTypes * kWidth, 3)),
        gamma_(RandomNormal(kWidth, 4)),
        beta_(RandomNormal(kWidth, 5)) {}

  EmbedParams Params(Storage* y) {
    return {.tokens = static_cast<int>(ids_.size()),
            .width = kWidth,
            .first_position = 3,
            .ids = ids_.data(),
            .types = types_.data(),
            .table_type = type_,
            .word = word_.data(),
            .position = position_.data(),
            .type = token_type_.data(),
            .vocab = kVocab,
            .max_positions = kPositions,
            .type_vocab = kTypes,
            .gamma = gamma_.data(),
            .beta = beta_.data(),
            .eps = 1e-12f,
            .y_type = type_,
            .y = y->data(),
            .y_stride = kWidth};
  }

  template <typename Real>
  std::vector<Real> Reference() const {
    std::vector<Real> y;
    for (int i = 0; i < ids_.size(); ++i) {
      std::vector<Real> z(kWidth);
      Real sum = 0, squares = 0;
      for (int j = 0; j < kWidth; ++j) {
        z[j] = word_[ids_[i] * kWidth + j];
        z[j] += token_type_[types_[i] * kWidth + j];
        z[j] += position_[(3 + i) * kWidth + j];
        sum += z[j];
      }
      const Real mean = sum / kWidth;
      for (Real v : z) squares += (v - mean) * (v - mean);
      for (int j = 0; j < kWidth; ++j) {
        Real v = (z[j] - mean) / std::sqrt(squares / kWidth + Real{1e-12f});
        v = v * gamma_[j] + beta_[j];
        if (std::is_same_v<Real, float>) v = Rounded(type_, v);
        y.push_back(v);
      }
    }
    return y;
  }

  DataType type_;
  std::vector<int32_t> ids_ = {0, 49, 7, 7, 13};
  std::vector<uint8_t> types_ = {0, 0, 0, 1, 1};
  Storage word_, position_, token_type_;
  std::vector<float> gamma_, beta_;
};

TEST_P(EmbedTest, IsAsExactAsPlainLoops) {
  Storage y(type_, ids_.size() * kWidth, NAN);
  ASSERT_EQ(Embed(Params(&y)), KernelStatus::kOk);
  ExpectAsExactAsPlain(y.ToFloats(), Reference<float>(), Reference<double>(),
                       type_);
}

TEST_P(EmbedTest, WhatIsOutsideATableIsRefused) {
  Storage y(type_, ids_.size() * kWidth);
  const EmbedParams good = Params(&y);
  EmbedParams params = good;
  params.first_position = kPositions - 4;
  EXPECT_EQ(Embed(params), KernelStatus::kInvalidArgument);
  for (int32_t id : {-1, kVocab}) {
    ids_[2] = id;
    EXPECT_EQ(Embed(good), KernelStatus::kInvalidArgument);
  }
  ids_[2] = 0;
  types_[4] = kTypes;
  EXPECT_EQ(Embed(good), KernelStatus::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Types, EmbedTest,
                         testing::Values(DataType::kF32, DataType::kBF16));

}  // namespace
}  // namespace svdserve::kernels
