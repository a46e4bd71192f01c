#include "kernels/cuda/gemm_norm.h"

#include <cmath>
#include <cstdint>
#include <functional>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/hopper/gemm_norm.h"
#include "kernels/cuda/kernel_family.h"
#include "tests/kernels/cuda/device_buffer.h"
#include "tests/reference/ops.h"

namespace svdserve::cuda {
namespace {

constexpr float kEps = 1e-5f;

// Half a layer's end: the residual stream, what is added, weights.
class HalfLayer {
 public:
  using Launcher = std::function<cudaError_t(const GemmNormParams&)>;

  HalfLayer(Type type, int rows, int in, int hidden, Random* random)
      : type_(type), rows_(rows), in_(in), hidden_(hidden) {
    y_ = Rounded(type, random->Normal(size_t{1} * rows * in));
    x_ = Rounded(type, random->Normal(size_t{1} * rows * hidden));
    w_ = Rounded(type, random->Normal(size_t{1} * hidden * in,
                                      1 / std::sqrt(float(in))));
    bias_ = random->Normal(hidden);
    gamma_ = random->Normal(hidden);
    beta_ = random->Normal(hidden);
  }

  void DropBias() { biased_ = false; }
  void GiveMemoryForTheUpdate() { has_update_ = true; }
  void SetResidual(float x) { x_.assign(x_.size(), x); }

  std::vector<uint16_t> Run() const { return RunRows(0, rows_); }
  // Rows [first, first + count), alone.
  std::vector<uint16_t> RunRows(int first, int count) const {
    std::vector<uint16_t> x;
    EXPECT_TRUE(Ran(Launch(first, count, -1, TestLimits(), &x)));
    return x;
  }
  std::vector<uint16_t> RunBy(const Launcher& launcher) const {
    std::vector<uint16_t> x;
    EXPECT_TRUE(Ran(Launch(0, rows_, launcher, &x)));
    return x;
  }
  // False if the tile is for other widths or devices.
  bool RunTile(int tile, std::vector<uint16_t>* x) const {
    DeviceLimits limits = TestLimits();
    if (!kOnDevice) limits.shared_bytes = 227 << 10;  // most of any device
    const cudaError_t error = Launch(0, rows_, tile, limits, x);
    if (error == cudaErrorNotSupported) return false;
    EXPECT_TRUE(Ran(error));
    return true;
  }
  cudaError_t RunOn(const DeviceLimits& limits,
                    std::vector<uint16_t>* x) const {
    return Launch(0, rows_, -1, limits, x);
  }

  std::vector<double> Exact() const {
    using reference::ExactF64;
    reference::Matrix<ExactF64> sum(rows_, hidden_);
    for (int i = 0; i < rows_; ++i) {
      for (int j = 0; j < hidden_; ++j) {
        double value = x_[i * hidden_ + j];
        if (biased_) value += bias_[j];
        for (int k = 0; k < in_; ++k) {
          value += double{y_[i * in_ + k]} * w_[j * in_ + k];
        }
        sum.row(i)[j] = value;
      }
    }
    return reference::LayerNorm<ExactF64>(sum, {gamma_.begin(), gamma_.end()},
                                          {beta_.begin(), beta_.end()}, kEps)
        .values;
  }

  double Error(const std::vector<uint16_t>& x) const {
    return RelativeError(Decode(type_, x), Exact());
  }

 private:
  // Waits for the result.
  cudaError_t Launch(int first, int count, int tile, const DeviceLimits& limits,
                     std::vector<uint16_t>* result) const {
    return Launch(
        first, count,
        [&](const GemmNormParams& params) {
          return tile < 0 ? GemmNorm(params, limits, nullptr)
                          : GemmNormWithTile(tile, params, limits, nullptr);
        },
        result);
  }
  cudaError_t Launch(int first, int count, const Launcher& launcher,
                     std::vector<uint16_t>* result) const {
    // Rows of y end in NaN, as do y and x.
    const int y_stride = in_ + 8;
    std::vector<float> y(size_t{1} * (count + 1) * y_stride, NAN);
    for (int i = 0; i < count * in_; ++i) {
      y[i / in_ * y_stride + i % in_] = y_[first * in_ + i];
    }
    std::vector<float> x(size_t{1} * (count + 1) * hidden_, NAN);
    for (int i = 0; i < count * hidden_; ++i) x[i] = x_[first * hidden_ + i];
    const DeviceBuffer<uint16_t> y_device(Encode(type_, y));
    const DeviceBuffer<uint16_t> w_device(Encode(type_, w_));
    const DeviceBuffer<float> bias_device(bias_);
    const DeviceBuffer<float> gamma_device(gamma_);
    const DeviceBuffer<float> beta_device(beta_);
    const std::vector<uint16_t> before = Encode(type_, x);
    DeviceBuffer<uint16_t> x_device(before);
    GemmNormParams params;
    params.type = type_;
    params.rows = count;
    params.in = in_;
    params.hidden = hidden_;
    params.y = y_device.data();
    params.y_stride = y_stride;
    params.w = w_device.data();
    params.bias = biased_ ? bias_device.data() : nullptr;
    params.gamma = gamma_device.data();
    params.beta = beta_device.data();
    params.eps = kEps;
    params.x = x_device.data();
    DeviceBuffer<float> update(size_t{1} * count * hidden_);
    if (has_update_) params.update = update.data();
    const cudaError_t error = launcher(params);
    if (error != cudaSuccess) return error;
    EXPECT_TRUE(Ran(error));
    *result = x_device.ToHost();
    for (size_t i = size_t{1} * count * hidden_; i < result->size(); ++i) {
      EXPECT_EQ((*result)[i], before[i]) << "written: " << i;
    }
    result->resize(size_t{1} * count * hidden_);
    return cudaSuccess;
  }

  Type type_;
  int rows_, in_, hidden_;
  bool biased_ = true;
  bool has_update_ = false;
  std::vector<float> y_, x_, w_, bias_, gamma_, beta_;
};

class GemmNormTest : public testing::TestWithParam<std::tuple<Type, int>> {
 protected:
  HalfLayer Make(int rows, int in) {
    return HalfLayer(type_, rows, in, hidden_, &random_);
  }
  double Tolerance() const { return type_ == Type::kBF16 ? 2.5e-3 : 4e-4; }

  Random random_;
  Type type_ = std::get<0>(GetParam());
  int hidden_ = std::get<1>(GetParam());
};

TEST_P(GemmNormTest, MatchesTheReferenceWhereShapesEndInsideTiles) {
  for (const auto& [rows, in] : {std::pair(1, 8), {19, 40}, {3, 136}}) {
    const HalfLayer half_layer = Make(rows, in);
    EXPECT_LT(half_layer.Error(half_layer.Run()), Tolerance()) << rows;
  }
}

TEST_P(GemmNormTest, GoesWithoutABias) {
  HalfLayer half_layer = Make(5, 48);
  half_layer.DropBias();
  EXPECT_LT(half_layer.Error(half_layer.Run()), Tolerance());
}

// Squares are of deviations: a mean far from zero costs no precision of theirs.
TEST_P(GemmNormTest, AMeanFarFromZeroIsSubtractedFirst) {
  HalfLayer half_layer = Make(2, 32);
  half_layer.SetResidual(1024);
  EXPECT_LT(half_layer.Error(half_layer.Run()), Tolerance());
}

TEST_P(GemmNormTest, AllTilesGiveTheSameBits) {
  const HalfLayer half_layer = Make(67, 72);
  std::vector<uint16_t> first;
  int tiles = 0;
  for (int tile = 0; tile < kGemmNormTiles; ++tile) {
    std::vector<uint16_t> x;
    if (!half_layer.RunTile(tile, &x)) continue;
    if (tiles++ == 0) first = x;
    EXPECT_EQ(x, first) << tile;
  }
  EXPECT_GE(tiles, kOnDevice ? 1 : 2);
  EXPECT_LT(half_layer.Error(first), Tolerance());
}

TEST_P(GemmNormTest, TwoKernelsGiveTheBitsOfOne) {
  for (int rows : {1, 37}) {
    HalfLayer half_layer = Make(rows, 72);
    const std::vector<uint16_t> bits = half_layer.Run();
    half_layer.GiveMemoryForTheUpdate();
    EXPECT_EQ(half_layer.Run(), bits) << rows;
  }
}

TEST_P(GemmNormTest, ARowsBitsDependOnThatRowAlone) {
  const int rows = kLarge ? 5000 : 40;
  const HalfLayer half_layer = Make(rows, 24);
  const std::vector<uint16_t> all = half_layer.Run();
  for (int row : {0, rows / 2, rows - 1}) {
    const auto first = all.begin() + row * hidden_;
    EXPECT_EQ(half_layer.RunRows(row, 1),
              std::vector<uint16_t>(first, first + hidden_));
  }
}

TEST_P(GemmNormTest, DevicesOfLittleSharedMemoryGiveTheSameBits) {
  const HalfLayer half_layer = Make(21, 56);
  DeviceLimits small = TestLimits();
  small.shared_bytes = 99 << 10;
  std::vector<uint16_t> x;
  ASSERT_EQ(half_layer.RunOn(small, &x), cudaSuccess);
  EXPECT_EQ(x, half_layer.Run());
}

TEST_P(GemmNormTest, ModelShapesMatchTheReference) {
  if (!kLarge) GTEST_SKIP() << "large shapes run on a GPU";
  for (const auto& [rows, in] :
       {std::pair(300, 192), {517, 320}, {130, 768}, {70, 3072}}) {
    const HalfLayer half_layer = Make(rows, in);
    EXPECT_LT(half_layer.Error(half_layer.Run()), Tolerance()) << in;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, GemmNormTest,
    testing::Combine(testing::Values(Type::kBF16, Type::kF16),
                     testing::Values(32, 128, 288, 384, 512, 768, 1024)));

// On a Hopper GPU the tests above ran its kernels where rows are many.
class GemmNormFamiliesTest : public testing::TestWithParam<Type> {
 protected:
  void SetUp() override {
    if (!TakesHopperKernels(TestLimits())) {
      GTEST_SKIP() << "no device for the Hopper kernels";
    }
  }

  void ExpectSameBits(int rows, int in, int hidden, bool biased = true) {
    if constexpr (kHopperLinked) {
      SCOPED_TRACE(testing::Message()
                   << rows << " rows, " << in << " -> " << hidden);
      HalfLayer half_layer(GetParam(), rows, in, hidden, &random_);
      if (!biased) half_layer.DropBias();
      const std::vector<uint16_t> bits =
          half_layer.RunBy([](const GemmNormParams& params) {
            return hopper::GemmNorm(params, TestLimits(), nullptr);
          });
      const ScopedPortableKernels portable;
      EXPECT_EQ(half_layer.Run(), bits);
    }
  }

  Random random_;
};

TEST_P(GemmNormFamiliesTest, SameBitsWhereRowsEndInsideTiles) {
  for (int hidden : {384, 768, 1024}) {
    for (int rows : {1, 63, 64, 65, 127, 129, 1000}) {
      ExpectSameBits(rows, 200, hidden, rows != 65);
    }
    for (int in : {8, 64, 96, 192, 256, 320}) ExpectSameBits(130, in, hidden);
  }
}

// Weights pass through the ring.
TEST_P(GemmNormFamiliesTest, SameBitsOfLongSums) {
  for (int hidden : {384, 768, 1024}) {
    for (int rows : {1, 64, 127, 129, 300}) {
      ExpectSameBits(rows, 584, hidden, rows != 64);
    }
  }
}

// Blocks have many turns each; a race shows now and then.
TEST_P(GemmNormFamiliesTest, SameBitsAtModelShapesLarge) {
  ExpectSameBits(16400, 160, 384);
  ExpectSameBits(16400, 192, 768);
  ExpectSameBits(16400, 320, 768);
  ExpectSameBits(9000, 256, 1024);
  ExpectSameBits(9000, 768, 768);
  ExpectSameBits(5000, 3072, 768);
  ExpectSameBits(5000, 1536, 384);
  ExpectSameBits(5000, 4096, 1024);
}

TEST_P(GemmNormFamiliesTest, OnlyWhatFits) {
  if constexpr (kHopperLinked) {
    const DeviceLimits limits = {90, 132, 227 << 10};
    GemmNormParams params;
    params.rows = 16384;
    params.in = 320;
    params.hidden = 768;
    EXPECT_TRUE(hopper::GemmNormHas(params, limits));
    EXPECT_FALSE(hopper::GemmNormHas(params, {90, 132, 99 << 10}));
    params.hidden = 512;
    EXPECT_FALSE(hopper::GemmNormHas(params, limits));
    // Long sums, unless more blocks may share few rows.
    params.hidden = 768;
    params.in = 3072;
    EXPECT_TRUE(hopper::GemmNormHas(params, limits));
    float update = 0;
    params.update = &update;
    EXPECT_FALSE(hopper::GemmNormHas(params, limits));
    params.in = 320;
    EXPECT_TRUE(hopper::GemmNormHas(params, limits));
  }
}

INSTANTIATE_TEST_SUITE_P(Types, GemmNormFamiliesTest,
                         testing::Values(Type::kBF16, Type::kF16));

class GemmNormLaunchTest : public testing::Test {
 protected:
  GemmNormLaunchTest() : memory_(64 * 8), vectors_(64) {
    params_.rows = 1;
    params_.in = params_.y_stride = 8;
    params_.hidden = 32;
    params_.y = params_.w = memory_.data();
    params_.gamma = params_.beta = vectors_.data();
    params_.x = memory_.data();
  }

  DeviceBuffer<uint16_t> memory_;
  DeviceBuffer<float> vectors_;
  GemmNormParams params_;
};

TEST_F(GemmNormLaunchTest, LaunchesNothingForNoRows) {
  params_.rows = 0;
  EXPECT_EQ(GemmNorm(params_, TestLimits(), nullptr), cudaSuccess);
}

TEST_F(GemmNormLaunchTest, RefusesWhatMakesNoSense) {
  const auto refuses = [this](auto GemmNormParams::*field, auto value) {
    GemmNormParams params = params_;
    params.*field = value;
    return GemmNorm(params, TestLimits(), nullptr) == cudaErrorInvalidValue;
  };
  EXPECT_TRUE(refuses(&GemmNormParams::rows, -1));
  EXPECT_TRUE(refuses(&GemmNormParams::in, 12));
  EXPECT_TRUE(refuses(&GemmNormParams::hidden, 48));
  EXPECT_TRUE(refuses(&GemmNormParams::hidden, 1056));
  EXPECT_TRUE(refuses(&GemmNormParams::y_stride, 0));
  EXPECT_TRUE(refuses(&GemmNormParams::gamma, nullptr));
  EXPECT_TRUE(refuses(&GemmNormParams::x, memory_.data() + 1));
}

TEST_F(GemmNormLaunchTest, RefusesDevicesThatNoTileFits) {
  DeviceLimits limits = TestLimits();
  limits.shared_bytes = 1 << 10;
  EXPECT_EQ(GemmNorm(params_, limits, nullptr), cudaErrorNotSupported);
}

}  // namespace
}  // namespace svdserve::cuda
