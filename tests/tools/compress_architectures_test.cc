// Compression of each architecture's golden models: factors are stored under
// the names that the original has.
#include <filesystem>
#include <string>

#include "engine/model/model.h"
#include "engine/model/safetensors.h"
#include "gtest/gtest.h"
#include "tests/tools/tiny_model.h"
#include "tools/compress/compress.h"

namespace svdserve {
namespace {

namespace fs = std::filesystem;

struct Case {
  const char* model;
  const char* query;    // without ".weight"
  const char* ffn_out;  // of the last layer
  const char* head;     // is not factored
};

class CompressArchitecturesTest : public testing::TestWithParam<Case> {
 protected:
  const std::string input_ =
      std::string("tests/golden/models/") + GetParam().model;
  const std::string output_ = FreshDirectory() / "out";
};

TEST_P(CompressArchitecturesTest, KeepsTheNamesOfTheOriginal) {
  const auto report = CompressModel(
      {.input = input_, .output = output_, .ratio = 0.5, .method = "svd"});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_LE(report->kept_ratio(), 0.5);
  const auto before = SafetensorsFile::Open(input_ + "/model.safetensors");
  const auto after = SafetensorsFile::Open(output_ + "/model.safetensors");
  ASSERT_TRUE(before.ok() && after.ok());
  for (const std::string name : {GetParam().query, GetParam().ffn_out}) {
    EXPECT_TRUE(before->entries().contains(name + ".weight")) << name;
    EXPECT_FALSE(after->entries().contains(name + ".weight")) << name;
    EXPECT_TRUE(after->entries().contains(name + ".U")) << name;
    EXPECT_TRUE(after->entries().contains(name + ".V")) << name;
  }
  size_t tensors = before->entries().size();
  for (const MatrixReport& matrix : report->matrices) {
    if (matrix.rank > 0) ++tensors;  // two in the place of one
  }
  EXPECT_EQ(after->entries().size(), tensors);
  if (*GetParam().head != '\0') {
    EXPECT_TRUE(after->entries().contains(GetParam().head));
  }
}

TEST_P(CompressArchitecturesTest, OutputIsTheSameModelWithFactors) {
  const auto report = CompressModel(
      {.input = input_, .output = output_, .ratio = 0.5, .method = "svd"});
  ASSERT_TRUE(report.ok()) << report.status();
  const auto dense = LoadModel(input_);
  const auto small = LoadModel(output_);
  ASSERT_TRUE(dense.ok()) << dense.status();
  ASSERT_TRUE(small.ok()) << small.status();
  EXPECT_EQ(small->config.task, dense->config.task);
  EXPECT_EQ(small->config.max_tokens, dense->config.max_tokens);
  EXPECT_EQ(small->embeddings.position.ToF32(),
            dense->embeddings.position.ToF32());
  ASSERT_EQ(small->layers.size(), dense->layers.size());
  for (const EncoderLayer& layer : small->layers) {
    EXPECT_GT(layer.query.rank, 0);
    EXPECT_GT(layer.ffn_out.rank, 0);
  }
  for (const char* file : {"config.json", "tokenizer.json"}) {
    EXPECT_EQ(ReadText(fs::path(output_) / file),
              ReadText(fs::path(input_) / file));
  }
}

TEST_P(CompressArchitecturesTest, ACompressedModelIsNotCompressedAgain) {
  ASSERT_TRUE(
      CompressModel(
          {.input = input_, .output = output_, .ratio = 0.5, .method = "svd"})
          .ok());
  const auto again = CompressModel({.input = output_,
                                    .output = output_ + "2",
                                    .ratio = 0.5,
                                    .method = "svd"});
  EXPECT_EQ(again.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(fs::exists(output_ + "2"));
}

INSTANTIATE_TEST_SUITE_P(
    Models, CompressArchitecturesTest,
    testing::Values(Case{"roberta", "encoder.layer.0.attention.self.query",
                         "encoder.layer.1.output.dense", ""},
                    Case{"xlm_roberta_rerank",
                         "roberta.encoder.layer.0.attention.self.query",
                         "roberta.encoder.layer.1.output.dense",
                         "classifier.out_proj.weight"},
                    Case{"distilbert_classify",
                         "distilbert.transformer.layer.0.attention.q_lin",
                         "distilbert.transformer.layer.0.ffn.lin2",
                         "pre_classifier.weight"},
                    Case{"mean_old_files",
                         "bert.encoder.layer.0.attention.self.query",
                         "bert.encoder.layer.0.output.dense", ""}),
    [](const auto& info) { return info.param.model; });

}  // namespace
}  // namespace svdserve
