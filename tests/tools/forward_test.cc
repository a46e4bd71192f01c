#include "tools/forward/forward.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/golden/golden.h"
#include "tests/reference/encoder.h"

namespace svdserve {
namespace {

using ::testing::HasSubstr;

TokenBatch BatchOf(const std::vector<GoldenInput>& inputs) {
  TokenBatch batch;
  for (const GoldenInput& input : inputs) {
    Encoding encoding;
    encoding.ids = input.ids;
    encoding.type_ids = input.type_ids;
    encoding.type_ids.resize(input.ids.size());
    batch.Add(encoding);
  }
  return batch;
}

// Runs the whole model; `taps` gets those of each layer.
absl::StatusOr<FloatMatrix> RunModel(const Model& model,
                                     const TokenBatch& batch, int threads,
                                     std::vector<LayerTaps>* taps = nullptr) {
  kernels::Team team(threads, "test");
  absl::StatusOr<FloatMatrix> x = EmbedTokens(model, batch, team);
  if (!x.ok()) return x;
  for (const EncoderLayer& layer : model.layers) {
    absl::StatusOr<ForwardLayer> forward =
        ForwardLayer::Create(model, layer, team);
    if (!forward.ok()) return forward.status();
    LayerTaps* layer_taps = taps == nullptr ? nullptr : &taps->emplace_back();
    x = forward->Run(batch, *std::move(x), team, layer_taps);
    if (!x.ok()) return x;
  }
  return OutputRows(model, batch, *x, team);
}

class ForwardTest : public testing::TestWithParam<std::string> {
 protected:
  ForwardTest() : golden_(ReadGoldenModel(GetParam())) {
    absl::StatusOr<Model> model = LoadModel(golden_.directory);
    EXPECT_TRUE(model.ok()) << model.status();
    if (model.ok()) model_ = *std::move(model);
  }
  FloatMatrix RunOrDie(const TokenBatch& batch, int threads,
                       std::vector<LayerTaps>* taps = nullptr) {
    absl::StatusOr<FloatMatrix> rows = RunModel(model_, batch, threads, taps);
    EXPECT_TRUE(rows.ok()) << rows.status();
    return rows.ok() ? *std::move(rows) : FloatMatrix();
  }

  const GoldenModel golden_;
  Model model_;
};

TEST_P(ForwardTest, ErrorIsAtMostTwiceThatOfAPlainImplementation) {
  const FloatMatrix rows = RunOrDie(BatchOf(golden_.inputs), 2);
  ASSERT_EQ(rows.rows(), golden_.inputs.size());
  const ReferenceEncoder plain(model_, Precision::kF32);
  std::vector<double> exact_values, plain_values;
  for (const GoldenInput& input : golden_.inputs) {
    const std::vector<double> row = plain.Run(
        input.ids, input.type_ids, {.normalize = model_.config.normalize});
    plain_values.insert(plain_values.end(), row.begin(), row.end());
    exact_values.insert(exact_values.end(), input.output.begin(),
                        input.output.end());
  }
  const std::vector<double> ours(rows.data(), rows.data() + rows.size());
  ASSERT_EQ(ours.size(), exact_values.size());
  EXPECT_LE(RmsError(ours, exact_values),
            2 * RmsError(plain_values, exact_values));
}

TEST_P(ForwardTest, ASequenceHasTheSameBitsAloneAndWithOtherThreads) {
  const FloatMatrix together = RunOrDie(BatchOf(golden_.inputs), 2);
  for (int i = 0; i < together.rows(); ++i) {
    const FloatMatrix alone = RunOrDie(BatchOf({golden_.inputs[i]}), 1);
    EXPECT_TRUE(
        std::equal(alone.row(0), alone.row(0) + alone.width(), together.row(i)))
        << i;
  }
}

TEST_P(ForwardTest, TapsAreTheInputsOfTheMatrices) {
  const TokenBatch batch = BatchOf({golden_.inputs[0]});
  std::vector<LayerTaps> taps;
  RunOrDie(batch, 1, &taps);
  ASSERT_EQ(taps.size(), model_.layers.size());
  const auto hidden =
      ReferenceEncoder(model_, Precision::kF64)
          .Hidden(golden_.inputs[0].ids, golden_.inputs[0].type_ids);
  kernels::Team team(1, "test");
  for (int i = 0; i < taps.size(); ++i) {
    const FloatMatrix& x = taps[i].attention_input;
    ASSERT_EQ(x.size(), hidden[i].size());
    for (int j = 0; j < x.size(); ++j) {
      ASSERT_NEAR(x.data()[j], hidden[i][j], 1e-4) << i << ", " << j;
    }
    // The second half of the layer, from its taps.
    const auto ffn_in = ForwardLinear::Create(
        model_.layers[i].ffn_in, FeedForwardActivation(model_.shape), team);
    ASSERT_TRUE(ffn_in.ok()) << ffn_in.status();
    const auto inner = ffn_in->Run(taps[i].ffn_input, team);
    ASSERT_TRUE(inner.ok()) << inner.status();
    EXPECT_TRUE(std::equal(inner->data(), inner->data() + inner->size(),
                           taps[i].inner.data()));
    const auto output = ForwardLinear::Create(model_.layers[i].attention_output,
                                              kernels::Activation::kNone, team);
    ASSERT_TRUE(output.ok()) << output.status();
    const auto update = output->Run(taps[i].context, team);
    ASSERT_TRUE(update.ok()) << update.status();
    FloatMatrix after = taps[i].attention_input.Copy();
    const absl::Status status =
        AddAndNormalize(model_.layers[i].attention_norm,
                        model_.config.layer_norm_eps, *update, &after, team);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_TRUE(std::equal(after.data(), after.data() + after.size(),
                           taps[i].ffn_input.data()));
  }
}

TEST_P(ForwardTest, RefusesIdsOutsideTheTables) {
  TokenBatch batch;
  Encoding encoding;
  encoding.ids = {0, model_.shape.vocab};
  encoding.type_ids = {0, 0};
  batch.Add(encoding);
  const absl::Status refusal = RunModel(model_, batch, 1).status();
  EXPECT_EQ(refusal.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(refusal.message(), HasSubstr("outside the model's tables"));
}

INSTANTIATE_TEST_SUITE_P(AllModels, ForwardTest,
                         testing::ValuesIn(GoldenModelNames()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace svdserve
