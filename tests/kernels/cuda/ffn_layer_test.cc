#include "kernels/cuda/ffn_layer.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/fused_ffn.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/gemm_norm.h"
#include "kernels/cuda/kernel_family.h"
#include "tests/kernels/cuda/device_buffer.h"

namespace svdserve::cuda {
namespace {

struct Shape {
  int rows = 130;
  int hidden = 768;
  int in_rank = 64;
  int intermediate = 96;
  int out_rank = 48;
  Activation activation = Activation::kGelu;
  bool bias = true;
};

FfnLayerParams ParamsOf(const Shape& shape) {
  return {.rows = shape.rows,
          .hidden = shape.hidden,
          .in_rank = shape.in_rank,
          .intermediate = shape.intermediate,
          .out_rank = shape.out_rank,
          .activation = shape.activation};
}

// The kernel beside the three launches that it stands for, bit by bit: their
// own tests compare those with references.
class FfnLayerTest : public testing::TestWithParam<Type> {
 protected:
  static constexpr int kPoisonedRows = 70;  // of x, after the last

  void SetUp() override {
    if (!TakesHopperKernels(TestLimits())) {
      GTEST_SKIP() << "no device for the Hopper kernels";
    }
  }

  // Random weights and rows; NaN after the last row.
  void Make(const Shape& shape) {
    shape_ = shape;
    const auto random = [&](int rows, int columns, double deviation) {
      return random_.Normal(size_t{1} * rows * columns,
                            static_cast<float>(deviation));
    };
    x_ = random(shape.rows, shape.hidden, 1);
    x_.resize(x_.size() + size_t{kPoisonedRows} * shape.hidden, NAN);
    u1_ = random(shape.in_rank, shape.hidden, 1 / std::sqrt(shape.hidden));
    v1_ = random(shape.intermediate, shape.in_rank,
                 1.5 / std::sqrt(shape.in_rank));
    u2_ = random(shape.out_rank, shape.intermediate,
                 1 / std::sqrt(shape.intermediate));
    v2_ = random(shape.hidden, shape.out_rank, 1.5 / std::sqrt(shape.out_rank));
    b1_ = random_.Normal(shape.intermediate, 0.5f);
    b2_ = random_.Normal(shape.hidden, 0.5f);
    gamma_ = random_.Normal(shape.hidden, 1);
    beta_ = random_.Normal(shape.hidden, 1);
  }

  // x afterwards, and the rows after it.
  std::vector<uint16_t> OneLaunch(int first = 0, int rows = -1) {
    if (rows < 0) rows = shape_.rows;
    const Weights w(*this);
    const auto begin = x_.begin() + size_t{1} * first * shape_.hidden;
    std::vector<float> part(begin, begin + size_t{1} * rows * shape_.hidden);
    part.resize(part.size() + size_t{kPoisonedRows} * shape_.hidden, NAN);
    DeviceBuffer<uint16_t> x(Encode(type_, part));
    FfnLayerParams params = ParamsOf(shape_);
    params.type = type_;
    params.rows = rows;
    params.u1 = w.u1.data();
    params.v1 = w.v1.data();
    params.u2 = w.u2.data();
    params.v2 = w.v2.data();
    if (shape_.bias) params.b1 = w.b1.data();
    if (shape_.bias) params.b2 = w.b2.data();
    params.gamma = w.gamma.data();
    params.beta = w.beta.data();
    params.x = x.data();
    EXPECT_TRUE(Ran(FfnLayer(params, TestLimits(), nullptr)));
    return x.ToHost();
  }

  std::vector<uint16_t> ThreeLaunches() {
    const Weights w(*this);
    DeviceBuffer<uint16_t> x(Encode(type_, x_));
    DeviceBuffer<uint16_t> p(size_t{1} * shape_.rows * shape_.in_rank);
    DeviceBuffer<uint16_t> z(size_t{1} * shape_.rows * shape_.out_rank);
    EXPECT_TRUE(Ran(Gemm({.type = type_,
                          .rows = shape_.rows,
                          .in = shape_.hidden,
                          .out = shape_.in_rank,
                          .x = x.data(),
                          .x_stride = shape_.hidden,
                          .w = w.u1.data(),
                          .y = p.data(),
                          .y_stride = shape_.in_rank},
                         TestLimits(), nullptr)));
    EXPECT_TRUE(Ran(FusedFfn({.type = type_,
                              .rows = shape_.rows,
                              .in_rank = shape_.in_rank,
                              .intermediate = shape_.intermediate,
                              .out_rank = shape_.out_rank,
                              .activation = shape_.activation,
                              .p = p.data(),
                              .p_stride = shape_.in_rank,
                              .v1 = w.v1.data(),
                              .b1 = shape_.bias ? w.b1.data() : nullptr,
                              .u2 = w.u2.data(),
                              .z = z.data(),
                              .z_stride = shape_.out_rank},
                             TestLimits(), nullptr)));
    EXPECT_TRUE(Ran(GemmNorm({.type = type_,
                              .rows = shape_.rows,
                              .in = shape_.out_rank,
                              .hidden = shape_.hidden,
                              .y = z.data(),
                              .y_stride = shape_.out_rank,
                              .w = w.v2.data(),
                              .bias = shape_.bias ? w.b2.data() : nullptr,
                              .gamma = w.gamma.data(),
                              .beta = w.beta.data(),
                              .x = x.data()},
                             TestLimits(), nullptr)));
    return x.ToHost();
  }

  // All of x, the rows after it included.
  void ExpectSameBits() {
    SCOPED_TRACE(testing::Message()
                 << shape_.rows << " rows, " << shape_.hidden << " -> "
                 << shape_.in_rank << " -> " << shape_.intermediate << " -> "
                 << shape_.out_rank << ", activation "
                 << static_cast<int>(shape_.activation));
    ASSERT_EQ(OneLaunch(), ThreeLaunches());
  }

  Random random_;
  Type type_ = GetParam();
  Shape shape_;
  std::vector<float> x_, u1_, v1_, u2_, v2_, b1_, b2_, gamma_, beta_;

 private:
  struct Weights {
    explicit Weights(const FfnLayerTest& test)
        : u1(Encode(test.type_, test.u1_)),
          v1(Encode(test.type_, test.v1_)),
          u2(Encode(test.type_, test.u2_)),
          v2(Encode(test.type_, test.v2_)),
          b1(test.b1_),
          b2(test.b2_),
          gamma(test.gamma_),
          beta(test.beta_) {}
    DeviceBuffer<uint16_t> u1, v1, u2, v2;
    DeviceBuffer<float> b1, b2, gamma, beta;
  };
};

TEST_P(FfnLayerTest, AnyNumberOfRows) {
  for (const int hidden : {384, 768}) {
    for (const int rows : {1, 15, 63, 64, 65, 100, 128, 129, 300}) {
      Make({.rows = rows, .hidden = hidden});
      ExpectSameBits();
    }
  }
}

TEST_P(FfnLayerTest, EveryRankOfTheTable) {
  for (const int hidden : {384, 768}) {
    for (int rank = 16; rank <= 320; rank += 16) {
      for (const Activation activation :
           {Activation::kGelu, Activation::kGeluTanh, Activation::kRelu}) {
        if (!FfnLayerTakes(hidden, rank, rank, activation, TestLimits())) {
          ASSERT_EQ(hidden, 384);
          ASSERT_GT(rank, activation == Activation::kGelu ? 256 : 192);
          continue;
        }
        Make({.rows = 70,
              .hidden = hidden,
              .in_rank = rank,
              .out_rank = rank,
              .activation = activation});
        ExpectSameBits();
      }
    }
  }
}

TEST_P(FfnLayerTest, RandomShapes) {
  for (int i = 0; i < (kLarge ? 60 : 8); ++i) {
    const int hidden = 384 * random_.Integer(1, 2);
    const int most = hidden == 384 ? 12 : 20;
    Make({.rows = random_.Integer(1, kLarge ? 900 : 150),
          .hidden = hidden,
          .in_rank = 16 * random_.Integer(1, most),
          .intermediate = 32 * random_.Integer(1, kLarge ? 24 : 8),
          .out_rank = 16 * random_.Integer(1, most),
          .activation = static_cast<Activation>(random_.Integer(1, 3)),
          .bias = random_.Integer(0, 3) > 0});
    ExpectSameBits();
  }
}

TEST_P(FfnLayerTest, LayersOfModelsLarge) {
  for (const auto& [hidden, rank] :
       {std::pair{768, 320}, {768, 192}, {384, 160}}) {
    Make({.rows = 16384 + random_.Integer(0, 600),
          .hidden = hidden,
          .in_rank = rank,
          .intermediate = 4 * hidden,
          .out_rank = rank});
    // Again and again: a race shows now and then.
    for (int i = 0; i < 3; ++i) ExpectSameBits();
  }
}

TEST_P(FfnLayerTest, HugeAndTinyValues) {
  Make({.rows = 200, .in_rank = 320, .intermediate = 1536, .out_rank = 320});
  for (float& value : v1_) value *= std::exp2(random_.Integer(-12, 3));
  for (float& value : v2_) value *= std::exp2(random_.Integer(-8, 4));
  ExpectSameBits();
}

TEST_P(FfnLayerTest, BitsDependOnTheRowAlone) {
  for (const int hidden : {384, 768}) {
    Make({.rows = 140, .hidden = hidden, .in_rank = 160, .out_rank = 160});
    const std::vector<uint16_t> all = OneLaunch();
    for (const int row : {0, 63, 64, 127, 139}) {
      const std::vector<uint16_t> one = OneLaunch(row, 1);
      const auto expected = all.begin() + size_t{1} * row * hidden;
      EXPECT_TRUE(std::equal(expected, expected + hidden, one.begin())) << row;
    }
  }
}

TEST_P(FfnLayerTest, NotWhilePortableKernelsAreAskedFor) {
  const ScopedPortableKernels portable;
  EXPECT_FALSE(FfnLayerTakes(768, 64, 64, Activation::kGelu, TestLimits()));
  EXPECT_EQ(FfnLayer(ParamsOf({}), TestLimits(), nullptr),
            cudaErrorNotSupported);
}

INSTANTIATE_TEST_SUITE_P(Types, FfnLayerTest,
                         testing::Values(Type::kBF16, Type::kF16));

TEST(FfnLayerTableTest, RefusesOtherShapes) {
  const DeviceLimits limits = TestLimits();
  for (const Shape& shape :
       {Shape{.hidden = 512}, Shape{.hidden = 1024}, Shape{.in_rank = 336},
        Shape{.out_rank = 336}, Shape{.activation = Activation::kNone},
        Shape{.activation = Activation::kSilu}}) {
    EXPECT_FALSE(FfnLayerTakes(shape.hidden, shape.in_rank, shape.out_rank,
                               shape.activation, limits));
    EXPECT_EQ(FfnLayer(ParamsOf(shape), limits, nullptr),
              cudaErrorNotSupported);
  }
  EXPECT_FALSE(
      FfnLayerTakes(768, 320, 320, Activation::kGelu, {80, 108, 163 << 10}));
}

TEST(FfnLayerTableTest, RefusesParametersThatMakeNoSense) {
  for (const Shape& shape :
       {Shape{.rows = -1}, Shape{.in_rank = 0}, Shape{.in_rank = 24},
        Shape{.out_rank = 8}, Shape{.intermediate = 0},
        Shape{.intermediate = 48}}) {
    EXPECT_EQ(FfnLayer(ParamsOf(shape), TestLimits(), nullptr),
              cudaErrorInvalidValue);
  }
}

}  // namespace
}  // namespace svdserve::cuda
