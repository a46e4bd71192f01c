#include "kernels/cuda/fused_ffn.h"

#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/hopper/fused_ffn.h"
#include "kernels/cuda/kernel_family.h"
#include "tests/kernels/cuda/device_buffer.h"

namespace svdserve::cuda {
namespace {

struct Shape {
  int rows = 130;
  int in_rank = 64;
  int intermediate = 96;
  int out_rank = 48;
  Activation activation = Activation::kGelu;
  bool bias = true;
  bool gated = false;
};

double Apply(Activation activation, double x) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kGelu:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::kGeluTanh:
      return 0.5 * x *
             (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::kRelu:
      return std::fmax(x, 0.0);
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
  }
  return NAN;
}

// Which of its kernels the launcher takes.
DeviceLimits ForTallBlocks() {
  return {90, 0, kOnDevice ? TestLimits().shared_bytes : 227 << 10};
}
DeviceLimits ForLowBlocks() {
  return {90, 1 << 20, ForTallBlocks().shared_bytes};
}
DeviceLimits ForShortBlocks() { return {86, 1 << 20, 99 << 10}; }

class FusedFfnTest : public testing::TestWithParam<Type> {
 protected:
  static constexpr int kPoisonedRows = 3;  // of p and z, after the last
  static constexpr int kPadding = 8;       // of their rows

  // Random weights and rows.
  void Make(const Shape& shape) {
    shape_ = shape;
    const auto random = [&](int rows, int columns, double deviation) {
      return Rounded(type_, random_.Normal(size_t{1} * rows * columns,
                                           static_cast<float>(deviation)));
    };
    const double scale = 1 / std::sqrt(shape.in_rank);
    p_ = random(shape.rows, shape.in_rank, 1.5);
    v1_ = random(shape.intermediate, shape.in_rank, scale);
    gate_ = random(shape.intermediate, shape.in_rank, scale);
    u2_ = random(shape.out_rank, shape.intermediate,
                 1 / std::sqrt(shape.intermediate));
    b1_ = random_.Normal(shape.intermediate, 0.5f);
    gate_bias_ = random_.Normal(shape.intermediate, 0.5f);
  }

  int Stride() const { return shape_.out_rank + kPadding; }

  // z with its padding and the rows after it.
  std::vector<uint16_t> Fused(const DeviceLimits& limits, int first = 0,
                              int rows = -1) {
    if (rows < 0) rows = shape_.rows;
    const int p_stride = shape_.in_rank + kPadding;
    std::vector<float> p((rows + kPoisonedRows) * p_stride, NAN);
    for (int i = 0; i < rows; ++i) {
      std::copy_n(p_.begin() + (first + i) * shape_.in_rank, shape_.in_rank,
                  p.begin() + i * p_stride);
    }
    const DeviceBuffer<uint16_t> p_device(Encode(type_, p));
    const Weights weights(*this);
    DeviceBuffer<uint16_t> z((rows + kPoisonedRows) * Stride());
    FusedFfnParams params;
    params.type = type_;
    params.rows = rows;
    params.in_rank = shape_.in_rank;
    params.intermediate = shape_.intermediate;
    params.out_rank = shape_.out_rank;
    params.activation = shape_.activation;
    params.p = p_device.data();
    params.p_stride = p_stride;
    params.v1 = weights.v1.data();
    params.u2 = weights.u2.data();
    if (shape_.bias) params.b1 = weights.b1.data();
    if (shape_.gated) params.gate = weights.gate.data();
    if (shape_.gated && shape_.bias) {
      params.gate_bias = weights.gate_bias.data();
    }
    params.z = z.data();
    params.z_stride = Stride();
    EXPECT_TRUE(Ran(FusedFfn(params, limits, nullptr)));
    return z.ToHost();
  }

  std::vector<uint16_t> TwoGemms() {
    const DeviceBuffer<uint16_t> p(Encode(type_, p_));
    const Weights weights(*this);
    DeviceBuffer<uint16_t> h(size_t{1} * shape_.rows * shape_.intermediate);
    DeviceBuffer<uint16_t> z(size_t{1} * shape_.rows * shape_.out_rank);
    GemmParams in;
    in.type = type_;
    in.rows = shape_.rows;
    in.in = in.x_stride = shape_.in_rank;
    in.out = in.y_stride = shape_.intermediate;
    in.x = p.data();
    in.w = weights.v1.data();
    in.bias = weights.b1.data();
    in.activation = shape_.activation;
    if (shape_.gated) {
      in.gate = weights.gate.data();
      in.gate_bias = weights.gate_bias.data();
    }
    in.y = h.data();
    EXPECT_TRUE(Ran(Gemm(in, TestLimits(), nullptr)));
    GemmParams out;
    out.type = type_;
    out.rows = shape_.rows;
    out.in = out.x_stride = shape_.intermediate;
    out.out = out.y_stride = shape_.out_rank;
    out.x = h.data();
    out.w = weights.u2.data();
    out.y = z.data();
    EXPECT_TRUE(Ran(Gemm(out, TestLimits(), nullptr)));
    return z.ToHost();
  }

  // Without padding and the rows after it.
  std::vector<uint16_t> Rows(const std::vector<uint16_t>& z) const {
    std::vector<uint16_t> rows;
    for (int i = 0; i < shape_.rows; ++i) {
      const auto row = z.begin() + i * Stride();
      rows.insert(rows.end(), row, row + shape_.out_rank);
    }
    return rows;
  }

  // In fp64; `round` is done where a value is stored.
  std::vector<double> Reference(const std::function<double(double)>& round) {
    const auto dot = [](const float* x, const auto* y, int count) {
      double sum = 0;
      for (int i = 0; i < count; ++i) sum += double{x[i]} * y[i];
      return sum;
    };
    std::vector<double> z;
    std::vector<double> h(shape_.intermediate);
    for (int i = 0; i < shape_.rows; ++i) {
      const float* p = &p_[i * shape_.in_rank];
      for (int j = 0; j < shape_.intermediate; ++j) {
        const int weight = j * shape_.in_rank;
        h[j] = Apply(shape_.activation, dot(p, &v1_[weight], shape_.in_rank) +
                                            (shape_.bias ? b1_[j] : 0));
        if (shape_.gated) {
          h[j] *= dot(p, &gate_[weight], shape_.in_rank) +
                  (shape_.bias ? gate_bias_[j] : 0);
        }
        h[j] = round(h[j]);
      }
      for (int j = 0; j < shape_.out_rank; ++j) {
        z.push_back(round(
            dot(&u2_[j * shape_.intermediate], h.data(), shape_.intermediate)));
      }
    }
    return z;
  }

  // The error is at most twice that of a plain implementation.
  void ExpectAccurate(const std::vector<uint16_t>& z) {
    const auto exact = Reference([](double x) { return x; });
    const auto plain = Reference([&](double x) -> double {
      return Rounded(type_, {static_cast<float>(x)})[0];
    });
    EXPECT_LT(RelativeError(Decode(type_, Rows(z)), exact),
              2 * RelativeError({plain.begin(), plain.end()}, exact));
  }

  Random random_;
  Type type_ = GetParam();
  Shape shape_;
  std::vector<float> p_, v1_, gate_, u2_, b1_, gate_bias_;

 private:
  struct Weights {
    explicit Weights(const FusedFfnTest& test)
        : v1(Encode(test.type_, test.v1_)),
          gate(Encode(test.type_, test.gate_)),
          u2(Encode(test.type_, test.u2_)),
          b1(test.b1_),
          gate_bias(test.gate_bias_) {}
    DeviceBuffer<uint16_t> v1, gate, u2;
    DeviceBuffer<float> b1, gate_bias;
  };
};

TEST_P(FusedFfnTest, MatchesTheReferenceAtEveryRank) {
  for (const auto& [in_rank, out_rank] : {std::pair{16, 16},
                                          {48, 128},
                                          {128, 160},
                                          {192, 192},
                                          {256, 240},
                                          {80, 320},
                                          {304, 304},
                                          {320, 64}}) {
    SCOPED_TRACE(testing::Message() << in_rank << " -> " << out_rank);
    Make({.rows = 33, .in_rank = in_rank, .out_rank = out_rank});
    ExpectAccurate(Fused(ForTallBlocks()));
    ExpectAccurate(Fused(ForLowBlocks()));
    ExpectAccurate(Fused(ForShortBlocks()));
  }
}

TEST_P(FusedFfnTest, WritesItsRowsAndNothingElse) {
  for (const int rows : {1, 15, 64, 100, 128, 130}) {
    SCOPED_TRACE(rows);
    Make({.rows = rows});
    for (const auto& limits :
         {ForTallBlocks(), ForLowBlocks(), ForShortBlocks()}) {
      const std::vector<uint16_t> z = Fused(limits);
      ExpectAccurate(z);
      for (size_t i = 0; i < z.size(); ++i) {
        const bool inside =
            i < size_t{1} * rows * Stride() && i % Stride() < shape_.out_rank;
        if (!inside) {
          ASSERT_EQ(z[i], 0xffff) << i;
        }
      }
    }
  }
}

TEST_P(FusedFfnTest, KnowsEveryActivation) {
  for (const Activation activation :
       {Activation::kNone, Activation::kGelu, Activation::kGeluTanh,
        Activation::kRelu, Activation::kSilu}) {
    SCOPED_TRACE(static_cast<int>(activation));
    for (const bool gated : {false, true}) {
      Make({.rows = 20, .activation = activation, .gated = gated});
      ExpectAccurate(Fused(ForTallBlocks()));
    }
  }
}

TEST_P(FusedFfnTest, BiasesMayBeLeftOut) {
  for (const bool gated : {false, true}) {
    Make({.rows = 20, .bias = false, .gated = gated});
    ExpectAccurate(Fused(ForTallBlocks()));
  }
}

TEST_P(FusedFfnTest, IntermediateMayEndWithinAStep) {
  for (const int intermediate : {32, 64, 160}) {
    Make({.rows = 20, .intermediate = intermediate});
    ExpectAccurate(Fused(ForTallBlocks()));
    ExpectAccurate(Fused(ForLowBlocks()));
    ExpectAccurate(Fused(ForShortBlocks()));
  }
}

TEST_P(FusedFfnTest, BitsDependOnTheRowAlone) {
  Make({.rows = 140, .out_rank = 176});
  const std::vector<uint16_t> all = Rows(Fused(ForTallBlocks()));
  EXPECT_EQ(Rows(Fused(ForLowBlocks())), all);
  EXPECT_EQ(Rows(Fused(ForShortBlocks())), all);
  for (const int row : {0, 63, 127, 139}) {
    const std::vector<uint16_t> one = Fused(ForTallBlocks(), row, 1);
    for (int j = 0; j < shape_.out_rank; ++j) {
      ASSERT_EQ(one[j], all[row * shape_.out_rank + j]) << row << ", " << j;
    }
  }
}

TEST_P(FusedFfnTest, BitsAreThoseOfTwoGemms) {
  for (const bool gated : {false, true}) {
    for (const Activation activation :
         {Activation::kGelu, Activation::kGeluTanh, Activation::kSilu}) {
      Make({.rows = kLarge ? 8000 : 70,
            .in_rank = 112,
            .intermediate = kLarge ? 3072 : 96,
            .out_rank = kLarge ? 320 : 96,
            .activation = activation,
            .gated = gated});
      EXPECT_EQ(Rows(Fused(ForTallBlocks())), TwoGemms());
    }
  }
}

// On a Hopper GPU the tests above ran its kernels, but for ForShortBlocks().
class FusedFfnFamiliesTest : public FusedFfnTest {
 protected:
  void SetUp() override {
    if (!TakesHopperKernels(TestLimits())) {
      GTEST_SKIP() << "no device for the Hopper kernels";
    }
  }

  // All of z, what must not be written included.
  void ExpectSameBits() {
    SCOPED_TRACE(testing::Message()
                 << shape_.rows << " rows, " << shape_.in_rank << " -> "
                 << shape_.intermediate << " -> " << shape_.out_rank
                 << ", activation " << static_cast<int>(shape_.activation));
    const std::vector<uint16_t> hopper = Fused(TestLimits());
    const ScopedPortableKernels portable;
    ASSERT_EQ(hopper, Fused(TestLimits()));
  }
};

TEST_P(FusedFfnFamiliesTest, SameBitsAtRandomShapes) {
  for (int i = 0; i < (kLarge ? 60 : 8); ++i) {
    Make({.rows = random_.Integer(1, kLarge ? 900 : 150),
          .in_rank = 16 * random_.Integer(1, 22),
          .intermediate = 32 * random_.Integer(1, kLarge ? 24 : 8),
          .out_rank = 16 * random_.Integer(1, 20),
          .activation = static_cast<Activation>(random_.Integer(1, 3)),
          .bias = random_.Integer(0, 3) > 0});
    ExpectSameBits();
  }
}

TEST_P(FusedFfnFamiliesTest, SameBitsAtALayersShapeLarge) {
  for (const int rank : {192, 304, 320}) {
    Make({.rows = 16384 + random_.Integer(0, 200),
          .in_rank = rank,
          .intermediate = 3072,
          .out_rank = rank});
    // Again and again: a race shows now and then.
    for (int i = 0; i < 3; ++i) ExpectSameBits();
  }
}

TEST_P(FusedFfnFamiliesTest, SameBitsOfHugeAndTinyValues) {
  Make({.rows = 200, .in_rank = 320, .intermediate = 1536, .out_rank = 320});
  for (float& value : v1_) value *= std::exp2(random_.Integer(-12, 3));
  for (float& value : u2_) value *= std::exp2(random_.Integer(-8, 4));
  v1_ = Rounded(type_, v1_);
  u2_ = Rounded(type_, u2_);
  ExpectSameBits();
}

TEST_P(FusedFfnFamiliesTest, OnlyWhatTheTableHas) {
  if constexpr (kHopperLinked) {
    FusedFfnParams params;
    params.type = type_;
    params.rows = 1;
    params.in_rank = params.out_rank = 320;
    params.intermediate = 3072;
    const DeviceLimits limits = {90, 132, 227 << 10};
    params.activation = Activation::kSilu;
    EXPECT_FALSE(hopper::FusedFfnTakes(params, limits));
    params.activation = Activation::kGelu;
    EXPECT_TRUE(hopper::FusedFfnTakes(params, limits));
    params.in_rank = 448;
    EXPECT_TRUE(hopper::FusedFfnTakes(params, limits));
    params.in_rank = 1024;  // p would take all the memory
    EXPECT_FALSE(hopper::FusedFfnTakes(params, limits));
    params.in_rank = 320;
    params.out_rank = 336;
    EXPECT_FALSE(hopper::FusedFfnTakes(params, limits));
    params.out_rank = 320;
    params.gate = &params;
    EXPECT_FALSE(hopper::FusedFfnTakes(params, limits));
  }
}

INSTANTIATE_TEST_SUITE_P(Types, FusedFfnFamiliesTest,
                         testing::Values(Type::kBF16, Type::kF16));

TEST_P(FusedFfnTest, TakesAnyMultipleOf16) {
  for (int i = 0; i < (kLarge ? 40 : 10); ++i) {
    const Shape shape = {
        .rows = random_.Integer(1, kLarge ? 600 : 150),
        .in_rank = 16 * random_.Integer(1, 20),
        .intermediate = 32 * random_.Integer(1, kLarge ? 20 : 4),
        .out_rank = 16 * random_.Integer(1, 20),
        .activation = static_cast<Activation>(random_.Integer(0, 4)),
        .bias = random_.Integer(0, 1) == 1,
        .gated = random_.Integer(0, 1) == 1};
    SCOPED_TRACE(testing::Message()
                 << shape.rows << " rows, " << shape.in_rank << " -> "
                 << shape.intermediate << " -> " << shape.out_rank);
    Make(shape);
    ExpectAccurate(Fused(TestLimits()));
  }
}

INSTANTIATE_TEST_SUITE_P(Types, FusedFfnTest,
                         testing::Values(Type::kBF16, Type::kF16));

TEST(FusedFfnTableTest, ADeviceTakesWhatItsMemoryHolds) {
  const DeviceLimits ada = {89, 128, 99 << 10};
  const DeviceLimits ampere = {80, 108, 163 << 10};
  const DeviceLimits hopper = {90, 132, 227 << 10};
  for (const bool gated : {false, true}) {
    EXPECT_TRUE(FusedFfnTakes(256, 256, gated, ada));
    EXPECT_TRUE(FusedFfnTakes(384, 320, gated, ampere));
    EXPECT_TRUE(FusedFfnTakes(512, 320, gated, hopper));
  }
  EXPECT_TRUE(FusedFfnTakes(320, 320, false, ada));
  EXPECT_FALSE(FusedFfnTakes(320, 320, true, ada));
  EXPECT_FALSE(FusedFfnTakes(2048, 320, false, hopper));
}

TEST(FusedFfnTableTest, RefusesOtherRanks) {
  const DeviceLimits hopper = {90, 132, 227 << 10};
  for (const auto& [in_rank, out_rank] :
       {std::pair{320, 336}, {320, 8}, {24, 320}, {0, 320}, {320, 0}}) {
    EXPECT_FALSE(FusedFfnTakes(in_rank, out_rank, false, hopper))
        << in_rank << " -> " << out_rank;
  }
}

TEST(FusedFfnTableTest, SaysWhatIsWrong) {
  FusedFfnParams params;
  params.in_rank = 64;
  params.intermediate = 128;
  params.out_rank = 64;
  params.p_stride = params.z_stride = 64;
  EXPECT_EQ(FusedFfn(params, TestLimits(), nullptr), cudaSuccess);  // no rows
  params.z_stride = 60;
  EXPECT_EQ(FusedFfn(params, TestLimits(), nullptr), cudaErrorInvalidValue);
  params.out_rank = 400;
  params.z_stride = 400;
  EXPECT_EQ(FusedFfn(params, TestLimits(), nullptr), cudaErrorNotSupported);
}

}  // namespace
}  // namespace svdserve::cuda
