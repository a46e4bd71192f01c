#include "kernels/cuda/gemm.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/hopper/gemm.h"
#include "kernels/cuda/hopper/split_gemm.h"
#include "kernels/cuda/kernel_family.h"
#include "tests/kernels/cuda/device_buffer.h"
#include "tests/reference/ops.h"

namespace svdserve::cuda {
namespace {

constexpr Activation kActivations[] = {Activation::kNone, Activation::kGelu,
                                       Activation::kGeluTanh, Activation::kRelu,
                                       Activation::kSilu};

double ExactActivation(Activation activation, double x) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kGelu:
      return reference::Gelu(x);
    case Activation::kGeluTanh:
      return reference::GeluTanh(x);
    case Activation::kRelu:
      return std::fmax(x, 0);
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
  }
  return x;
}

struct Shape {
  int rows = 0;
  int in = 0;
  int out = 0;
  bool gated = false;
};

// x, weights and biases; x and y are columns of wider matrices.
class Product {
 public:
  using Launch = std::function<cudaError_t(const GemmParams&)>;

  Product(Type type, const Shape& shape, Random* random)
      : type_(type), shape_(shape) {
    const size_t weights = size_t{1} * shape.out * shape.in;
    const float deviation = 1 / std::sqrt(float(shape.in));
    x_ = Rounded(type, random->Normal(size_t{1} * shape.rows * shape.in));
    w_ = Rounded(type, random->Normal(weights, deviation));
    bias_ = random->Normal(shape.out);
    gate_ = Rounded(type, random->Normal(weights, deviation));
    gate_bias_ = random->Normal(shape.out);
  }

  void Activate(Activation activation) { activation_ = activation; }
  void DropBiases() { biased_ = false; }

  std::vector<uint16_t> Run() const { return RunRows(0, shape_.rows, -1); }
  std::vector<uint16_t> RunTile(int tile) const {
    return RunRows(0, shape_.rows, tile);
  }
  // Rows [first, first + count), alone.
  std::vector<uint16_t> RunRows(int first, int count, int tile) const {
    return RunRows(first, count, [tile](const GemmParams& params) {
      return tile < 0 ? Gemm(params, TestLimits(), nullptr)
                      : GemmWithTile(tile, params, TestLimits(), nullptr);
    });
  }
  std::vector<uint16_t> RunBy(const Launch& launch) const {
    return RunRows(0, shape_.rows, launch);
  }
  std::vector<uint16_t> RunRows(int first, int count,
                                const Launch& launch) const {
    // Rows end in NaN, and so does the matrix.
    const int x_stride = shape_.in + 8;
    const int y_stride = shape_.out + 16;
    std::vector<float> x(size_t{1} * (count + 1) * x_stride, NAN);
    for (int i = 0; i < count * shape_.in; ++i) {
      x[i / shape_.in * x_stride + i % shape_.in] = x_[first * shape_.in + i];
    }
    const DeviceBuffer<uint16_t> x_device(Encode(type_, x));
    const DeviceBuffer<uint16_t> w_device(Encode(type_, w_));
    const DeviceBuffer<uint16_t> gate_device(Encode(type_, gate_));
    const DeviceBuffer<float> bias_device(bias_);
    const DeviceBuffer<float> gate_bias_device(gate_bias_);
    DeviceBuffer<uint16_t> y_device(size_t{1} * (count + 1) * y_stride);
    const std::vector<uint16_t> before = y_device.ToHost();
    GemmParams params;
    params.type = type_;
    params.rows = count;
    params.in = shape_.in;
    params.out = shape_.out;
    params.x = x_device.data();
    params.x_stride = x_stride;
    params.w = w_device.data();
    params.bias = biased_ ? bias_device.data() : nullptr;
    params.activation = activation_;
    params.gate = shape_.gated ? gate_device.data() : nullptr;
    params.gate_bias =
        shape_.gated && biased_ ? gate_bias_device.data() : nullptr;
    params.y = y_device.data();
    params.y_stride = y_stride;
    EXPECT_TRUE(Ran(launch(params)));
    return Kept(before, y_device.ToHost(), count, y_stride);
  }

  // Without bias and activation, of parts of k, whole steps of 64 each, which
  // are added in order.
  std::vector<uint16_t> SumOfParts(int parts) const {
    constexpr int kDepth = 64;
    const int steps = (shape_.in + kDepth - 1) / kDepth;
    const int depth = (steps + parts - 1) / parts * kDepth;
    std::vector<float> total(size_t{1} * shape_.rows * shape_.out);
    for (int first = 0; first < shape_.in; first += depth) {
      const std::vector<float> sums =
          SumsOfColumns(first, std::min(depth, shape_.in - first));
      for (size_t i = 0; i < total.size(); ++i) total[i] += sums[i];
    }
    return Encode(type_, total);
  }

  std::vector<double> Exact() const {
    const std::vector<double> up = ExactSums(w_, bias_);
    std::vector<double> y(up.size());
    for (size_t i = 0; i < y.size(); ++i) {
      y[i] = ExactActivation(activation_, up[i]);
    }
    if (!shape_.gated) return y;
    const std::vector<double> gates = ExactSums(gate_, gate_bias_);
    for (size_t i = 0; i < y.size(); ++i) y[i] *= gates[i];
    return y;
  }

  double Error(const std::vector<uint16_t>& y) const {
    return RelativeError(Decode(type_, y), Exact());
  }

 private:
  // Of some of k.
  std::vector<float> SumsOfColumns(int first, int count) const {
    const auto columns = [&](const std::vector<float>& matrix) {
      std::vector<float> kept;
      for (size_t at = first; at < matrix.size(); at += shape_.in) {
        kept.insert(kept.end(), matrix.begin() + at,
                    matrix.begin() + at + count);
      }
      return Encode(type_, kept);
    };
    const DeviceBuffer<uint16_t> x(columns(x_));
    const DeviceBuffer<uint16_t> w(columns(w_));
    DeviceBuffer<float> sums(size_t{1} * shape_.rows * shape_.out);
    EXPECT_TRUE(Ran(Gemm({.type = type_,
                          .rows = shape_.rows,
                          .in = count,
                          .out = shape_.out,
                          .x = x.data(),
                          .x_stride = count,
                          .w = w.data(),
                          .sums = sums.data()},
                         TestLimits(), nullptr)));
    return sums.ToHost();
  }
  std::vector<double> ExactSums(const std::vector<float>& w,
                                const std::vector<float>& bias) const {
    std::vector<double> sums(size_t{1} * shape_.rows * shape_.out);
    for (int i = 0; i < shape_.rows; ++i) {
      for (int j = 0; j < shape_.out; ++j) {
        double sum = biased_ ? bias[j] : 0;
        for (int k = 0; k < shape_.in; ++k) {
          sum += double{x_[i * shape_.in + k]} * w[j * shape_.in + k];
        }
        sums[i * shape_.out + j] = sum;
      }
    }
    return sums;
  }

  // The result's part of the matrix; nothing else may have changed.
  std::vector<uint16_t> Kept(const std::vector<uint16_t>& before,
                             const std::vector<uint16_t>& after, int count,
                             int y_stride) const {
    std::vector<uint16_t> y;
    for (size_t i = 0; i < after.size(); ++i) {
      if (i % y_stride < static_cast<size_t>(shape_.out) &&
          i / y_stride < static_cast<size_t>(count)) {
        y.push_back(after[i]);
      } else {
        EXPECT_EQ(after[i], before[i]) << "written: " << i;
      }
    }
    return y;
  }

  Type type_;
  Shape shape_;
  Activation activation_ = Activation::kNone;
  bool biased_ = true;
  std::vector<float> x_, w_, bias_, gate_, gate_bias_;
};

bool IsGatedTile(int tile) { return tile == 0 || tile == 3; }

class GemmTest : public testing::TestWithParam<Type> {
 protected:
  Product Make(const Shape& shape) {
    return Product(GetParam(), shape, &random_);
  }
  // What one rounding adds at most: few values need not come near the mean.
  double Tolerance() const {
    return GetParam() == Type::kBF16 ? 0x1p-8 : 0x1p-11;
  }

  Random random_;
};

TEST_P(GemmTest, MatchesTheReferenceWhereShapesEndInsideTiles) {
  for (const Shape& shape : {Shape{1, 8, 8}, Shape{3, 40, 24},
                             Shape{33, 72, 136}, Shape{70, 264, 40}}) {
    const Product product = Make(shape);
    EXPECT_LT(product.Error(product.Run()), Tolerance()) << shape.rows;
  }
}

TEST_P(GemmTest, ActivatesInOnePass) {
  for (Activation activation : kActivations) {
    for (bool gated : {false, true}) {
      Product product = Make({19, 48, 72, gated});
      product.Activate(activation);
      EXPECT_LT(product.Error(product.Run()), Tolerance())
          << static_cast<int>(activation) << gated;
    }
  }
}

TEST_P(GemmTest, GoesWithoutBiases) {
  for (bool gated : {false, true}) {
    Product product = Make({5, 64, 40, gated});
    product.DropBiases();
    EXPECT_LT(product.Error(product.Run()), Tolerance());
  }
}

// Two blocks each way of the largest tile, the second of each cut short.
TEST_P(GemmTest, AllTilesGiveTheSameBits) {
  for (bool gated : {false, true}) {
    Product product = Make({261, 200, 136, gated});
    product.Activate(Activation::kGelu);
    const std::vector<uint16_t> bits = product.RunTile(3);
    EXPECT_LT(product.Error(bits), Tolerance());
    for (int tile = 0; tile < kGemmTiles; ++tile) {
      if (gated && !IsGatedTile(tile)) continue;
      EXPECT_EQ(product.RunTile(tile), bits) << tile;
    }
  }
}

TEST_P(GemmTest, ARowsBitsDependOnThatRowAlone) {
  const int rows = kLarge ? 1000 : 70;
  Product product = Make({rows, 136, 48});
  product.Activate(Activation::kGeluTanh);
  const std::vector<uint16_t> all = product.Run();
  for (int row : {0, 1, rows / 2, rows - 1}) {
    const auto first = all.begin() + row * 48;
    EXPECT_EQ(product.RunRows(row, 1, -1),
              std::vector<uint16_t>(first, first + 48));
  }
}

TEST_P(GemmTest, ModelShapesMatchTheReferenceByAllTiles) {
  if (!kLarge) GTEST_SKIP() << "large shapes run on a GPU";
  for (const Shape& shape :
       {Shape{300, 768, 576}, Shape{513, 192, 768}, Shape{129, 3072, 320},
        Shape{777, 320, 3072}, Shape{260, 768, 384, true}}) {
    Product product = Make(shape);
    product.Activate(Activation::kGelu);
    const std::vector<uint16_t> bits = product.Run();
    EXPECT_LT(product.Error(bits), Tolerance()) << shape.in;
    for (int tile = 0; tile < kGemmTiles; ++tile) {
      if (shape.gated && !IsGatedTile(tile)) continue;
      EXPECT_EQ(product.RunTile(tile), bits) << shape.in << " by " << tile;
    }
  }
}

// x, W and y of products that go in one launch.
struct Part {
  Part(Type type, int rows, int in, int out, Random* random)
      : x(Encode(type, random->Normal(size_t{1} * rows * in))),
        w(Encode(type, random->Normal(size_t{1} * out * in))),
        y(size_t{1} * rows * out) {
    params.type = type;
    params.rows = rows;
    params.in = in;
    params.out = out;
    params.x = x.data();
    params.x_stride = in;
    params.w = w.data();
    params.y = y.data();
    params.y_stride = out;
  }

  DeviceBuffer<uint16_t> x, w, y;
  GemmParams params;
};

// On a Hopper GPU the tests above ran its kernels wherever rows are many and no
// tile is asked for.
class GemmFamiliesTest : public GemmTest {
 protected:
  void SetUp() override {
    if (!TakesHopperKernels(TestLimits())) {
      GTEST_SKIP() << "no device for the Hopper kernels";
    }
  }

  // All of y, what must not be written included, by each tile.
  void ExpectSameBits(const Shape& shape, Activation activation, bool biased) {
    if constexpr (kHopperLinked) {
      SCOPED_TRACE(testing::Message()
                   << shape.rows << " rows, " << shape.in << " -> " << shape.out
                   << ", activation " << static_cast<int>(activation));
      Product product = Make(shape);
      product.Activate(activation);
      if (!biased) product.DropBiases();
      const std::vector<uint16_t> bits = product.RunTile(3);
      for (int tile = 0; tile < hopper::kGemmTiles; ++tile) {
        EXPECT_EQ(product.RunBy([tile](const GemmParams& params) {
          return hopper::GemmWithTile(tile, params, TestLimits(), nullptr);
        }),
                  bits)
            << "tile " << tile;
      }
    }
  }

  void ExpectSameBitsOfGroup(int rows, const std::vector<int>& ins, int out) {
    if constexpr (kHopperLinked) {
      std::vector<std::unique_ptr<Part>> parts;
      std::vector<GemmParams> params;
      std::vector<std::vector<uint16_t>> bits;
      for (int in : ins) {
        parts.push_back(
            std::make_unique<Part>(GetParam(), rows, in, out, &random_));
        params.push_back(parts.back()->params);
        EXPECT_TRUE(Ran(GemmWithTile(3, params.back(), TestLimits(), nullptr)));
        bits.push_back(parts.back()->y.ToHost());
      }
      const int count = static_cast<int>(params.size());
      for (int tile = 0; tile < hopper::kGemmTiles; ++tile) {
        std::vector<DeviceBuffer<uint16_t>> results;
        for (GemmParams& one : params) {
          results.emplace_back(size_t{1} * rows * out);
          one.y = results.back().data();
        }
        EXPECT_TRUE(Ran(hopper::GemmGroupWithTile(tile, params.data(), count,
                                                  TestLimits(), nullptr)));
        for (int i = 0; i < count; ++i) {
          EXPECT_EQ(results[i].ToHost(), bits[i])
              << rows << " rows, part " << i << " by tile " << tile;
        }
      }
    }
  }
};

TEST_P(GemmFamiliesTest, SameBitsWhereRowsEndInsideTiles) {
  for (int rows : {1, 63, 64, 65, 127, 128, 129, 1000}) {
    ExpectSameBits({rows, 200, 136}, Activation::kGelu, true);
  }
}

TEST_P(GemmFamiliesTest, SameBitsAtRandomShapes) {
  for (int i = 0; i < 20; ++i) {
    ExpectSameBits({random_.Integer(1, 700), 8 * random_.Integer(1, 100),
                    8 * random_.Integer(1, 100)},
                   kActivations[i % 5], random_.Integer(0, 3) > 0);
  }
}

// Tiles of parts whose sums are of different lengths follow one another on a
// multiprocessor.
TEST_P(GemmFamiliesTest, SameBitsOfGroups) {
  ExpectSameBitsOfGroup(70, {40, 136, 264}, 200);
  ExpectSameBitsOfGroup(260, {64, 8}, 72);
}

TEST_P(GemmFamiliesTest, SameBitsOfGroupsLarge) {
  ExpectSameBitsOfGroup(1000, {192, 192, 192}, 768);
  ExpectSameBitsOfGroup(4100, {192, 768, 64}, 768);
}

// Multiprocessors have several tiles each, which is where stages are waited for
// and memory is written again; a race shows now and then.
TEST_P(GemmFamiliesTest, SameBitsAtModelShapesLarge) {
  ExpectSameBits({4100, 320, 3072}, Activation::kGelu, true);
  ExpectSameBits({16400, 192, 768}, Activation::kNone, true);
  ExpectSameBits({9000, 768, 576}, Activation::kNone, false);
  ExpectSameBits({2000, 3072, 320}, Activation::kNone, true);
}

TEST_P(GemmFamiliesTest, TheLauncherTakesThemForManyRows) {
  if constexpr (kHopperLinked) {
    GemmParams params;
    params.rows = 4096;
    params.in = params.out = 768;
    EXPECT_TRUE(hopper::GemmTakes(params, TestLimits()));
    params.gate = &params;
    EXPECT_FALSE(hopper::GemmTakes(params, TestLimits()));
    params.gate = nullptr;
    params.rows = 16;
    EXPECT_FALSE(hopper::GemmTakes(params, TestLimits()));
    DeviceLimits small = TestLimits();
    small.shared_bytes = 99 << 10;
    params.rows = 4096;
    EXPECT_FALSE(hopper::GemmTakes(params, small));
  }
  Product product = Make({4100, 136, 72});
  const std::vector<uint16_t> bits = product.Run();
  const ScopedPortableKernels portable;
  EXPECT_EQ(product.Run(), bits);
}

// Where it is split, rows have the same bits alone as with others, too.
TEST_P(GemmTest, ASumIsSplitWhereTheLauncherSaysSo) {
  for (const int in : {1000, 1096}) {
    for (const bool biased : {false, true}) {
      Product product = Make({20, in, 40});
      if (!biased) product.DropBiases();
      bool splits = false;
      const auto launch = [&splits](GemmParams params) {
        params.split_sum = true;
        splits = SplitsSum(params, TestLimits());
        return Gemm(params, TestLimits(), nullptr);
      };
      const std::vector<uint16_t> bits = product.RunBy(launch);
      EXPECT_EQ(splits,
                TakesHopperKernels(TestLimits()) && in > 1024 && !biased);
      EXPECT_EQ(bits,
                splits ? product.SumOfParts(hopper::kSumParts) : product.Run());
      EXPECT_EQ(product.RunRows(17, 1, launch),
                std::vector<uint16_t>(bits.begin() + 17 * 40,
                                      bits.begin() + 18 * 40));
    }
  }
}

// Split by hand, on Hopper.
class GemmSplitTest : public GemmTest {
 protected:
  void SetUp() override {
    if (!TakesHopperKernels(TestLimits())) {
      GTEST_SKIP() << "no device for the kernel";
    }
  }

  Product MakePlain(const Shape& shape) {
    Product product = Make(shape);
    product.DropBiases();
    return product;
  }
  static std::vector<uint16_t> RunBy(const hopper::Split& split,
                                     const Product& product) {
    if constexpr (kHopperLinked) {
      return product.RunBy([&split](const GemmParams& params) {
        return hopper::SplitGemmBy(split, params, TestLimits(), nullptr);
      });
    }
    return {};
  }
  // By all tiles in clusters of all sizes.
  void ExpectPartsInOrder(const Shape& shape) {
    SCOPED_TRACE(testing::Message()
                 << shape.rows << " rows, " << shape.in << " -> " << shape.out);
    const Product product = MakePlain(shape);
    for (int blocks : hopper::kSplitBlocks) {
      const std::vector<uint16_t> bits = product.SumOfParts(blocks);
      for (int columns : hopper::kSplitColumns) {
        EXPECT_EQ(RunBy({columns, blocks}, product), bits)
            << columns << " columns, " << blocks << " blocks";
      }
    }
  }
};

TEST_P(GemmSplitTest, PartsOfEveryTileAreAddedInOrder) {
  ExpectPartsInOrder({65, 1096, 136});
}

TEST_P(GemmSplitTest, PartsOfAnyRowsAreAddedInOrder) {
  for (int rows : {1, 7, 16, 33, 64, 130}) ExpectPartsInOrder({rows, 264, 72});
}

// Down to sums that leave blocks without a part, and results that leave some
// without rows.
TEST_P(GemmSplitTest, PartsOfAnyWidthsAreAddedInOrder) {
  ExpectPartsInOrder({3, 8, 8});
  ExpectPartsInOrder({20, 72, 40});
  ExpectPartsInOrder({70, 520, 328});
  for (int i = 0; i < 5; ++i) {
    ExpectPartsInOrder({random_.Integer(1, 200), 8 * random_.Integer(1, 300),
                        8 * random_.Integer(1, 50)});
  }
}

// Stages are written again, and multiprocessors have several blocks.
TEST_P(GemmSplitTest, PartsOfModelShapesAreAddedInOrderLarge) {
  ExpectPartsInOrder({128, 3072, 320});
  ExpectPartsInOrder({200, 4096, 320});
  ExpectPartsInOrder({1000, 1536, 160});
}

TEST_P(GemmSplitTest, ErrsAtMostTwiceAsMuchAsTheUnsplitSum) {
  const Product product = MakePlain({33, 3072, 64});
  const double error = product.Error(product.Run());
  for (int blocks : hopper::kSplitBlocks) {
    EXPECT_LE(product.Error(RunBy({32, blocks}, product)), 2 * error) << blocks;
  }
}

// A race shows now and then.
TEST_P(GemmSplitTest, TheSameBitsTimeAfterTime) {
  const Product product = MakePlain({150, 3072, 320});
  for (const hopper::Split& split :
       {hopper::Split{32, 8}, hopper::Split{80, 4}, hopper::Split{64, 2}}) {
    const std::vector<uint16_t> bits = product.SumOfParts(split.blocks);
    for (int i = 0; i < 30; ++i) ASSERT_EQ(RunBy(split, product), bits) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, GemmSplitTest,
                         testing::Values(Type::kBF16, Type::kF16),
                         testing::PrintToStringParamName());

INSTANTIATE_TEST_SUITE_P(Types, GemmFamiliesTest,
                         testing::Values(Type::kBF16, Type::kF16),
                         testing::PrintToStringParamName());

INSTANTIATE_TEST_SUITE_P(Types, GemmTest,
                         testing::Values(Type::kBF16, Type::kF16),
                         testing::PrintToStringParamName());

TEST_P(GemmTest, AGroupGivesTheBitsOfItsParts) {
  for (int rows : {20, kLarge ? 5000 : 20}) {
    std::vector<std::unique_ptr<Part>> parts;
    std::vector<GemmParams> params;
    std::vector<std::vector<uint16_t>> apart;
    for (int in : {40, 136, 64}) {
      parts.push_back(
          std::make_unique<Part>(GetParam(), rows, in, 72, &random_));
      const Part& part = *parts.back();
      params.push_back(part.params);
      EXPECT_TRUE(Ran(Gemm(part.params, TestLimits(), nullptr)));
      apart.push_back(part.y.ToHost());
      DeviceBuffer<uint16_t> blank(apart.back().size());
      params.back().y = blank.data();
      EXPECT_TRUE(Ran(GemmGroup(&params.back(), 1, TestLimits(), nullptr)));
      EXPECT_EQ(blank.ToHost(), apart.back()) << "alone, in " << in;
      params.back().y = part.params.y;
    }
    EXPECT_TRUE(Ran(GemmGroup(params.data(), 3, TestLimits(), nullptr)));
    for (size_t i = 0; i < parts.size(); ++i) {
      EXPECT_EQ(parts[i]->y.ToHost(), apart[i]) << i;
    }
  }
}

TEST_P(GemmTest, SumsAreTheResultBeforeItIsRounded) {
  const int rows = 35, out = 40;
  const Part part(GetParam(), rows, 72, out, &random_);
  EXPECT_TRUE(Ran(Gemm(part.params, TestLimits(), nullptr)));
  DeviceBuffer<float> sums(size_t{1} * rows * out);
  GemmParams params = part.params;
  params.y = nullptr;
  params.sums = sums.data();
  EXPECT_TRUE(Ran(Gemm(params, TestLimits(), nullptr)));
  EXPECT_EQ(Encode(GetParam(), sums.ToHost()), part.y.ToHost());
}

class GemmLaunchTest : public testing::Test {
 protected:
  GemmLaunchTest() : memory_(16 * 64) {
    params_.rows = 1;
    params_.in = params_.out = 8;
    params_.x_stride = params_.y_stride = 8;
    params_.x = params_.w = params_.y = memory_.data();
  }

  DeviceBuffer<uint16_t> memory_;
  GemmParams params_;
};

TEST_F(GemmLaunchTest, LaunchesNothingForNoRows) {
  params_.rows = 0;
  EXPECT_EQ(Gemm(params_, TestLimits(), nullptr), cudaSuccess);
}

TEST_F(GemmLaunchTest, RefusesWhatMakesNoSense) {
  const auto refuses = [this](auto GemmParams::*field, auto value) {
    GemmParams params = params_;
    params.*field = value;
    return Gemm(params, TestLimits(), nullptr) == cudaErrorInvalidValue;
  };
  EXPECT_TRUE(refuses(&GemmParams::rows, -1));
  EXPECT_TRUE(refuses(&GemmParams::in, 12));
  EXPECT_TRUE(refuses(&GemmParams::out, 0));
  EXPECT_TRUE(refuses(&GemmParams::x_stride, 0));
  EXPECT_TRUE(refuses(&GemmParams::y_stride, 12));
  EXPECT_TRUE(refuses(&GemmParams::w, nullptr));
  EXPECT_TRUE(refuses(&GemmParams::y, memory_.data() + 1));
}

TEST_F(GemmLaunchTest, RefusesGroupsOfDifferentShapes) {
  GemmParams parts[] = {params_, params_};
  parts[1].rows = 2;
  EXPECT_EQ(GemmGroup(parts, 2, TestLimits(), nullptr), cudaErrorInvalidValue);
  parts[1] = params_;
  parts[1].gate = parts[1].w;
  EXPECT_EQ(GemmGroup(parts, 2, TestLimits(), nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(GemmGroup(parts, 0, TestLimits(), nullptr), cudaErrorInvalidValue);
}

TEST_F(GemmLaunchTest, RefusesTilesThatTheDeviceHasNoMemoryFor) {
  DeviceLimits limits = TestLimits();
  limits.shared_bytes = 99 << 10;
  EXPECT_EQ(GemmWithTile(1, params_, limits, nullptr), cudaErrorNotSupported);
  EXPECT_TRUE(Ran(GemmWithTile(0, params_, limits, nullptr)));
  limits.shared_bytes = 1 << 10;
  EXPECT_EQ(Gemm(params_, limits, nullptr), cudaErrorNotSupported);
}

}  // namespace
}  // namespace svdserve::cuda
