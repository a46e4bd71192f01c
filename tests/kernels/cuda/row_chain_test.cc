#include "kernels/cuda/row_chain.h"

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
  int in, rank, hidden, out;
};

std::vector<uint16_t> Weights(Type type, int in, int out, Random* random) {
  return Encode(type,
                random->Normal(size_t{1} * in * out, 1 / std::sqrt(float(in))));
}

// NaN behind the last row.
std::vector<uint16_t> Rows(Type type, int rows, int width, Random* random) {
  std::vector<float> values = random->Normal(size_t{1} * rows * width);
  values.resize(size_t{1} * (rows + 1) * width, NAN);
  return Encode(type, values);
}

// What both ways leave.
struct Result {
  std::vector<uint16_t> x, z;
  friend bool operator==(const Result&, const Result&) = default;
};

class Chain {
 public:
  Chain(Type type, int rows, const Widths& widths, bool biased, Random* random)
      : type_(type),
        rows_(rows),
        widths_(widths),
        y_(Rows(type, rows, widths.in, random)),
        x_(Rows(type, rows, widths.hidden, random)),
        narrow_(Weights(type, widths.in, widths.rank, random)),
        w_(Weights(type, widths.rank, widths.hidden, random)),
        next_(Weights(type, widths.hidden, widths.out, random)),
        bias_(random->Normal(widths.hidden)),
        gamma_(random->Normal(widths.hidden)),
        beta_(random->Normal(widths.hidden)),
        biased_(biased) {}

  Result AtOnce() { return RowsAtOnce(0, rows_); }
  // Some rows alone.
  Result RowsAtOnce(int first, int count) {
    DeviceBuffer<uint16_t> x(Tail(x_, first, widths_.hidden));
    DeviceBuffer<uint16_t> y(Tail(y_, first, widths_.in));
    DeviceBuffer<uint16_t> z(size_t{1} * (count + 1) * widths_.out);
    EXPECT_TRUE(Ran(RowChain({.type = type_,
                              .rows = count,
                              .in = widths_.in,
                              .rank = widths_.rank,
                              .hidden = widths_.hidden,
                              .out = widths_.out,
                              .y = y.data(),
                              .narrow = narrow_.data(),
                              .w = w_.data(),
                              .bias = Bias(),
                              .gamma = gamma_.data(),
                              .beta = beta_.data(),
                              .x = x.data(),
                              .next = next_.data(),
                              .z = z.data()},
                             TestLimits(), nullptr)));
    return {x.ToHost(), z.ToHost()};
  }
  Result OneByOne() {
    DeviceBuffer<uint16_t> x(x_.ToHost());
    DeviceBuffer<uint16_t> t(size_t{1} * rows_ * widths_.rank);
    DeviceBuffer<uint16_t> z(size_t{1} * (rows_ + 1) * widths_.out);
    EXPECT_TRUE(Ran(Product(y_, widths_.in, narrow_, widths_.rank, &t)));
    EXPECT_TRUE(Ran(GemmNorm({.type = type_,
                              .rows = rows_,
                              .in = widths_.rank,
                              .hidden = widths_.hidden,
                              .y = t.data(),
                              .y_stride = widths_.rank,
                              .w = w_.data(),
                              .bias = Bias(),
                              .gamma = gamma_.data(),
                              .beta = beta_.data(),
                              .x = x.data()},
                             TestLimits(), nullptr)));
    EXPECT_TRUE(Ran(Product(x, widths_.hidden, next_, widths_.out, &z)));
    return {x.ToHost(), z.ToHost()};
  }

 private:
  static std::vector<uint16_t> Tail(const DeviceBuffer<uint16_t>& rows,
                                    int first, int width) {
    const std::vector<uint16_t> all = rows.ToHost();
    return {all.begin() + size_t{1} * first * width, all.end()};
  }
  const float* Bias() const { return biased_ ? bias_.data() : nullptr; }
  cudaError_t Product(const DeviceBuffer<uint16_t>& x, int in,
                      const DeviceBuffer<uint16_t>& w, int out,
                      DeviceBuffer<uint16_t>* y) const {
    return Gemm({.type = type_,
                 .rows = rows_,
                 .in = in,
                 .out = out,
                 .x = x.data(),
                 .x_stride = in,
                 .w = w.data(),
                 .y = y->data(),
                 .y_stride = out},
                TestLimits(), nullptr);
  }

  Type type_;
  int rows_;
  Widths widths_;
  DeviceBuffer<uint16_t> y_, x_, narrow_, w_, next_;
  DeviceBuffer<float> bias_, gamma_, beta_;
  bool biased_;
};

constexpr Widths kBertBase = {768, 192, 768, 320};

class RowChainTest : public testing::TestWithParam<Type> {
 protected:
  void SetUp() override {
    if (!TakesHopperKernels(TestLimits())) {
      GTEST_SKIP() << "no device for the kernel";
    }
  }
  void ExpectSameBits(int rows, const Widths& widths, bool biased = true) {
    SCOPED_TRACE(testing::Message() << rows << " rows, " << widths.rank << " "
                                    << widths.hidden << " " << widths.out);
    Chain chain(GetParam(), rows, widths, biased, &random_);
    const Result result = chain.AtOnce();
    EXPECT_TRUE(result == chain.OneByOne());
  }

  Random random_;
};

TEST_P(RowChainTest, SameBitsAsThreeLaunches) {
  for (int rows : {1, 15, 16, 17, 100, 128, 192, 700}) {
    ExpectSameBits(rows, kBertBase, rows != 100);
  }
  ExpectSameBits(128, {768, 128, 768, 192});
  ExpectSameBits(128, {384, 96, 384, 160});
  ExpectSameBits(31, {1024, 128, 1024, 192});
}

// Ranks that end inside panels and leave some blocks without columns.
TEST_P(RowChainTest, SameBitsOfAnyWidths) {
  for (int hidden : {384, 768, 1024}) {
    ExpectSameBits(20, {8, 8, hidden, 8});
    ExpectSameBits(20, {hidden - 8, 200, hidden, 40});
    ExpectSameBits(33, {264, 72, hidden, 136});
    ExpectSameBits(33, {hidden + 192, 72, hidden, 136});
  }
  ExpectSameBits(20, {384, 32, 384, 528});  // three tiles a warp, and more
}

// A race shows now and then.
TEST_P(RowChainTest, SameBitsTimeAfterTime) {
  Chain chain(GetParam(), 240, kBertBase, true, &random_);
  const Result expected = chain.OneByOne();
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(chain.AtOnce() == expected) << i;
}

TEST_P(RowChainTest, ARowsBitsDependOnThatRowAlone) {
  Chain chain(GetParam(), 40, kBertBase, true, &random_);
  const Result all = chain.AtOnce();
  for (int row : {0, 17, 39}) {
    const Result alone = chain.RowsAtOnce(row, 1);
    const auto same = [row](const std::vector<uint16_t>& one,
                            const std::vector<uint16_t>& rows, int width) {
      return std::equal(one.begin(), one.begin() + width,
                        rows.begin() + row * width);
    };
    EXPECT_TRUE(same(alone.x, all.x, kBertBase.hidden)) << row;
    EXPECT_TRUE(same(alone.z, all.z, kBertBase.out)) << row;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, RowChainTest,
                         testing::Values(Type::kBF16, Type::kF16));

RowChainParams Of(const Widths& widths) {
  return {.in = widths.in,
          .rank = widths.rank,
          .hidden = widths.hidden,
          .out = widths.out};
}

TEST(RowChainTakesTest, OnlyWhatFitsIntoSharedMemory) {
  const DeviceLimits limits = TestLimits();
  if (!TakesHopperKernels(limits)) {
    EXPECT_FALSE(RowChainTakes(Of(kBertBase), limits));
    return;
  }
  EXPECT_TRUE(RowChainTakes(Of(kBertBase), limits));
  EXPECT_TRUE(RowChainTakes(Of({384, 96, 384, 160}), limits));
  EXPECT_FALSE(RowChainTakes(Of({768, 192, 768, 3072}), limits));
  EXPECT_FALSE(RowChainTakes(Of({1024, 256, 1024, 320}), limits));
  EXPECT_FALSE(RowChainTakes(Of({512, 96, 512, 160}), limits));
}

TEST(RowChainTakesTest, RefusesWhatMakesNoSense) {
  DeviceBuffer<uint16_t> memory(64);
  DeviceBuffer<float> vector(8);
  RowChainParams params = {.rows = 1,
                           .in = 8,
                           .rank = 8,
                           .hidden = 768,
                           .out = 8,
                           .y = memory.data(),
                           .narrow = memory.data(),
                           .w = memory.data(),
                           .gamma = vector.data(),
                           .beta = vector.data(),
                           .x = memory.data(),
                           .next = memory.data(),
                           .z = memory.data()};
  const auto refuses = [&params](auto RowChainParams::*field, auto value) {
    RowChainParams bad = params;
    bad.*field = value;
    return RowChain(bad, TestLimits(), nullptr) == cudaErrorInvalidValue;
  };
  EXPECT_TRUE(refuses(&RowChainParams::rows, -1));
  EXPECT_TRUE(refuses(&RowChainParams::in, 12));
  EXPECT_TRUE(refuses(&RowChainParams::rank, 0));
  EXPECT_TRUE(refuses(&RowChainParams::y, nullptr));
  EXPECT_TRUE(refuses(&RowChainParams::gamma, nullptr));
  EXPECT_TRUE(refuses(&RowChainParams::z, memory.data() + 1));
  params.rows = 0;
  const cudaError_t none = RowChain(params, TestLimits(), nullptr);
  EXPECT_EQ(none, TakesHopperKernels(TestLimits()) ? cudaSuccess
                                                   : cudaErrorNotSupported);
}

}  // namespace
}  // namespace svdserve::cuda
