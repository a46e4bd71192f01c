#include "kernels/attention.h"

#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/kernel_testing.h"

namespace svdserve::kernels {
namespace {

struct HeadDims {
  int qk, v;
};

// One sequence with heads side by side, as the encoder has it.
struct Sequence {
  Sequence(DataType t, int s, HeadDims dims, float deviation = 1.0f)
      : type(t),
        length(s),
        qk_dim(dims.qk),
        dim(dims.v),
        qk_stride(2 * qk_dim + 16),
        stride(2 * dim + 16),
        q(t, RandomNormal(s * qk_stride, 1, deviation)),
        k(t, RandomNormal(s * qk_stride, 2, deviation)),
        v(t, RandomNormal(s * stride, 3)) {}

  AttentionParams Params(Storage* out) {
    return {.queries = length,
            .keys = length,
            .qk_dim = qk_dim,
            .v_dim = dim,
            .type = type,
            .q = q.at(qk_dim),  // the second head
            .k = k.at(qk_dim),
            .v = v.at(dim),
            .out = out->data(),
            .q_stride = qk_stride,
            .k_stride = qk_stride,
            .v_stride = stride,
            .out_stride = dim,
            .scale = 1.0f / std::sqrt(static_cast<float>(qk_dim))};
  }

  std::vector<float> Run(int first = 0, int count = -1) {
    if (count < 0) count = length;
    Storage out(type, count * dim, NAN);
    Storage scratch(DataType::kF32, AttentionScratchBytes(qk_dim, dim) / 4,
                    NAN);
    AttentionParams params = Params(&out);
    params.queries = count;
    params.q = q.at(qk_dim + first * qk_stride);
    EXPECT_EQ(Attention(params, scratch.data()), KernelStatus::kOk);
    return out.ToFloats();
  }

  // Softmax with all scores at once.
  template <typename Real>
  std::vector<Real> Reference() const {
    std::vector<Real> out;
    const Real scale = 1 / std::sqrt(static_cast<Real>(qk_dim));
    for (int i = 0; i < length; ++i) {
      std::vector<Real> p(length);
      Real maximum = -INFINITY, sum = 0;
      for (int j = 0; j < length; ++j) {
        for (int c = 0; c < qk_dim; ++c) {
          p[j] += static_cast<Real>(q[i * qk_stride + qk_dim + c]) *
                  k[j * qk_stride + qk_dim + c];
        }
        p[j] *= scale;
        maximum = std::max(maximum, p[j]);
      }
      for (Real& e : p) sum += e = std::exp(e - maximum);
      for (int c = 0; c < dim; ++c) {
        Real o = 0;
        for (int j = 0; j < length; ++j) o += p[j] * v[j * stride + dim + c];
        o /= sum;
        if (std::is_same_v<Real, float>) o = Rounded(type, o);
        out.push_back(o);
      }
    }
    return out;
  }

  DataType type;
  int length, qk_dim, dim, qk_stride, stride;  // dim, stride: of v and out
  Storage q, k, v;
};

class AttentionTest
    : public testing::TestWithParam<std::tuple<DataType, int, HeadDims>> {
 protected:
  Sequence Make(float deviation = 1.0f) {
    return Sequence(std::get<0>(GetParam()), std::get<1>(GetParam()),
                    std::get<2>(GetParam()), deviation);
  }
};

TEST_P(AttentionTest, IsAsExactAsAPlainSoftmax) {
  Sequence sequence = Make();
  ExpectAsExactAsPlain(sequence.Run(), sequence.Reference<float>(),
                       sequence.Reference<double>(), sequence.type);
}

TEST_P(AttentionTest, SharpScoresStayExact) {
  Sequence sequence = Make(/*deviation=*/4.0f);
  ExpectAsExactAsPlain(sequence.Run(), sequence.Reference<float>(),
                       sequence.Reference<double>(), sequence.type);
}

TEST_P(AttentionTest, AQueryHasTheSameBitsInEveryRange) {
  Sequence sequence = Make();
  const std::vector<float> all = sequence.Run();
  const int step = sequence.length / 5 + 1;
  for (int first = 0; first < sequence.length; first += step) {
    const int count = std::min(step, sequence.length - first);
    const std::vector<float> expected(
        all.begin() + first * sequence.dim,
        all.begin() + (first + count) * sequence.dim);
    EXPECT_TRUE(SameBits(sequence.Run(first, count), expected)) << first;
  }
}

std::string CaseName(
    const testing::TestParamInfo<AttentionTest::ParamType>& info) {
  const auto& [type, length, dims] = info.param;
  return std::string(type == DataType::kF32 ? "f32" : "bf16") + "_" +
         std::to_string(length) + "x" + std::to_string(dims.qk) + "x" +
         std::to_string(dims.v);
}

INSTANTIATE_TEST_SUITE_P(
    Lengths, AttentionTest,
    testing::Combine(testing::Values(DataType::kF32, DataType::kBF16),
                     testing::Values(1, 15, 16, 17, 63, 64, 65, 100, 511, 512),
                     testing::Values(HeadDims{32, 32}, HeadDims{64, 64})),
    CaseName);
INSTANTIATE_TEST_SUITE_P(
    HeadDims, AttentionTest,
    testing::Combine(testing::Values(DataType::kF32, DataType::kBF16),
                     testing::Values(70),
                     testing::Values(HeadDims{16, 16}, HeadDims{48, 48},
                                     HeadDims{80, 80}, HeadDims{96, 96},
                                     HeadDims{112, 112}, HeadDims{128, 128})),
    CaseName);
INSTANTIATE_TEST_SUITE_P(
    UnequalHeadDims, AttentionTest,
    testing::Combine(testing::Values(DataType::kF32, DataType::kBF16),
                     testing::Values(1, 17, 100),
                     testing::Values(HeadDims{16, 64}, HeadDims{32, 48},
                                     HeadDims{48, 16}, HeadDims{128, 16},
                                     HeadDims{80, 128})),
    CaseName);

TEST(Attention, NothingIsReadOrWrittenOutside) {
  // The buffers end with the last row: a sanitizer sees any read past it.
  Sequence sequence(DataType::kF32, 33, {32, 32});
  const std::vector<float> before = sequence.Run();
  Storage out(DataType::kF32, 34 * 32, -7.0f);
  Storage scratch(DataType::kF32, AttentionScratchBytes(32, 32) / 4);
  ASSERT_EQ(Attention(sequence.Params(&out), scratch.data()),
            KernelStatus::kOk);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(out[33 * 32 + i], -7.0f);
}

TEST(Attention, OutputMayTakeThePlaceOfTheQueries) {
  Sequence sequence(DataType::kF32, 100, {32, 32});
  const std::vector<float> expected = sequence.Run();
  Storage unused(DataType::kF32, 1);
  Storage scratch(DataType::kF32, AttentionScratchBytes(32, 32) / 4);
  AttentionParams params = sequence.Params(&unused);
  params.out = sequence.q.at(32);
  params.out_stride = sequence.stride;
  ASSERT_EQ(Attention(params, scratch.data()), KernelStatus::kOk);
  for (int i = 0; i < 100 * 32; ++i) {
    EXPECT_EQ(sequence.q[i / 32 * sequence.stride + 32 + i % 32], expected[i]);
  }
}

TEST(Attention, NanInAQueryReachesItsOutputAndNoOther) {
  Sequence sequence(DataType::kF32, 40, {32, 32});
  const std::vector<float> clean = sequence.Run();
  sequence.q.Set(7 * sequence.stride + 32 + 3, NAN);
  const std::vector<float> dirty = sequence.Run();
  for (int i = 0; i < 40 * 32; ++i) {
    if (i / 32 == 7) {
      EXPECT_TRUE(std::isnan(dirty[i])) << i;
    } else {
      EXPECT_EQ(dirty[i], clean[i]) << i;
    }
  }
}

TEST(Attention, NanInAKeyReachesEveryOutput) {
  Sequence sequence(DataType::kF32, 130, {32, 32});
  sequence.k.Set(70 * sequence.stride + 32, NAN);
  for (float value : sequence.Run()) EXPECT_TRUE(std::isnan(value));
}

TEST(Attention, BadArgumentsAreRefused) {
  Sequence sequence(DataType::kF32, 8, {32, 32});
  Storage out(DataType::kF32, 8 * 32);
  Storage scratch(DataType::kF32, AttentionScratchBytes(128, 128) / 4);
  AttentionParams params = sequence.Params(&out);
  for (int AttentionParams::*dim :
       {&AttentionParams::qk_dim, &AttentionParams::v_dim}) {
    params = sequence.Params(&out);
    for (const int bad : {0, 24, 144}) {
      params.*dim = bad;
      EXPECT_EQ(Attention(params, scratch.data()), KernelStatus::kUnsupported);
    }
  }
  params = sequence.Params(&out);
  params.v = nullptr;
  EXPECT_EQ(Attention(params, scratch.data()), KernelStatus::kInvalidArgument);
}

}  // namespace
}  // namespace svdserve::kernels
