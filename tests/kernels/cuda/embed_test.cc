#include "kernels/cuda/embed.h"

#include <cstdint>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/cuda/device_buffer.h"
#include "tests/reference/ops.h"

namespace svdserve::cuda {
namespace {

constexpr int kVocab = 100;
constexpr int kPositions = 600;
constexpr int kTypes = 2;

// Tables of random values, and batches of random ids.
class EmbedTest : public testing::TestWithParam<std::tuple<Type, int>> {
 protected:
  EmbedTest()
      : type_(std::get<0>(GetParam())),
        hidden_(std::get<1>(GetParam())),
        word_(Rounded(type_, random_.Normal(kVocab * hidden_))),
        position_(Rounded(type_, random_.Normal(kPositions * hidden_))),
        token_type_(Rounded(type_, random_.Normal(kTypes * hidden_))),
        gamma_(random_.Normal(hidden_)),
        beta_(random_.Normal(hidden_)) {}

  // Sequences of these lengths, then rows that belong to none.
  void Batch(const std::vector<int>& lengths, int padding) {
    starts_ = {0};
    places_.clear();
    for (int length : lengths) {
      starts_.push_back(starts_.back() + length);
      for (int i = 0; i < length; ++i) places_.push_back(i);
    }
    rows_ = starts_.back() + padding;
    ids_.assign(rows_, INT32_MAX);  // of padding: never looked up
    types_.assign(rows_, 255);
    for (int row = 0; row < starts_.back(); ++row) {
      ids_[row] = random_.Integer(0, kVocab - 1);
      types_[row] = random_.Integer(0, kTypes - 1);
    }
  }

  std::vector<float> Run() const {
    const DeviceBuffer<int32_t> ids(ids_);
    const DeviceBuffer<uint8_t> types(types_);
    const DeviceBuffer<int32_t> starts(starts_);
    const DeviceBuffer<uint16_t> word(Encode(type_, word_));
    const DeviceBuffer<uint16_t> position(Encode(type_, position_));
    const DeviceBuffer<uint16_t> token_type(Encode(type_, token_type_));
    const DeviceBuffer<float> gamma(gamma_);
    const DeviceBuffer<float> beta(beta_);
    DeviceBuffer<uint16_t> x(size_t{1} * rows_ * hidden_);
    EmbedParams params;
    params.type = type_;
    params.rows = rows_;
    params.sequences = static_cast<int>(starts_.size()) - 1;
    params.hidden = hidden_;
    params.ids = ids.data();
    params.type_ids = types.data();
    params.cu_seqlens = starts.data();
    params.word = word.data();
    params.position = position.data();
    params.token_type = token_type.data();
    params.gamma = gamma.data();
    params.beta = beta.data();
    params.x = x.data();
    EXPECT_TRUE(Ran(Embed(params, nullptr)));
    return Decode(type_, x.ToHost());
  }

  // Zeros for padding.
  std::vector<double> Exact() const {
    using reference::ExactF64;
    reference::Matrix<ExactF64> sum(starts_.back(), hidden_);
    for (int row = 0; row < sum.rows; ++row) {
      for (int j = 0; j < hidden_; ++j) {
        sum.row(row)[j] = double{word_[ids_[row] * hidden_ + j]} +
                          token_type_[types_[row] * hidden_ + j] +
                          position_[places_[row] * hidden_ + j];
      }
    }
    std::vector<double> exact =
        reference::LayerNorm<ExactF64>(sum, {gamma_.begin(), gamma_.end()},
                                       {beta_.begin(), beta_.end()}, 1e-12)
            .values;
    exact.resize(size_t{1} * rows_ * hidden_);
    return exact;
  }

  // What one rounding adds at most: few values need not come near the mean.
  double Tolerance() const { return type_ == Type::kBF16 ? 0x1p-8 : 0x1p-11; }

  Random random_;
  Type type_;
  int hidden_;
  std::vector<float> word_, position_, token_type_, gamma_, beta_;
  int rows_ = 0;
  std::vector<int32_t> ids_, starts_, places_;
  std::vector<uint8_t> types_;
};

TEST_P(EmbedTest, MatchesTheReference) {
  Batch({1, 17, 64, 3}, 0);
  EXPECT_LT(RelativeError(Run(), Exact()), Tolerance());
}

TEST_P(EmbedTest, PositionsRestartAfterEmptySequences) {
  Batch({0, 0, 5, 0, 2, 0, 0, 0, 9, 0}, 0);
  EXPECT_LT(RelativeError(Run(), Exact()), Tolerance());
}

TEST_P(EmbedTest, PaddingBecomesZeros) {
  Batch({6, 0, 0, 0}, 13);
  const std::vector<float> x = Run();
  EXPECT_LT(RelativeError(x, Exact()), Tolerance());
  for (int i = 6 * hidden_; i < x.size(); ++i) ASSERT_EQ(x[i], 0);
}

TEST_P(EmbedTest, ABatchOfNothingIsAllPadding) {
  Batch({}, 3);
  EXPECT_EQ(Run(), std::vector<float>(3 * hidden_));
}

TEST_P(EmbedTest, LongBatchesMatchTheReference) {
  if (!kLarge) GTEST_SKIP() << "large shapes run on a GPU";
  std::vector<int> lengths;
  for (int i = 0; i < 60; ++i) lengths.push_back(random_.Integer(0, 512));
  Batch(lengths, 100);
  EXPECT_LT(RelativeError(Run(), Exact()), Tolerance());
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, EmbedTest,
    testing::Combine(testing::Values(Type::kBF16, Type::kF16),
                     testing::Values(8, 72, 384, 768, 1024)));

TEST(EmbedLaunchTest, RefusesWhatMakesNoSense) {
  EmbedParams params;
  params.hidden = 768;
  EXPECT_EQ(Embed(params, nullptr), cudaErrorInvalidValue);  // no pointers
  const DeviceBuffer<float> any(1);
  params.ids = params.cu_seqlens = reinterpret_cast<const int32_t*>(any.data());
  params.type_ids = reinterpret_cast<const uint8_t*>(any.data());
  params.word = params.position = params.token_type = any.data();
  params.gamma = params.beta = any.data();
  params.x = const_cast<float*>(any.data());
  EXPECT_EQ(Embed(params, nullptr), cudaSuccess);  // no rows
  for (int hidden : {0, 12, 1032}) {
    params.hidden = hidden;
    EXPECT_EQ(Embed(params, nullptr), cudaErrorInvalidValue) << hidden;
  }
}

}  // namespace
}  // namespace svdserve::cuda
