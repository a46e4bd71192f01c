#include "kernels/cuda/pool.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/cuda/device_buffer.h"
#include "tests/reference/ops.h"

namespace svdserve::cuda {
namespace {

using reference::ExactF64;

std::vector<float> Slice(const std::vector<float>& values, int first,
                         int count) {
  return {values.begin() + first, values.begin() + first + count};
}

// ---- Pool ----

class PoolTest : public testing::TestWithParam<Type> {
 protected:
  // Sequences of these lengths, one after another, then rows of NaN.
  void Batch(const std::vector<int>& lengths, int hidden) {
    starts_ = {0};
    for (int length : lengths) starts_.push_back(starts_.back() + length);
    hidden_ = hidden;
    x_ = Rounded(type_, random_.Normal(size_t{1} * starts_.back() * hidden));
    x_.resize(x_.size() + 5 * hidden, NAN);
  }

  std::vector<float> Run(PoolKind kind) const {
    const DeviceBuffer<uint16_t> x(Encode(type_, x_));
    const DeviceBuffer<int32_t> starts(starts_);
    const int sequences = static_cast<int>(starts_.size()) - 1;
    DeviceBuffer<float> y(size_t{1} * sequences * hidden_);
    PoolParams params;
    params.type = type_;
    params.kind = kind;
    params.sequences = sequences;
    params.hidden = hidden_;
    params.cu_seqlens = starts.data();
    params.x = x.data();
    params.y = y.data();
    EXPECT_TRUE(Ran(Pool(params, nullptr)));
    return y.ToHost();
  }

  std::vector<double> Exact(PoolKind kind) const {
    std::vector<double> exact;
    for (size_t i = 0; i + 1 < starts_.size(); ++i) {
      reference::Matrix<ExactF64> x(starts_[i + 1] - starts_[i], hidden_);
      std::copy_n(x_.begin() + starts_[i] * hidden_, x.values.size(),
                  x.values.begin());
      reference::Matrix<ExactF64> y(1, hidden_);  // zeros
      if (x.rows > 0) {
        y = kind == PoolKind::kMean    ? reference::MeanPool(x)
            : kind == PoolKind::kFirst ? reference::ClsPool(x)
                                       : reference::MaxPool(x);
      }
      exact.insert(exact.end(), y.values.begin(), y.values.end());
    }
    return exact;
  }

  Random random_;
  Type type_ = GetParam();
  int hidden_ = 0;
  std::vector<int32_t> starts_;
  std::vector<float> x_;
};

TEST_P(PoolTest, MeanMatchesTheReference) {
  for (int hidden : {8, 72, 384}) {
    Batch({1, 2, 31, 32, 33, 0, 100, 257}, hidden);
    EXPECT_LT(RelativeError(Run(PoolKind::kMean), Exact(PoolKind::kMean)),
              1e-6);
  }
}

TEST_P(PoolTest, FirstAndMaximumAreExact) {
  Batch({1, 2, 0, 64, 100, 0}, 136);
  for (PoolKind kind : {PoolKind::kFirst, PoolKind::kMax}) {
    EXPECT_EQ(RelativeError(Run(kind), Exact(kind)), 0);
  }
}

TEST_P(PoolTest, LargeBatchesMatchTheReference) {
  if (!kLarge) GTEST_SKIP() << "large shapes run on a GPU";
  Batch(std::vector<int>(32, 512), 768);
  EXPECT_LT(RelativeError(Run(PoolKind::kMean), Exact(PoolKind::kMean)), 1e-6);
  Batch({8192, 1, 2048, 3}, 1024);
  EXPECT_LT(RelativeError(Run(PoolKind::kMean), Exact(PoolKind::kMean)), 1e-6);
}

TEST_P(PoolTest, ASequenceGivesTheSameBitsWhereverItLies) {
  Batch({70, 9, 0, 133}, 64);
  const std::vector<float> together = Run(PoolKind::kMean);
  const std::vector<float> x = x_;
  const std::vector<int32_t> starts = starts_;
  for (int i : {0, 1, 3}) {
    starts_ = {0, starts[i + 1] - starts[i]};
    x_ = Slice(x, starts[i] * hidden_, starts_[1] * hidden_);
    EXPECT_EQ(Run(PoolKind::kMean), Slice(together, i * hidden_, hidden_));
  }
}

TEST_P(PoolTest, NanReachesItsColumnOnly) {
  for (PoolKind kind : {PoolKind::kMean, PoolKind::kMax}) {
    for (int row : {0, 2, 39}) {
      Batch({40}, 72);
      x_[row * hidden_ + 3] = NAN;
      const std::vector<float> y = Run(kind);
      for (int j = 0; j < hidden_; ++j) EXPECT_EQ(std::isnan(y[j]), j == 3);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, PoolTest,
                         testing::Values(Type::kBF16, Type::kF16),
                         testing::PrintToStringParamName());

// ---- Head ----

class HeadTest : public testing::Test {
 protected:
  void Layer(int rows, int in, int out) {
    rows_ = rows;
    in_ = in;
    out_ = out;
    x_ = random_.Normal(rows * in);
    w_ = random_.Normal(in * out, 1 / std::sqrt(in));
    bias_ = random_.Normal(out);
  }

  std::vector<float> Run(HeadActivation activation) const {
    const DeviceBuffer<float> x(x_);
    const DeviceBuffer<float> w(w_);
    const DeviceBuffer<float> bias(bias_);
    DeviceBuffer<float> y(rows_ * out_);
    HeadParams params;
    params.rows = rows_;
    params.in = in_;
    params.out = out_;
    params.x = x.data();
    params.w = w.data();
    params.bias = bias_.empty() ? nullptr : bias.data();
    params.activation = activation;
    params.y = y.data();
    EXPECT_TRUE(Ran(Head(params, nullptr)));
    return y.ToHost();
  }

  std::vector<double> Exact(svdserve::HeadActivation activation) const {
    reference::Matrix<ExactF64> x(rows_, in_);
    x.values.assign(x_.begin(), x_.end());
    reference::Matrix<ExactF64> w(in_, out_);
    for (int i = 0; i < in_ * out_; ++i) {
      w.row(i % in_)[i / in_] = w_[i];
    }
    return reference::Activate<ExactF64>(
               reference::MatMul<ExactF64>(x, w, {bias_.begin(), bias_.end()}),
               activation)
        .values;
  }

  Random random_;
  int rows_ = 0;
  int in_ = 0;
  int out_ = 0;
  std::vector<float> x_, w_, bias_;
};

// Values are of order one, so absolute differences tell; a value near zero has
// no small relative error.
TEST_F(HeadTest, MatchesTheReference) {
  using Reference = svdserve::HeadActivation;
  const std::pair<HeadActivation, Reference> activations[] = {
      {HeadActivation::kIdentity, Reference::kIdentity},
      {HeadActivation::kTanh, Reference::kTanh},
      {HeadActivation::kRelu, Reference::kRelu},
      {HeadActivation::kGelu, Reference::kGelu}};
  for (int rows : {1, 8, 19}) {
    for (int out : {1, 2, 33}) {
      Layer(rows, 100, out);
      for (const auto& [ours, exact] : activations) {
        const std::vector<float> y = Run(ours);
        const std::vector<double> want = Exact(exact);
        for (size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], want[i], 5e-6);
      }
    }
  }
}

TEST_F(HeadTest, WorksWithoutABias) {
  Layer(3, 40, 5);
  bias_.clear();
  EXPECT_LT(RelativeError(Run(HeadActivation::kIdentity),
                          Exact(svdserve::HeadActivation::kIdentity)),
            1e-6);
}

TEST_F(HeadTest, LargeLayersMatchTheReference) {
  if (!kLarge) GTEST_SKIP() << "large shapes run on a GPU";
  Layer(200, 1024, 1024);
  EXPECT_LT(RelativeError(Run(HeadActivation::kTanh),
                          Exact(svdserve::HeadActivation::kTanh)),
            1e-6);
}

TEST_F(HeadTest, ARowGivesTheSameBitsInAnyBatch) {
  Layer(11, 96, 7);
  const std::vector<float> together = Run(HeadActivation::kTanh);
  const std::vector<float> x = x_;
  rows_ = 1;
  for (int row = 0; row < 11; ++row) {
    x_ = Slice(x, row * in_, in_);
    EXPECT_EQ(Run(HeadActivation::kTanh), Slice(together, row * out_, out_));
  }
}

TEST_F(HeadTest, NanIsNeverHidden) {
  Layer(2, 32, 3);
  x_[5] = NAN;
  for (HeadActivation activation :
       {HeadActivation::kIdentity, HeadActivation::kTanh, HeadActivation::kRelu,
        HeadActivation::kGelu}) {
    const std::vector<float> y = Run(activation);
    for (int i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(y[i]), i < 3);
  }
}

// ---- FinishRows ----

std::vector<float> Finish(const std::vector<float>& values, int width,
                          const std::vector<int32_t>& options) {
  DeviceBuffer<float> y(values);
  const DeviceBuffer<int32_t> options_device(options);
  FinishParams params;
  params.rows = static_cast<int>(options.size());
  params.width = width;
  params.options = options_device.data();
  params.y = y.data();
  EXPECT_TRUE(Ran(FinishRows(params, nullptr)));
  return y.ToHost();
}

TEST(FinishTest, EachRowHasItsOwnOptions) {
  constexpr int kWidth = 300;
  Random random;
  const std::vector<float> x = random.Normal(4 * kWidth);
  const std::vector<float> y =
      Finish(x, kWidth,
             {RowOption(0, false), RowOption(0, true), RowOption(20, false),
              RowOption(270, true)});
  std::vector<double> exact(x.begin(), x.end());
  for (int row : {1, 3}) {
    std::vector<double> kept(
        exact.begin() + row * kWidth,
        exact.begin() + row * kWidth + (row == 1 ? kWidth : 270));
    reference::Normalize<ExactF64>(kept);
    std::copy(kept.begin(), kept.end(), exact.begin() + row * kWidth);
  }
  std::fill_n(exact.begin() + 2 * kWidth + 20, kWidth - 20, 0);
  std::fill_n(exact.begin() + 3 * kWidth + 270, kWidth - 270, 0);
  EXPECT_LT(RelativeError(y, exact), 1e-7);
  EXPECT_EQ(Slice(y, 0, kWidth), Slice(x, 0, kWidth));
  for (int i = 20; i < kWidth; ++i) EXPECT_EQ(y[2 * kWidth + i], 0);
}

TEST(FinishTest, GivesUnitLengthAtAnyScale) {
  for (float scale : {1e-8f, 1.0f, 1e30f}) {
    Random random;
    const auto y = Finish(random.Normal(100, scale), 100, {RowOption(0, true)});
    double squares = 0;
    for (float value : y) squares += double{value} * value;
    EXPECT_NEAR(squares, 1, 1e-6);
  }
}

TEST(FinishTest, ZeroStaysZero) {
  const std::vector<float> zeros(8);
  EXPECT_EQ(Finish(zeros, 8, {RowOption(0, true)}), zeros);
}

TEST(FinishTest, NanIsNeverHidden) {
  const auto y = Finish({1, NAN, 2}, 3, {RowOption(0, true)});
  EXPECT_TRUE(std::isnan(y[1]));
}

// ---- Launches ----

TEST(PoolLaunchTest, RefusesWhatMakesNoSense) {
  EXPECT_EQ(Pool({}, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(Head({}, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(FinishRows({}, nullptr), cudaErrorInvalidValue);
}

TEST(PoolLaunchTest, NoRowsLaunchNothing) {
  DeviceBuffer<float> any(1);
  const int32_t* integers = reinterpret_cast<const int32_t*>(any.data());
  PoolParams pool;
  pool.hidden = 8;
  pool.cu_seqlens = integers;
  pool.x = any.data();
  pool.y = any.data();
  EXPECT_EQ(Pool(pool, nullptr), cudaSuccess);
  HeadParams head;
  head.in = head.out = 1;
  head.x = head.w = any.data();
  head.y = any.data();
  EXPECT_EQ(Head(head, nullptr), cudaSuccess);
  FinishParams finish;
  finish.width = 1;
  finish.options = integers;
  finish.y = any.data();
  EXPECT_EQ(FinishRows(finish, nullptr), cudaSuccess);
}

}  // namespace
}  // namespace svdserve::cuda
