#include "kernels/packed_matmul.h"

#include <cmath>
#include <memory>
#include <ostream>
#include <string>
#include <type_traits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/team.h"
#include "tests/kernels/kernel_testing.h"

namespace svdserve::kernels {
namespace {

constexpr int kTile = PackedMatmul::kRowTile;

int PaddedRows(int rows) { return (rows + kTile - 1) / kTile * kTile; }

double ExactActivation(Activation activation, double x) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kGelu:
      return 0.5 * x * (1 + std::erf(x * std::sqrt(0.5)));
    case Activation::kGeluTanh:
      return 0.5 * x *
             (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::kRelu:
      return x > 0 ? x : 0;
    case Activation::kTanh:
      return std::tanh(x);
  }
  return 0;
}

float PlainActivation(Activation activation, float x) {
  switch (activation) {
    case Activation::kGelu:
      return 0.5f * x * (1 + std::erf(x * std::sqrt(0.5f)));
    case Activation::kGeluTanh:
      return 0.5f * x *
             (1 + std::tanh(0.7978845608f * (x + 0.044715f * x * x * x)));
    case Activation::kTanh:
      return std::tanh(x);
    default:
      return static_cast<float>(ExactActivation(activation, x));
  }
}

// One random problem and the ways to run it.
struct Problem {
  Problem(PackedMatmulSpec s, int max_rows)
      : spec(s),
        rows(max_rows),
        weight(RandomNormal(s.in * s.out, 1, 1.0f / std::sqrt(s.in))),
        bias(RandomNormal(s.out, 2)),
        x(s.type, RandomNormal(PaddedRows(max_rows) * s.in, 3)),
        before(RandomNormal(max_rows * s.out, 4)) {
    spec.weight = weight.data();
    if (spec.weight_in_stride == 0) spec.weight_in_stride = s.out;
    if (spec.weight_out_stride == 0) spec.weight_out_stride = 1;
    spec.bias = bias.data();
    status = PackedMatmul::Create(spec, &matmul);
  }

  float Weight(int i, int j) const {
    return Rounded(
        spec.type,
        weight[i * spec.weight_in_stride + j * spec.weight_out_stride]);
  }

  // Rows [first, first + count) of y, all panels, in the caller's order.
  std::vector<float> Run(int first, int count, int worker = 0) {
    Storage y(spec.out_type, count * spec.out);
    for (int i = 0; i < count * spec.out; ++i) {
      y.Set(i, before[first * spec.out + i]);
    }
    Storage in(spec.type, PaddedRows(count) * spec.in, NAN);  // NaN pads
    for (int i = 0; i < count * spec.in; ++i) {
      in.Set(i, x[first * spec.in + i]);
    }
    Storage scratch(DataType::kF32, matmul->scratch_bytes() / 4 + 1);
    for (int panel = matmul->panels() - 1; panel >= 0; --panel) {
      EXPECT_EQ(matmul->Run(worker, panel, count, in.data(),
                            y.at(matmul->PanelBegin(panel)), spec.out,
                            scratch.data()),
                KernelStatus::kOk);
    }
    return y.ToFloats();
  }

  template <typename Sum>
  std::vector<Sum> Reference() const {
    std::vector<Sum> y;
    for (int r = 0; r < rows; ++r) {
      for (int j = 0; j < spec.out; ++j) {
        Sum sum = 0;
        for (int i = 0; i < spec.in; ++i) {
          sum += static_cast<Sum>(x[r * spec.in + i]) * Weight(i, j);
        }
        sum += bias[j];
        if constexpr (std::is_same_v<Sum, double>) {
          sum = ExactActivation(spec.activation, sum);
        } else {
          sum = PlainActivation(spec.activation, sum);
        }
        if (spec.accumulate) {
          sum += Rounded(spec.out_type, before[r * spec.out + j]);
        }
        if (std::is_same_v<Sum, float>) sum = Rounded(spec.out_type, sum);
        y.push_back(sum);
      }
    }
    return y;
  }

  PackedMatmulSpec spec;
  int rows;
  std::vector<float> weight, bias;
  Storage x;
  std::vector<float> before;
  std::unique_ptr<PackedMatmul> matmul;
  KernelStatus status;
};

struct Case {
  std::string name;
  PackedMatmulSpec spec;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.name;
}

class PackedMatmulTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!PackedMatmul::Supports(GetParam().spec.type)) {
      GTEST_SKIP() << "this processor has no bf16";
    }
  }
};

TEST(PackedMatmul, Fp32IsSupportedEverywhere) {
  EXPECT_TRUE(PackedMatmul::Supports(DataType::kF32));
}

TEST_P(PackedMatmulTest, IsAsExactAsPlainLoops) {
  for (int rows : {1, 15, 16, 17, 65}) {
    Problem problem(GetParam().spec, rows);
    ASSERT_EQ(problem.status, KernelStatus::kOk);
    ExpectAsExactAsPlain(problem.Run(0, rows), problem.Reference<float>(),
                         problem.Reference<double>(), problem.spec.out_type);
  }
}

TEST_P(PackedMatmulTest, ARowHasTheSameBitsInEveryRange) {
  constexpr int kRows = 150;
  Problem problem(GetParam().spec, kRows);
  ASSERT_EQ(problem.status, KernelStatus::kOk);
  const std::vector<float> all = problem.Run(0, kRows);
  const int out = problem.spec.out;
  for (int first = 0; first < kRows; first += 7) {
    const int count = std::min(1 + first % 70, kRows - first);
    const std::vector<float> expected(all.begin() + first * out,
                                      all.begin() + (first + count) * out);
    EXPECT_TRUE(SameBits(problem.Run(first, count), expected))
        << "rows " << first << " to " << first + count;
  }
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  const auto add = [&](std::string name, PackedMatmulSpec spec) {
    for (DataType type : {DataType::kF32, DataType::kBF16}) {
      spec.type = type;
      const char* suffix = type == DataType::kF32 ? "_f32" : "_bf16";
      spec.out_type = type;
      cases.push_back({name + suffix, spec});
    }
  };
  add("factor_u", {.in = 384, .out = 96});
  add("factor_v", {.in = 96, .out = 384, .accumulate = true});
  add("stacked_u", {.in = 384, .out = 288});
  add("gelu", {.in = 160, .out = 528, .activation = Activation::kGelu});
  add("gelu_tanh", {.in = 96, .out = 80, .activation = Activation::kGeluTanh});
  add("relu", {.in = 96, .out = 80, .activation = Activation::kRelu});
  add("pooler", {.in = 64, .out = 64, .activation = Activation::kTanh});
  add("long_sum", {.in = 1536, .out = 160, .accumulate = true});
  add("labels", {.in = 63, .out = 3});
  add("one", {.in = 1, .out = 1});
  add("head_panels", {.in = 96, .out = 96, .panel = 32});
  add("hugging_face",
      {.in = 96, .out = 40, .weight_in_stride = 1, .weight_out_stride = 96});
  cases.push_back({"bf16_to_f32",
                   {.in = 96,
                    .out = 64,
                    .type = DataType::kBF16,
                    .out_type = DataType::kF32,
                    .accumulate = true}});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Shapes, PackedMatmulTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

TEST(PackedMatmul, PanelsCoverTheColumnsOnce) {
  for (int out : {1, 3, 16, 40, 96, 160, 288, 384, 1000, 1536}) {
    Problem problem({.in = 32, .out = out}, 1);
    ASSERT_EQ(problem.status, KernelStatus::kOk);
    int next = 0;
    for (int panel = 0; panel < problem.matmul->panels(); ++panel) {
      EXPECT_EQ(problem.matmul->PanelBegin(panel), next);
      EXPECT_GT(problem.matmul->PanelWidth(panel), 0);
      next += problem.matmul->PanelWidth(panel);
    }
    EXPECT_EQ(next, out);
  }
}

TEST(PackedMatmul, RowsOfAWiderBufferAreTakenByStride) {
  Problem narrow({.in = 64, .out = 32}, 20);
  Problem wide({.in = 64, .out = 32, .x_stride = 80}, 20);
  Storage x(DataType::kF32, 32 * 80, NAN);
  for (int i = 0; i < 20 * 64; ++i) x.Set(i / 64 * 80 + i % 64, narrow.x[i]);
  Storage y(DataType::kF32, 20 * 48, -7.0f);
  Storage scratch(DataType::kF32, wide.matmul->scratch_bytes() / 4);
  for (int panel = 0; panel < wide.matmul->panels(); ++panel) {
    ASSERT_EQ(wide.matmul->Run(0, panel, 20, x.data(),
                               y.at(wide.matmul->PanelBegin(panel)), 48,
                               scratch.data()),
              KernelStatus::kOk);
  }
  const std::vector<float> expected = narrow.Run(0, 20);
  for (int i = 0; i < 20 * 48; ++i) {
    const float want = i % 48 < 32 ? expected[i / 48 * 32 + i % 48] : -7.0f;
    EXPECT_NEAR(y[i], want, 1e-5) << i;
  }
}

TEST(PackedMatmul, NanInARowReachesItsOutputsAndNoOthers) {
  for (Activation activation :
       {Activation::kNone, Activation::kGelu, Activation::kGeluTanh,
        Activation::kRelu, Activation::kTanh}) {
    Problem problem({.in = 32, .out = 48, .activation = activation}, 40);
    const std::vector<float> clean = problem.Run(0, 40);
    problem.x.Set(17 * 32 + 5, NAN);
    const std::vector<float> dirty = problem.Run(0, 40);
    for (int i = 0; i < 40 * 48; ++i) {
      if (i / 48 == 17) {
        EXPECT_TRUE(std::isnan(dirty[i])) << i;
      } else {
        EXPECT_EQ(dirty[i], clean[i]) << i;
      }
    }
  }
}

TEST(PackedMatmul, ThreadsOfATeamGiveTheSameBits) {
  constexpr int kRows = 200;
  Problem problem({.in = 96, .out = 384, .workers = 3}, kRows);
  const std::vector<float> expected = problem.Run(0, kRows);
  Team team(3, "test");
  const PackedMatmul& matmul = *problem.matmul;
  const size_t scratch_floats = matmul.scratch_bytes() / sizeof(float);
  Storage scratch(DataType::kF32, 3 * scratch_floats);
  for (int repeat = 0; repeat < 20; ++repeat) {
    Storage y(DataType::kF32, kRows * 384);
    const int tiles = PaddedRows(kRows) / kTile;
    team.ParallelFor(tiles * matmul.panels(), [&](int worker, int index) {
      const int row = index % tiles * kTile;
      const int panel = index / tiles;
      const int rows = std::min(kTile, kRows - row);
      EXPECT_EQ(matmul.Run(worker, panel, rows, problem.x.at(row * 96),
                           y.at(row * 384 + matmul.PanelBegin(panel)), 384,
                           scratch.at(worker * scratch_floats)),
                KernelStatus::kOk);
    });
    ASSERT_TRUE(SameBits(y.ToFloats(), expected));
  }
}

TEST(PackedMatmul, BadArgumentsAreRefused) {
  std::unique_ptr<PackedMatmul> matmul;
  EXPECT_EQ(PackedMatmul::Create({.in = 16, .out = 16}, &matmul),
            KernelStatus::kInvalidArgument);  // no weight
  Problem problem({.in = 16, .out = 16}, 16);
  Storage y(DataType::kF32, 256);
  Storage scratch(DataType::kF32, problem.matmul->scratch_bytes() / 4);
  EXPECT_EQ(problem.matmul->Run(1, 0, 16, problem.x.data(), y.data(), 16,
                                scratch.data()),
            KernelStatus::kInvalidArgument);  // one worker only
  EXPECT_EQ(problem.matmul->Run(0, 99, 16, problem.x.data(), y.data(), 16,
                                scratch.data()),
            KernelStatus::kInvalidArgument);
}

}  // namespace
}  // namespace svdserve::kernels
