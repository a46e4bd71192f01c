#include "kernels/cuda/attention.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/hopper/attention_tiles.h"
#include "kernels/cuda/kernel_family.h"
#include "tests/kernels/cuda/attention_reference.h"
#include "tests/kernels/cuda/device_buffer.h"

namespace svdserve::cuda {
namespace {

// The weights are rounded before they meet the values, and the result once
// more; what is summed is exact to fp32.
double Tolerance(Type type) { return type == Type::kBF16 ? 4e-3 : 6e-4; }

// q, k and v of a batch; verbs run parts of it.
class Batch {
 public:
  Batch(Type type, const Packing& packing, const Heads& heads,
        const Visibility& visibility, Random* random, float deviation = 1)
      : type_(type), packing_(packing), heads_(heads), visibility_(visibility) {
    const auto values = [&](int width) {
      return Rounded(
          type, random->Normal(size_t{1} * packing.rows() * width, deviation));
    };
    q_ = values(heads.heads * heads.qk_dim);
    k_ = values(heads.kv_heads * heads.qk_dim);
    v_ = values(heads.kv_heads * heads.v_dim);
  }

  int out_width() const { return heads_.heads * heads_.v_dim; }
  const Packing& packing() const { return packing_; }

  // Of all sequences.
  std::vector<float> Run(DeviceLimits limits = TestLimits()) const {
    return RunRows(packing_, q_, k_, v_, limits, packing_.rows());
  }
  // The same with as much room as if all sequences were as long as the longest.
  std::vector<float> RunWithRoom(DeviceLimits limits) const {
    return RunRows(packing_, q_, k_, v_, limits,
                   packing_.sequences() * packing_.max_tokens());
  }

  bool CanRunInPlace() const { return heads_.qk_dim == heads_.v_dim; }
  // The output takes the place of the queries.
  std::vector<float> RunInPlace(DeviceLimits limits) const {
    return RunRows(packing_, q_, k_, v_, limits, packing_.rows(),
                   /*in_place=*/true);
  }

  // One sequence without the others.
  std::vector<float> RunAlone(int sequence, DeviceLimits limits) const {
    const int first = packing_.starts[sequence] - packing_.first_row;
    const int count = packing_.lengths[sequence];
    const auto rows = [&](const std::vector<float>& matrix, int width) {
      return RowsOf(matrix, width, first, count);
    };
    return RunRows(Packing({count}), rows(q_, heads_.heads * heads_.qk_dim),
                   rows(k_, heads_.kv_heads * heads_.qk_dim),
                   rows(v_, heads_.kv_heads * heads_.v_dim), limits,
                   /*bound=*/0);
  }

  std::vector<double> Exact(int every = 1) const {
    return ExactAttention(packing_, heads_, visibility_, Scale(), q_, k_, v_,
                          every);
  }

 private:
  float Scale() const { return 1 / std::sqrt(float(heads_.qk_dim)); }

  // `bound`: AttentionParams::rows. Rows beyond those of the sequences are NaN
  // and must stay so.
  std::vector<float> RunRows(const Packing& packing,
                             const std::vector<float>& q,
                             const std::vector<float>& k,
                             const std::vector<float>& v, DeviceLimits limits,
                             int bound, bool in_place = false) const {
    const int rows = std::max(bound, packing.rows());
    const auto with_room = [&](std::vector<float> values, int width) {
      values.resize(size_t{1} * rows * width, NAN);
      return values;
    };
    const int q_width = heads_.heads * heads_.qk_dim;
    const int k_width = heads_.kv_heads * heads_.qk_dim;
    const int v_width = heads_.kv_heads * heads_.v_dim;
    PackedRows q_rows(type_, q_width, 8, with_room(q, q_width));
    PackedRows k_rows(type_, k_width, 16, with_room(k, k_width));
    PackedRows v_rows(type_, v_width, 24, with_room(v, v_width));
    PackedRows apart(type_, out_width(), 8, rows);
    PackedRows& out = in_place ? q_rows : apart;
    const DeviceBuffer<int32_t> starts(packing.starts);
    const AttentionParams params = {.type = type_,
                                    .sequences = packing.sequences(),
                                    .max_tokens = packing.max_tokens(),
                                    .rows = bound,
                                    .heads = heads_.heads,
                                    .kv_heads = heads_.kv_heads,
                                    .qk_dim = heads_.qk_dim,
                                    .v_dim = heads_.v_dim,
                                    .causal = visibility_.causal,
                                    .window_left = visibility_.left,
                                    .window_right = visibility_.right,
                                    .scale = Scale(),
                                    .cu_seqlens = starts.data(),
                                    .first_row = packing.first_row,
                                    .q = q_rows.data(),
                                    .k = k_rows.data(),
                                    .v = v_rows.data(),
                                    .out = out.data(),
                                    .q_stride = q_rows.stride(),
                                    .k_stride = k_rows.stride(),
                                    .v_stride = v_rows.stride(),
                                    .out_stride = out.stride()};
    EXPECT_TRUE(Ran(Attention(params, limits, nullptr)));
    std::vector<float> all = out.ToHost();
    const auto end = all.begin() + size_t{1} * packing.rows() * out_width();
    EXPECT_TRUE(std::all_of(end, all.end(), [](float v) { return v != v; }));
    all.erase(end, all.end());
    return all;
  }

  Type type_;
  Packing packing_;
  Heads heads_;
  Visibility visibility_;
  std::vector<float> q_, k_, v_;
};

// With one multiprocessor every batch fills the device (128 queries a block);
// with very many none does (64).
DeviceLimits SmallDevice() {
  DeviceLimits limits = TestLimits();
  limits.multiprocessors = 1;
  return limits;
}
DeviceLimits LargeDevice() {
  DeviceLimits limits = TestLimits();
  limits.multiprocessors = 1 << 20;
  return limits;
}

struct Case {
  std::string name;
  Heads heads;
  Visibility visibility = {};
};

class AttentionTest : public testing::TestWithParam<std::tuple<Type, Case>> {
 protected:
  Batch Make(const std::vector<int>& lengths, float deviation = 1) {
    const auto& [type, test_case] = GetParam();
    return Batch(type, Packing(lengths, /*first=*/7), test_case.heads,
                 test_case.visibility, &random_, deviation);
  }
  double Limit() const { return Tolerance(std::get<Type>(GetParam())); }

  const std::vector<int> lengths_ = {1, 64, 0, 15, 130, 63, 0, 65, 16, 100};

 private:
  Random random_;
};

TEST_P(AttentionTest, MixedLengthsAreExact) {
  const Batch batch = Make(lengths_);
  const std::vector<double> exact = batch.Exact();
  EXPECT_LT(RelativeError(batch.Run(SmallDevice()), exact), Limit());
  EXPECT_LT(RelativeError(batch.Run(LargeDevice()), exact), Limit());
}

TEST_P(AttentionTest, SharpScoresStayExact) {
  const Batch batch = Make({130, 130}, /*deviation=*/4);
  EXPECT_LT(RelativeError(batch.Run(SmallDevice()), batch.Exact()), Limit());
}

TEST_P(AttentionTest, ASequenceHasTheSameBitsAloneAndInEveryTile) {
  const Batch batch = Make(lengths_);
  const std::vector<float> all = batch.Run(SmallDevice());
  EXPECT_TRUE(SameBits(batch.Run(LargeDevice()), all));
  const Packing& packing = batch.packing();
  for (int s = 0; s < packing.sequences(); ++s) {
    if (packing.lengths[s] == 0) continue;
    EXPECT_TRUE(SameBits(
        batch.RunAlone(s, LargeDevice()),
        RowsOf(all, batch.out_width(), packing.starts[s] - packing.first_row,
               packing.lengths[s])))
        << packing.lengths[s];
  }
}

TEST_P(AttentionTest, TheOutputMayTakeThePlaceOfTheQueries) {
  std::vector<int> lengths = lengths_;
  if (kLarge) lengths.insert(lengths.end(), {513, 1, 2048});
  const Batch batch = Make(lengths);
  if (!batch.CanRunInPlace()) GTEST_SKIP() << "the output is of other width";
  for (const DeviceLimits& limits :
       {SmallDevice(), LargeDevice(), TestLimits()}) {
    EXPECT_TRUE(SameBits(batch.RunInPlace(limits), batch.Run(limits)));
  }
}

// Of this many rows the reference, which takes its time, computes one.
constexpr int kEvery = 61;

TEST_P(AttentionTest, LargeSequencesAreExact) {
  if (!kLarge) GTEST_SKIP() << "too slow without a GPU";
  for (int length : {513, 2048}) {
    const Batch batch = Make({length, 1, length});
    const std::vector<float> out = batch.Run(SmallDevice());
    EXPECT_LT(RelativeError(SampledRows(out, batch.out_width(), kEvery),
                            batch.Exact(kEvery)),
              Limit())
        << length;
    EXPECT_TRUE(SameBits(batch.Run(LargeDevice()), out)) << length;
  }
}

// Rows past the last sequence's end are NaN.
TEST_P(AttentionTest, LargeBatchesHaveTheSameBitsInBothFamilies) {
  if (!TakesHopperKernels(TestLimits())) {
    GTEST_SKIP() << "no Hopper GPU, or its kernels are not loaded";
  }
  for (float deviation : {1, 4}) {
    const Batch batch =
        Make({1, 512, 63, 64, 0, 65, 100, 300, 511, 513}, deviation);
    const std::vector<float> expected = [&] {
      const ScopedPortableKernels portable;
      return batch.Run();
    }();
    for (const DeviceLimits& limits :
         {SmallDevice(), LargeDevice(), TestLimits()}) {
      EXPECT_TRUE(SameBits(batch.Run(limits), expected))
          << deviation << " " << limits.multiprocessors;
      EXPECT_TRUE(SameBits(batch.RunWithRoom(limits), expected))
          << deviation << " " << limits.multiprocessors;
    }
  }
}

std::vector<Case> Cases() {
  std::vector<Case> cases = {
      {"Causal", {2, 2, 64, 64}, {.causal = true}},
      {"CausalWide", {1, 1, 128, 128}, {.causal = true}},
      {"Window", {1, 1, 32, 32}, {.left = 20, .right = 3}},
      {"NarrowWindow", {1, 1, 64, 64}, {.left = 0, .right = 0}},
      {"WideWindow", {1, 1, 64, 64}, {.left = 64, .right = 64}},
      {"LeftWindow", {1, 1, 64, 64}, {.left = 17}},
      {"RightWindow", {1, 1, 64, 64}, {.right = 70}},
      {"CausalWindow", {1, 1, 96, 96}, {.causal = true, .left = 33}},
      {"GroupedQueries", {4, 2, 64, 64}},
      {"GroupedWideQueries", {4, 1, 128, 128}, {.causal = true, .left = 70}},
      {"OneKeyHead", {3, 1, 32, 32}, {.causal = true}},
      {"NarrowKeys", {2, 2, 32, 64}},
      {"NarrowerKeys", {2, 1, 16, 48}},
      {"NarrowValues", {1, 1, 80, 16}},
      {"WideValues", {1, 1, 48, 112}},
      {"NarrowAndWide", {2, 2, 32, 48}, {.causal = true}},
      {"WideAndNarrow", {2, 1, 112, 64}, {.left = 90}},
  };
  for (int dim = 16; dim <= 128; dim += 16) {
    cases.push_back({"Dim" + std::to_string(dim), {1, 1, dim, dim}});
  }
  return cases;
}

std::string CaseName(
    const testing::TestParamInfo<AttentionTest::ParamType>& info) {
  const auto& [type, test_case] = info.param;
  return test_case.name + (type == Type::kBF16 ? "Bf16" : "F16");
}

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionTest,
                         testing::Combine(testing::Values(Type::kBF16,
                                                          Type::kF16),
                                          testing::ValuesIn(Cases())),
                         CaseName);

TEST(AttentionLengthTest, TheLargestSequencesAreExact) {
  if (!kLarge) GTEST_SKIP() << "too slow without a GPU";
  Random random;
  for (const Visibility& visibility :
       {Visibility{}, Visibility{.causal = true}, Visibility{.left = 128}}) {
    const Batch batch(Type::kBF16, Packing({8192}), {1, 1, 64, 64}, visibility,
                      &random);
    EXPECT_LT(RelativeError(SampledRows(batch.Run(), batch.out_width(), kEvery),
                            batch.Exact(kEvery)),
              4e-3);
  }
}

// ---- Hopper's tiles ----

// Queries of the tile that a batch of equally long sequences takes on an H200.
int TileRows(int dim, int heads, int sequences, int tokens,
             bool causal = false) {
  const AttentionParams params = {.sequences = sequences,
                                  .max_tokens = tokens,
                                  .rows = sequences * tokens,
                                  .heads = heads,
                                  .causal = causal};
  const hopper::AttentionTiles& shape = *hopper::FindAttentionTiles(dim, dim);
  const int tile = hopper::ChooseAttentionTile(
      shape, params, {.sm = 90, .multiprocessors = 132});
  return shape.tiles[tile].rows;
}

TEST(AttentionTilesTest, FewLongSequencesTakeWhatFillsWholeWaves) {
  EXPECT_EQ(TileRows(64, 12, 1, 2048), 192);  // 132 tiles; 96 of 256
  EXPECT_EQ(TileRows(64, 12, 2, 2048), 192);  // 264; 192
  EXPECT_EQ(TileRows(64, 12, 4, 2048), 256);  // 384 of 256: 2.9 waves
  EXPECT_EQ(TileRows(64, 16, 1, 2048), 256);  // 128
  EXPECT_EQ(TileRows(64, 16, 2, 2048), 256);  // 256
  EXPECT_EQ(TileRows(32, 12, 2, 2048), 192);
  EXPECT_EQ(TileRows(128, 6, 1, 2048), 128);  // 96
  EXPECT_EQ(TileRows(128, 6, 2, 2048), 192);  // 132
}

TEST(AttentionTilesTest, ManySequencesTakeLargeTilesAndShortOnesSmall) {
  EXPECT_EQ(TileRows(64, 12, 32, 512), 256);
  EXPECT_EQ(TileRows(64, 12, 8, 2048), 256);
  EXPECT_EQ(TileRows(64, 12, 32, 512, /*causal=*/true), 256);
  EXPECT_EQ(TileRows(32, 12, 32, 512), 256);
  EXPECT_EQ(TileRows(128, 6, 32, 512), 128);  // 768 tiles: 5.8 waves
  for (int sequences : {8, 32}) {
    EXPECT_EQ(TileRows(64, 12, sequences, 128), 64);
    EXPECT_EQ(TileRows(32, 12, sequences, 128), 64);
  }
  EXPECT_EQ(TileRows(64, 12, 1, 512), 64);
}

TEST(AttentionTilesTest, RaggedBatchesTakeSmallTilesUnlessManyAreLong) {
  const hopper::AttentionTiles& shape = *hopper::FindAttentionTiles(64, 64);
  const auto rows = [&](int sequences, int longest, int tokens) {
    const AttentionParams params = {.sequences = sequences,
                                    .max_tokens = longest,
                                    .rows = tokens,
                                    .heads = 12};
    const DeviceLimits limits = {.sm = 90, .multiprocessors = 132};
    return shape.tiles[hopper::ChooseAttentionTile(shape, params, limits)].rows;
  };
  EXPECT_EQ(rows(64, 512, 64 * 256), 64);
  EXPECT_EQ(rows(2, 2048, 2200), 64);
  EXPECT_EQ(rows(32, 1024, 32 * 440), 256);
  EXPECT_EQ(rows(16, 2048, 16 * 1024), 256);
}

// By type, and the dimensions of queries and values.
class AttentionTileTest
    : public testing::TestWithParam<std::tuple<Type, std::pair<int, int>>> {};

TEST_P(AttentionTileTest, EveryHopperTileHasTheBitsOfPortableKernels) {
  const auto [type, dims] = GetParam();
  Random random;
  const Packing packing({512, 200, 512});
  const Heads heads = {2, 2, dims.first, dims.second};
  const hopper::AttentionTiles& shape =
      *hopper::FindAttentionTiles(dims.first, dims.second);
  const AttentionParams params = {.sequences = packing.sequences(),
                                  .max_tokens = packing.max_tokens(),
                                  .heads = heads.heads};
  const bool runs = TakesHopperKernels(TestLimits());
  for (const Visibility& visibility : {Visibility{}, Visibility{.left = 100}}) {
    const Batch batch(type, packing, heads, visibility, &random);
    std::vector<float> expected;
    if (runs) {
      const ScopedPortableKernels portable;
      expected = batch.Run();
    }
    std::set<int> reached;
    for (int multiprocessors : {12, 18, 24, 48}) {
      DeviceLimits limits = TestLimits();
      limits.multiprocessors = multiprocessors;
      reached.insert(hopper::ChooseAttentionTile(shape, params, limits));
      if (runs) {
        EXPECT_TRUE(SameBits(batch.Run(limits), expected)) << multiprocessors;
      }
    }
    EXPECT_EQ(reached.size(), hopper::kAttentionTiles);
  }
  if (!runs) GTEST_SKIP() << "no Hopper GPU, or its kernels are not loaded";
}

using Dims = std::pair<int, int>;

std::string DimsName(
    const testing::TestParamInfo<AttentionTileTest::ParamType>& info) {
  const auto& [type, dims] = info.param;
  return "Dims" + std::to_string(dims.first) + "And" +
         std::to_string(dims.second) + (type == Type::kBF16 ? "Bf16" : "F16");
}

INSTANTIATE_TEST_SUITE_P(
    Tiles, AttentionTileTest,
    testing::Combine(testing::Values(Type::kBF16, Type::kF16),
                     testing::Values(Dims(16, 16), Dims(32, 32), Dims(32, 48),
                                     Dims(32, 64), Dims(48, 48), Dims(64, 32),
                                     Dims(64, 64), Dims(80, 96), Dims(48, 112),
                                     Dims(112, 16), Dims(128, 128))),
    DimsName);

TEST(AttentionTilesTest, HeadsTakeTheNarrowestInstanceThatHoldsThem) {
  const auto expect = [](int qk_dim, int v_dim, int qk_of, int v_of) {
    const hopper::AttentionTiles* tiles =
        hopper::FindAttentionTiles(qk_dim, v_dim);
    ASSERT_NE(tiles, nullptr);
    EXPECT_EQ(tiles->qk_dim, qk_of) << qk_dim << " " << v_dim;
    EXPECT_EQ(tiles->v_dim, v_of) << qk_dim << " " << v_dim;
  };
  expect(16, 32, 32, 32);
  expect(32, 48, 32, 64);
  expect(48, 16, 64, 64);
  expect(64, 112, 64, 128);
  expect(80, 64, 96, 96);
  expect(112, 16, 128, 128);
  for (int qk = 16; qk <= 128; qk += 16) {
    for (int v = 16; v <= 128; v += 16) {
      EXPECT_NE(hopper::FindAttentionTiles(qk, v), nullptr) << qk << " " << v;
    }
  }
}

// A NaN in a sequence is seen by its own queries, and by no other sequence.
TEST(AttentionNanTest, StaysInItsSequence) {
  const int dim = 32;
  // More rows than those of which Hopper kernels are not asked.
  const Packing packing({20, 470, 20});
  std::vector<float> values(packing.rows() * dim, 0.5f);
  values[30 * dim] = NAN;
  PackedRows q(Type::kBF16, dim, 0, values), k(Type::kBF16, dim, 0, values),
      v(Type::kBF16, dim, 0, values);
  PackedRows out(Type::kBF16, dim, 0, packing.rows());
  const DeviceBuffer<int32_t> starts(packing.starts);
  AttentionParams params = {.sequences = 3,
                            .max_tokens = 470,
                            .rows = packing.rows(),
                            .heads = 1,
                            .kv_heads = 1,
                            .qk_dim = dim,
                            .v_dim = dim,
                            .cu_seqlens = starts.data(),
                            .q = q.data(),
                            .k = k.data(),
                            .v = v.data(),
                            .out = out.data(),
                            .q_stride = dim,
                            .k_stride = dim,
                            .v_stride = dim,
                            .out_stride = dim};
  ASSERT_TRUE(Ran(Attention(params, TestLimits(), nullptr)));
  const std::vector<float> result = out.ToHost();
  for (int row = 0; row < packing.rows(); ++row) {
    const bool poisoned = row >= 20 && row < 490;
    EXPECT_EQ(std::isnan(result[row * dim]), poisoned) << row;
  }
}

TEST(AttentionParamsTest, RefusesWhatMakesNoSense) {
  const AttentionParams good = {
      .sequences = 0, .heads = 4, .kv_heads = 2, .qk_dim = 64, .v_dim = 64};
  EXPECT_EQ(Attention(good, TestLimits(), nullptr), cudaSuccess);
  const auto refused = [&](auto change) {
    AttentionParams params = good;
    change(&params);
    return Attention(params, TestLimits(), nullptr) == cudaErrorInvalidValue;
  };
  EXPECT_TRUE(refused([](AttentionParams* p) { p->sequences = -1; }));
  EXPECT_TRUE(refused([](AttentionParams* p) { p->kv_heads = 3; }));
  EXPECT_TRUE(refused([](AttentionParams* p) { p->qk_dim = 40; }));
  EXPECT_TRUE(refused([](AttentionParams* p) { p->v_dim = 144; }));
  EXPECT_TRUE(refused([](AttentionParams* p) { p->q_stride = 4; }));
  EXPECT_TRUE(refused([](AttentionParams* p) { p->window_left = -2; }));
  EXPECT_TRUE(refused([](AttentionParams* p) { p->scale = 0; }));
}

}  // namespace
}  // namespace svdserve::cuda
