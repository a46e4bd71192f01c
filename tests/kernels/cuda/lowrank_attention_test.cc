#include "kernels/cuda/lowrank_attention.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/kernel_family.h"
#include "tests/kernels/cuda/attention_reference.h"
#include "tests/kernels/cuda/device_buffer.h"

namespace svdserve::cuda {
namespace {

struct Ranks {
  int q;
  int k;
  int v;
};

// P of a batch and the factors; verbs run it fused and unfused.
class Batch {
 public:
  Batch(Type type, const Packing& packing, int heads, int head_dim, Ranks ranks,
        bool bias, Random* random)
      : type_(type),
        packing_(packing),
        heads_(heads),
        head_dim_(head_dim),
        bias_(bias),
        // In memory: keys' part, a gap, values', queries'.
        k_{ranks.k, 8},
        v_{ranks.v, 16 + ranks.k},
        q_{ranks.q, 16 + ranks.k + ranks.v},
        p_width_(q_.column + ranks.q),
        p_(Rounded(type,
                   random->Normal(size_t{1} * packing.rows() * p_width_))) {
    for (Part* part : {&q_, &k_, &v_}) {
      part->factor =
          Rounded(type, random->Normal(size_t{1} * width() * part->rank,
                                       1 / std::sqrt(float(part->rank))));
      part->bias = random->Normal(width());
    }
  }

  int width() const { return heads_ * head_dim_; }
  const Packing& packing() const { return packing_; }

  std::vector<float> Run(const DeviceLimits& limits = TestLimits()) const {
    return RunRows(packing_, p_, limits);
  }
  std::vector<float> RunAlone(int sequence) const {
    const int count = packing_.lengths[sequence];
    return RunRows(
        Packing({count}),
        RowsOf(p_, p_width_, packing_.starts[sequence] - packing_.first_row,
               count),
        TestLimits());
  }

  // The same by Gemm() three times and Attention().
  std::vector<float> RunUnfused() const {
    PackedRows p(type_, p_width_, kGap, p_);
    PackedRows q = Project(p, q_), k = Project(p, k_), v = Project(p, v_);
    PackedRows out(type_, width(), 0, packing_.rows());
    const DeviceBuffer<int32_t> starts(packing_.starts);
    const AttentionParams params = {.type = type_,
                                    .sequences = packing_.sequences(),
                                    .max_tokens = packing_.max_tokens(),
                                    .rows = packing_.rows(),
                                    .heads = heads_,
                                    .kv_heads = heads_,
                                    .qk_dim = head_dim_,
                                    .v_dim = head_dim_,
                                    .scale = Scale(),
                                    .cu_seqlens = starts.data(),
                                    .first_row = packing_.first_row,
                                    .q = q.data(),
                                    .k = k.data(),
                                    .v = v.data(),
                                    .out = out.data(),
                                    .q_stride = width(),
                                    .k_stride = width(),
                                    .v_stride = width(),
                                    .out_stride = width()};
    EXPECT_TRUE(Ran(Attention(params, TestLimits(), nullptr)));
    return out.ToHost();
  }

  // Of queries, keys and values rounded where they must be.
  std::vector<double> Exact(int every = 1) const {
    return ExactAttention(packing_, {heads_, heads_, head_dim_, head_dim_}, {},
                          Scale(), ExactPart(q_), ExactPart(k_), ExactPart(v_),
                          every);
  }

 private:
  static constexpr int kGap = 8;

  struct Part {
    int rank;
    int column;
    std::vector<float> factor = {};  // [heads * head_dim, rank]
    std::vector<float> bias = {};    // [heads * head_dim]
  };

  float Scale() const { return 1 / std::sqrt(float(head_dim_)); }

  std::vector<float> RunRows(const Packing& packing,
                             const std::vector<float>& p_values,
                             const DeviceLimits& limits) const {
    PackedRows p(type_, p_width_, kGap, p_values);
    PackedRows out(type_, width(), 16, packing.rows());
    const DeviceBuffer<int32_t> starts(packing.starts);
    const DeviceBuffer<uint16_t> q_factor(Encode(type_, q_.factor)),
        k_factor(Encode(type_, k_.factor)), v_factor(Encode(type_, v_.factor));
    const DeviceBuffer<float> q_bias(q_.bias), k_bias(k_.bias), v_bias(v_.bias);
    const LowRankAttentionParams params = {
        .type = type_,
        .sequences = packing.sequences(),
        .max_tokens = packing.max_tokens(),
        .heads = heads_,
        .head_dim = head_dim_,
        .q_rank = q_.rank,
        .k_rank = k_.rank,
        .v_rank = v_.rank,
        .scale = Scale(),
        .cu_seqlens = starts.data(),
        .first_row = packing.first_row,
        .p = p.data(),
        .p_stride = p.stride(),
        .q_column = q_.column,
        .k_column = k_.column,
        .v_column = v_.column,
        .q_factor = q_factor.data(),
        .k_factor = k_factor.data(),
        .v_factor = v_factor.data(),
        .q_bias = bias_ ? q_bias.data() : nullptr,
        .k_bias = bias_ ? k_bias.data() : nullptr,
        .v_bias = bias_ ? v_bias.data() : nullptr,
        .out = out.data(),
        .out_stride = out.stride()};
    EXPECT_TRUE(Ran(LowRankAttention(params, limits, nullptr)));
    return out.ToHost();
  }

  PackedRows Project(PackedRows& p, const Part& part) const {
    PackedRows y(type_, width(), 0, packing_.rows());
    const DeviceBuffer<uint16_t> factor(Encode(type_, part.factor));
    const DeviceBuffer<float> bias(part.bias);
    const GemmParams params = {
        .type = type_,
        .rows = packing_.rows(),
        .in = part.rank,
        .out = width(),
        .x = static_cast<uint16_t*>(p.data()) + part.column,
        .x_stride = p.stride(),
        .w = factor.data(),
        .bias = bias_ ? bias.data() : nullptr,
        .y = y.data(),
        .y_stride = width()};
    EXPECT_TRUE(Ran(Gemm(params, TestLimits(), nullptr)));
    return y;
  }

  std::vector<float> ExactPart(const Part& part) const {
    std::vector<float> y(size_t{1} * packing_.rows() * width());
    for (int row = 0; row < packing_.rows(); ++row) {
      for (int column = 0; column < width(); ++column) {
        double sum = bias_ ? part.bias[column] : 0;
        for (int r = 0; r < part.rank; ++r) {
          sum += double{p_[row * p_width_ + part.column + r]} *
                 part.factor[column * part.rank + r];
        }
        y[row * width() + column] = sum;
      }
    }
    return Rounded(type_, y);
  }

  Type type_;
  Packing packing_;
  int heads_;
  int head_dim_;
  bool bias_;
  Part k_, v_, q_;
  int p_width_;
  std::vector<float> p_;  // [rows, p_width]
};

struct Case {
  std::string name;
  int heads;
  int head_dim;
  Ranks ranks;
  bool bias;
  std::vector<int> lengths;
};

class LowRankAttentionTest
    : public testing::TestWithParam<std::tuple<Type, Case>> {
 protected:
  Batch Make() { return Make(std::get<Case>(GetParam()).lengths); }
  Batch Make(const std::vector<int>& lengths) {
    const auto& [type, c] = GetParam();
    return Batch(type, Packing(lengths, /*first=*/5), c.heads, c.head_dim,
                 c.ranks, c.bias, &random_);
  }
  // A factor's sum may fall on the other side of a rounding boundary.
  double Limit() const {
    return std::get<Type>(GetParam()) == Type::kBF16 ? 6e-3 : 9e-4;
  }

 private:
  Random random_;
};

TEST_P(LowRankAttentionTest, IsExact) {
  const Batch batch = Make();
  EXPECT_LT(RelativeError(batch.Run(), batch.Exact()), Limit());
}

TEST_P(LowRankAttentionTest, HasTheBitsOfGemmAndAttention) {
  const Batch batch = Make();
  EXPECT_TRUE(SameBits(batch.Run(), batch.RunUnfused()));
}

TEST_P(LowRankAttentionTest, ASequenceHasTheSameBitsAlone) {
  const Batch batch = Make();
  const std::vector<float> all = batch.Run();
  const Packing& packing = batch.packing();
  for (int s = 0; s < packing.sequences(); ++s) {
    if (packing.lengths[s] == 0) continue;
    EXPECT_TRUE(SameBits(
        batch.RunAlone(s),
        RowsOf(all, batch.width(), packing.starts[s] - packing.first_row,
               packing.lengths[s])))
        << packing.lengths[s];
  }
}

TEST_P(LowRankAttentionTest, LargeSequencesHaveTheBitsOfGemmAndAttention) {
  if (!kLarge) GTEST_SKIP() << "too slow without a GPU";
  constexpr int kEvery = 37;
  const Case& c = std::get<Case>(GetParam());
  const int widest = std::max({c.ranks.q, c.ranks.k, c.ranks.v});
  const int most = LowRankAttentionMaxTokens(c.head_dim, widest, TestLimits());
  for (int length : {255, 257, 512, 513, most}) {
    if (length > most) continue;
    const Batch batch = Make({length, 3, 0, length, 200});
    const std::vector<float> out = batch.Run();
    EXPECT_LT(RelativeError(SampledRows(out, batch.width(), kEvery),
                            batch.Exact(kEvery)),
              Limit())
        << length;
    EXPECT_TRUE(SameBits(out, batch.RunUnfused())) << length;
  }
}

// Rows past the last sequence's end are NaN.
TEST_P(LowRankAttentionTest, LargeBatchesHaveTheSameBitsInBothFamilies) {
  if (!TakesHopperKernels(TestLimits())) {
    GTEST_SKIP() << "no Hopper GPU, or its kernels are not loaded";
  }
  const Case& c = std::get<Case>(GetParam());
  const int widest = std::max({c.ranks.q, c.ranks.k, c.ranks.v});
  const int most = LowRankAttentionMaxTokens(c.head_dim, widest, TestLimits());
  const std::vector<int> all = {1,   63,  64,  0,   65,  100, 128,
                                192, 256, 300, 511, 512, 513};
  for (int longest : {64, 128, 256, 512, 513}) {
    if (longest > most) continue;
    std::vector<int> lengths;
    for (int length : all) {
      if (length <= longest) lengths.push_back(length);
    }
    const Batch batch = Make(lengths);
    const std::vector<float> expected = [&] {
      const ScopedPortableKernels portable;
      return batch.Run();
    }();
    EXPECT_TRUE(SameBits(batch.Run(), expected)) << longest;
  }
}

std::vector<Case> Cases() {
  const std::vector<int> all = {1, 0, 64, 15, 130, 63, 65, 16, 100, 0};
  return {
      {"UpTo64", 2, 64, {48, 32, 80}, true, {1, 0, 64, 15, 63}},
      {"UpTo128", 1, 64, {24, 40, 64}, true, {100, 0, 128, 2, 65}},
      {"Longer", 1, 64, {64, 64, 96}, true, all},
      {"TwoTiles", 1, 64, {32, 32, 32}, true, {270, 7}},
      {"BertRank", 2, 64, {192, 192, 192}, true, {70, 1}},
      {"LeastRank", 1, 64, {8, 8, 8}, false, {65, 1}},
      {"WideRank", 1, 64, {264, 256, 272}, false, {40}},
      {"NarrowUpTo64", 3, 32, {32, 16, 40}, true, {33, 64}},
      {"NarrowUpTo128", 1, 32, {32, 16, 40}, false, {33, 127}},
      {"NarrowLonger", 1, 32, {96, 32, 64}, true, all},
      {"WideUpTo64", 1, 128, {32, 48, 64}, true, {1, 50}},
      {"WideLonger", 1, 128, {32, 48, 40}, true, {1, 130, 0, 17}},
  };
}

std::string CaseName(
    const testing::TestParamInfo<LowRankAttentionTest::ParamType>& info) {
  const auto& [type, test_case] = info.param;
  return test_case.name + (type == Type::kBF16 ? "Bf16" : "F16");
}

INSTANTIATE_TEST_SUITE_P(Shapes, LowRankAttentionTest,
                         testing::Combine(testing::Values(Type::kBF16,
                                                          Type::kF16),
                                          testing::ValuesIn(Cases())),
                         CaseName);

// ---- The table ----

DeviceLimits WithSharedMemory(int kilobytes, int multiprocessors = 1) {
  return {80, multiprocessors, kilobytes << 10};
}

TEST(LowRankAttentionTableTest, LengthsThatFit) {
  EXPECT_EQ(LowRankAttentionMaxTokens(64, 192, WithSharedMemory(227)), 768);
  EXPECT_EQ(LowRankAttentionMaxTokens(64, 192, WithSharedMemory(163)), 512);
  EXPECT_EQ(LowRankAttentionMaxTokens(64, 192, WithSharedMemory(99)), 256);
  EXPECT_EQ(LowRankAttentionMaxTokens(64, 256, WithSharedMemory(227)), 704);
  EXPECT_EQ(LowRankAttentionMaxTokens(48, 192, WithSharedMemory(227)), 0);
  EXPECT_EQ(LowRankAttentionMaxTokens(64, 100, WithSharedMemory(227)), 0);
}

// Whatever the memory and the number of multiprocessors make the table choose,
// the bits are the same.
TEST(LowRankAttentionTableTest, AllChoicesHaveTheSameBits) {
  Random random;
  for (const auto& [head_dim, lengths] :
       std::vector<std::pair<int, std::vector<int>>>{{64, {150, 20}},
                                                     {64, {70, 3}},
                                                     {64, {9, 64}},
                                                     {32, {150, 20}},
                                                     {128, {66}}}) {
    const Batch batch(Type::kBF16, Packing(lengths), 1, head_dim, {96, 64, 40},
                      true, &random);
    const std::vector<float> expected = batch.Run(WithSharedMemory(227));
    for (int kilobytes : {67, 75, 84, 110, 134, 150, 227}) {
      for (int multiprocessors : {1, 100}) {
        const DeviceLimits limits =
            WithSharedMemory(kilobytes, multiprocessors);
        if (LowRankAttentionMaxTokens(head_dim, 96, limits) <
            batch.packing().max_tokens()) {
          continue;
        }
        EXPECT_TRUE(SameBits(batch.Run(limits), expected))
            << head_dim << " " << lengths[0] << " " << kilobytes << " "
            << multiprocessors;
      }
    }
  }
}

TEST(LowRankAttentionParamsTest, RefusesWhatItsTableHasNot) {
  const LowRankAttentionParams good = {.sequences = 0,
                                       .max_tokens = 64,
                                       .heads = 2,
                                       .head_dim = 64,
                                       .q_rank = 8,
                                       .k_rank = 8,
                                       .v_rank = 8};
  EXPECT_EQ(LowRankAttention(good, TestLimits(), nullptr), cudaSuccess);
  const auto result = [&](auto change) {
    LowRankAttentionParams params = good;
    change(&params);
    return LowRankAttention(params, TestLimits(), nullptr);
  };
  using Params = LowRankAttentionParams;
  EXPECT_EQ(result([](Params* p) { p->k_rank = 12; }), cudaErrorInvalidValue);
  EXPECT_EQ(result([](Params* p) { p->p_stride = 4; }), cudaErrorInvalidValue);
  EXPECT_EQ(result([](Params* p) { p->scale = 0; }), cudaErrorInvalidValue);
  EXPECT_EQ(result([](Params* p) {
              p->sequences = 1;
              p->head_dim = 48;
            }),
            cudaErrorNotSupported);
  EXPECT_EQ(result([](Params* p) {
              p->sequences = 1;
              p->max_tokens = 4096;
            }),
            cudaErrorNotSupported);
}

}  // namespace
}  // namespace svdserve::cuda
