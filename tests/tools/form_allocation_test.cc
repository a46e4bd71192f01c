#include "tools/compress/form_allocation.h"

#include <cmath>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace svdserve {
namespace {

using ::testing::HasSubstr;

constexpr int kLayers = 3;
constexpr int Index(MatrixKind kind) { return static_cast<int>(kind); }

class FormAllocationTest : public testing::Test {
 protected:
  FormAllocationTest() {
    const MatrixSize square = {768, 768};
    sizes_ = {.layer = {square, square, square, square, MatrixSize{768, 3072},
                        MatrixSize{3072, 768}},
              .heads = 12,
              .head_dim = 64};
    LayerProfile profile;
    for (LossCurve& curve : profile.matrices) curve = Curve(768, 1);
    profile.query_key = Curve(64, 1);
    profile.value_output = Curve(64, 1);
    profiles_.assign(kLayers, profile);
  }
  // Each direction has a tenth less energy than 16 before it.
  static LossCurve Curve(int ranks, double weight) {
    LossCurve curve;
    for (int r = 0; r <= ranks; ++r) {
      const double left = 1 - static_cast<double>(r) / ranks;
      curve.lost.push_back(left * left * left);
    }
    curve.scale = weight;
    return curve;
  }
  FormAllocation AllocateOrDie(double ratio, AllowedForms allowed = {}) {
    const auto allocation = AllocateForms(profiles_, sizes_, allowed, ratio);
    EXPECT_TRUE(allocation.ok()) << allocation.status();
    return allocation.ok() ? *allocation : FormAllocation();
  }
  int64_t Parameters(const FormAllocation& allocation) const {
    int64_t sum = 0;
    for (const LayerForm& form : allocation.forms) {
      sum += ParametersIn(form, sizes_.layer, sizes_.heads);
    }
    return sum;
  }

  EncoderSizes sizes_;
  std::vector<LayerProfile> profiles_;
};

TEST_F(FormAllocationTest, NeverExceedsTheBudgetAndNearlyUsesIt) {
  const int64_t dense = kLayers * LayerParameters(sizes_.layer, KindRanks{});
  for (const bool narrow : {false, true}) {
    for (double ratio = 0.1; ratio < 0.99; ratio += 0.07) {
      const FormAllocation a = AllocateOrDie(ratio, {.narrow_heads = narrow});
      EXPECT_EQ(Parameters(a), a.parameters) << ratio;
      EXPECT_LE(a.parameters, ratio * dense) << ratio;
      EXPECT_GE(a.parameters, (ratio - 0.08) * dense) << ratio;
    }
  }
}

TEST_F(FormAllocationTest, RanksAreStepsAndThoseOfTheFeedForwardCapped) {
  const FormAllocation a = AllocateOrDie(0.7);
  for (const LayerForm& form : a.forms) {
    for (int k = 0; k < kMatrixKinds; ++k) {
      EXPECT_EQ(form.ranks[k] % 16, 0);
      if (form.ranks[k] > 0) {
        EXPECT_LT(sizes_.layer[k].parameters(form.ranks[k]),
                  sizes_.layer[k].dense_parameters());
      }
    }
    EXPECT_LE(form.ranks[Index(MatrixKind::kFfnIn)], 320);
    EXPECT_LE(form.ranks[Index(MatrixKind::kFfnOut)], 320);
  }
}

TEST_F(FormAllocationTest, WhatTheEmbeddingFeelsMostGetsMost) {
  profiles_[1].matrices[Index(MatrixKind::kFfnOut)].scale = 20;
  profiles_[2].matrices[Index(MatrixKind::kQuery)].scale = 0.05;
  const FormAllocation a = AllocateOrDie(0.3);
  const auto rank = [&](int layer, MatrixKind kind) {
    const int r = a.forms[layer].ranks[Index(kind)];
    return r == 0 ? 10000 : r;  // dense
  };
  EXPECT_GT(rank(1, MatrixKind::kFfnOut), rank(0, MatrixKind::kFfnOut));
  EXPECT_LT(rank(2, MatrixKind::kQuery), rank(2, MatrixKind::kKey));
}

TEST_F(FormAllocationTest, MoreBudgetLosesNoMore) {
  double last = 1e9;
  for (double ratio = 0.15; ratio < 0.95; ratio += 0.1) {
    const double loss = AllocateOrDie(ratio).predicted_loss;
    EXPECT_LE(loss, last * 1.02);
    last = loss;
  }
}

TEST_F(FormAllocationTest, NarrowHeadsWhereTheyLoseLess) {
  for (LayerProfile& profile : profiles_) profile.query_key.scale = 1e-3;
  const FormAllocation a = AllocateOrDie(0.4, {.narrow_heads = true});
  for (const LayerForm& form : a.forms) {
    EXPECT_GT(form.query_dim, 0);
    EXPECT_LT(form.query_dim, 64);
    EXPECT_EQ(form.query_dim % 16, 0);
    EXPECT_EQ(form.ranks[Index(MatrixKind::kQuery)], 0);
    EXPECT_EQ(form.ranks[Index(MatrixKind::kKey)], 0);
  }
  const FormAllocation factors = AllocateOrDie(0.4);
  EXPECT_LT(a.predicted_loss, factors.predicted_loss);
  for (const LayerForm& form : factors.forms) EXPECT_EQ(form.query_dim, 0);
}

TEST_F(FormAllocationTest, ComponentFactorsNoMatrixOfAttention) {
  const FormAllocation a =
      AllocateOrDie(0.4, {.attention_factors = false, .narrow_heads = true});
  for (const LayerForm& form : a.forms) {
    for (int k = 0; k < Index(MatrixKind::kFfnIn); ++k) {
      EXPECT_EQ(form.ranks[k], 0);
    }
  }
}

TEST_F(FormAllocationTest, FusedFormsAreFactorsInEveryLayer) {
  // What is felt most would stay dense otherwise.
  profiles_[1].matrices[Index(MatrixKind::kValue)].scale = 50;
  profiles_[1].matrices[Index(MatrixKind::kFfnOut)].scale = 50;
  const FormAllocation free = AllocateOrDie(0.6);
  EXPECT_EQ(free.forms[1].ranks[Index(MatrixKind::kValue)], 0);
  const FormAllocation fused = AllocateOrDie(0.6, {.fused = true});
  for (const LayerForm& form : fused.forms) {
    for (int k = 0; k < kMatrixKinds; ++k) {
      if (k == Index(MatrixKind::kAttentionOutput)) continue;
      EXPECT_GT(form.ranks[k], 0);
    }
  }
  EXPECT_GE(fused.predicted_loss, free.predicted_loss);
}

TEST_F(FormAllocationTest, RefusesWhatCannotBe) {
  for (const double ratio : {0.0, 1.0, -1.0, std::nan("")}) {
    const auto status = AllocateForms(profiles_, sizes_, {}, ratio).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_THAT(AllocateForms(profiles_, sizes_, {}, 0.01).status().message(),
              HasSubstr("too small for this model"));
}

}  // namespace
}  // namespace svdserve
