#include "kernels/cuda/lowrank_norm.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/gemm_norm.h"
#include "kernels/cuda/kernel_family.h"
#include "tests/kernels/cuda/device_buffer.h"

namespace svdserve::cuda {
namespace {

struct Widths {
  int in, rank, hidden;
};

constexpr Widths kBertBase = {768, 128, 768};
constexpr Widths kMiniLm = {384, 96, 384};

int MostRank(int hidden) { return hidden == 384 ? 192 : 128; }

// The kernel beside the two launches that it stands for, bit by bit: their own
// tests compare those with references.
class LowRankNormTest : public testing::TestWithParam<Type> {
 protected:
  static constexpr int kPoisonedRows = 70;  // after the last

  void SetUp() override {
    if (!TakesHopperKernels(TestLimits())) {
      GTEST_SKIP() << "no device for the Hopper kernels";
    }
  }

  // Random weights and rows; NaN after the last row.
  void Make(int rows, const Widths& widths, bool biased = true) {
    rows_ = rows;
    widths_ = widths;
    const auto weights = [&](int in, int out) {
      return Encode(type_, random_.Normal(size_t{1} * in * out,
                                          1.5f / std::sqrt(float(in))));
    };
    const auto poisoned = [&](int width) {
      std::vector<float> values = random_.Normal(size_t{1} * rows * width);
      values.resize(size_t{1} * (rows + kPoisonedRows) * width, NAN);
      return Encode(type_, values);
    };
    y_ = poisoned(widths.in);
    x_ = poisoned(widths.hidden);
    narrow_ = weights(widths.in, widths.rank);
    w_ = weights(widths.rank, widths.hidden);
    bias_ = random_.Normal(biased ? widths.hidden : 0);
    gamma_ = random_.Normal(widths.hidden);
    beta_ = random_.Normal(widths.hidden);
  }

  // x afterwards, and the rows after it.
  std::vector<uint16_t> OneLaunch(int first = 0, int rows = -1) {
    const auto from = [&](const std::vector<uint16_t>& all, int width) {
      return std::vector<uint16_t>(all.begin() + size_t{1} * first * width,
                                   all.end());
    };
    const Weights w(*this);
    DeviceBuffer<uint16_t> y(from(y_, widths_.in));
    DeviceBuffer<uint16_t> x(from(x_, widths_.hidden));
    EXPECT_TRUE(
        Ran(LowRankNorm({.type = type_,
                         .rows = rows < 0 ? rows_ : rows,
                         .in = widths_.in,
                         .rank = widths_.rank,
                         .hidden = widths_.hidden,
                         .y = y.data(),
                         .narrow = w.narrow.data(),
                         .w = w.w.data(),
                         .bias = bias_.empty() ? nullptr : w.bias.data(),
                         .gamma = w.gamma.data(),
                         .beta = w.beta.data(),
                         .x = x.data()},
                        TestLimits(), nullptr)));
    return x.ToHost();
  }

  std::vector<uint16_t> TwoLaunches() {
    const Weights w(*this);
    DeviceBuffer<uint16_t> y(y_);
    DeviceBuffer<uint16_t> x(x_);
    DeviceBuffer<uint16_t> t(size_t{1} * rows_ * widths_.rank);
    EXPECT_TRUE(Ran(Gemm({.type = type_,
                          .rows = rows_,
                          .in = widths_.in,
                          .out = widths_.rank,
                          .x = y.data(),
                          .x_stride = widths_.in,
                          .w = w.narrow.data(),
                          .y = t.data(),
                          .y_stride = widths_.rank},
                         TestLimits(), nullptr)));
    EXPECT_TRUE(Ran(GemmNorm({.type = type_,
                              .rows = rows_,
                              .in = widths_.rank,
                              .hidden = widths_.hidden,
                              .y = t.data(),
                              .y_stride = widths_.rank,
                              .w = w.w.data(),
                              .bias = bias_.empty() ? nullptr : w.bias.data(),
                              .gamma = w.gamma.data(),
                              .beta = w.beta.data(),
                              .x = x.data()},
                             TestLimits(), nullptr)));
    return x.ToHost();
  }

  // All of x, the rows after it included.
  void ExpectSameBits() {
    SCOPED_TRACE(testing::Message()
                 << rows_ << " rows, " << widths_.in << " -> " << widths_.rank
                 << " -> " << widths_.hidden);
    ASSERT_EQ(OneLaunch(), TwoLaunches());
  }

  Random random_;
  Type type_ = GetParam();
  int rows_ = 0;
  Widths widths_ = {};
  std::vector<uint16_t> y_, x_, narrow_, w_;
  std::vector<float> bias_, gamma_, beta_;

 private:
  struct Weights {
    explicit Weights(const LowRankNormTest& test)
        : narrow(test.narrow_),
          w(test.w_),
          bias(test.bias_),
          gamma(test.gamma_),
          beta(test.beta_) {}
    DeviceBuffer<uint16_t> narrow, w;
    DeviceBuffer<float> bias, gamma, beta;
  };
};

TEST_P(LowRankNormTest, AnyNumberOfRows) {
  for (const Widths& widths : {kBertBase, kMiniLm}) {
    for (const int rows : {1, 15, 63, 64, 65, 100, 128, 129, 300}) {
      Make(rows, widths, rows != 100);
      ExpectSameBits();
    }
  }
}

TEST_P(LowRankNormTest, EveryRankOfTheTable) {
  for (const int hidden : {384, 768}) {
    for (int rank = 8; rank <= MostRank(hidden); rank += 8) {
      Make(70, {hidden, rank, hidden});
      ExpectSameBits();
    }
  }
}

// Sums that end inside panels, shorter than the ring and longer.
TEST_P(LowRankNormTest, RandomShapes) {
  for (int i = 0; i < (kLarge ? 60 : 8); ++i) {
    const int hidden = 384 * random_.Integer(1, 2);
    Make(random_.Integer(1, kLarge ? 900 : 150),
         {8 * random_.Integer(1, 160),
          8 * random_.Integer(1, MostRank(hidden) / 8), hidden},
         random_.Integer(0, 3) > 0);
    ExpectSameBits();
  }
}

TEST_P(LowRankNormTest, LayersOfModelsLarge) {
  for (const Widths& widths : {kBertBase, kMiniLm}) {
    Make(16384 + random_.Integer(0, 600), widths);
    // Again and again: a race shows now and then.
    for (int i = 0; i < 3; ++i) ExpectSameBits();
  }
}

TEST_P(LowRankNormTest, BitsDependOnTheRowAlone) {
  for (const Widths& widths : {kBertBase, kMiniLm}) {
    Make(140, widths);
    const std::vector<uint16_t> all = OneLaunch();
    for (const int row : {0, 63, 64, 127, 139}) {
      const std::vector<uint16_t> one = OneLaunch(row, 1);
      const auto expected = all.begin() + size_t{1} * row * widths.hidden;
      EXPECT_TRUE(std::equal(expected, expected + widths.hidden, one.begin()))
          << row;
    }
  }
}

TEST_P(LowRankNormTest, NotWhilePortableKernelsAreAskedFor) {
  Make(5, kBertBase);
  const ScopedPortableKernels portable;
  EXPECT_FALSE(
      LowRankNormTakes({.in = 768, .rank = 128, .hidden = 768}, TestLimits()));
}

INSTANTIATE_TEST_SUITE_P(Types, LowRankNormTest,
                         testing::Values(Type::kBF16, Type::kF16));

LowRankNormParams Of(const Widths& widths) {
  // Never read: nothing is launched.
  alignas(16) static float somewhere[4];
  return {.rows = 1,
          .in = widths.in,
          .rank = widths.rank,
          .hidden = widths.hidden,
          .y = somewhere,
          .narrow = somewhere,
          .w = somewhere,
          .gamma = somewhere,
          .beta = somewhere,
          .x = somewhere};
}

TEST(LowRankNormTableTest, RefusesOtherShapes) {
  const DeviceLimits limits = TestLimits();
  for (const Widths& widths : {Widths{768, 96, 512}, Widths{1024, 128, 1024},
                               Widths{384, 200, 384}, Widths{768, 136, 768}}) {
    EXPECT_FALSE(LowRankNormTakes(Of(widths), limits));
    EXPECT_EQ(LowRankNorm(Of(widths), limits, nullptr), cudaErrorNotSupported);
  }
  EXPECT_FALSE(LowRankNormTakes(Of(kBertBase), {80, 108, 163 << 10}));
}

TEST(LowRankNormTableTest, RefusesParametersThatMakeNoSense) {
  for (const Widths& widths :
       {Widths{0, 192, 768}, Widths{768, 12, 768}, Widths{768, 192, -768}}) {
    EXPECT_EQ(LowRankNorm(Of(widths), TestLimits(), nullptr),
              cudaErrorInvalidValue);
  }
  LowRankNormParams params = Of(kBertBase);
  params.rows = -1;
  EXPECT_EQ(LowRankNorm(params, TestLimits(), nullptr), cudaErrorInvalidValue);
  params = Of(kBertBase);
  params.narrow = nullptr;
  EXPECT_EQ(LowRankNorm(params, TestLimits(), nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace svdserve::cuda
