// The methods that look at activations, from directory to directory.
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/model/model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/tools/file_size_limit.h"
#include "tests/tools/tiny_model.h"
#include "tools/compress/compress.h"
#include "tools/compress/encoder_compression.h"
#include "tools/compress/linear_algebra.h"

namespace svdserve {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// Sentences of the tiny model's words.
std::string Sentences(int count, uint32_t seed) {
  constexpr const char* kWords[] = {"the",  "a",     "of",    "and",  "to",
                                    "is",   "red",   "green", "blue", "house",
                                    "tree", "river", "bird",  "sings"};
  std::mt19937 random(seed);
  std::string text;
  for (int i = 0; i < count; ++i) {
    const int words = static_cast<int>(3 + random() % 14);
    for (int w = 0; w < words; ++w) {
      absl::StrAppend(&text, kWords[random() % 14], w + 1 < words ? " " : "\n");
    }
  }
  return text;
}

class CompressCalibratedTest : public testing::Test {
 protected:
  CompressCalibratedTest() {
    WriteText("text", Sentences(400, 1));
    options_.calibration = {.path = root_ / "text", .tokens = 2000, .seed = 1};
  }
  void WriteText(const std::string& name, const std::string& text) {
    std::ofstream(root_ / name, std::ios::binary) << text;
  }
  absl::StatusOr<CompressionReport> Compress() {
    model_.Write(root_ / "in");
    return CompressModel(options_);
  }
  CompressionReport CompressOrDie() {
    absl::StatusOr<CompressionReport> report = Compress();
    EXPECT_TRUE(report.ok()) << report.status();
    return report.ok() ? *std::move(report) : CompressionReport();
  }
  // Of the output, on sentences that it was not calibrated with.
  double ErrorOfOutput() {
    WriteText("other", Sentences(200, 9));
    const Model dense = *LoadModel(options_.input);
    const absl::StatusOr<Model> small = LoadModel(options_.output);
    EXPECT_TRUE(small.ok()) << small.status();
    std::vector<CompressedLayer> layers;
    for (const EncoderLayer& layer : small->layers) {
      layers.push_back({.layer = layer});
    }
    const auto text = LoadCalibration(
        options_.input, dense, {.path = root_ / "other", .tokens = 1000});
    EXPECT_TRUE(text.ok()) << text.status();
    kernels::Team team(1, "test");
    const auto errors = *EmbeddingErrors(dense, layers, text->fit, team);
    return std::accumulate(errors.begin(), errors.end(), 0.0) / errors.size();
  }
  void ExpectNothingButTheInput() {
    EXPECT_FALSE(fs::exists(options_.output));
    for (const auto& entry : fs::directory_iterator(root_)) {
      EXPECT_THAT(entry.path().filename().string(),
                  testing::AnyOf("in", "text", "other"));
    }
  }

  const fs::path root_ = FreshDirectory();
  TinyModel model_;
  CompressOptions options_{.input = root_ / "in", .output = root_ / "out"};
};

TEST_F(CompressCalibratedTest, EveryMethodKeepsTheBudgetAndBeatsPlainSvd) {
  options_.method = "svd";
  CompressOrDie();
  const double plain = ErrorOfOutput();
  options_.force = true;
  for (const char* method : {"whitened", "component", "auto"}) {
    options_.method = method;
    const CompressionReport report = CompressOrDie();
    EXPECT_EQ(report.method, method);
    EXPECT_LE(report.kept_ratio(), 0.5);
    const double error = ErrorOfOutput();
    EXPECT_LT(error, plain) << method;
    EXPECT_NEAR(1 - error, report.calibration->kept.held_out_cosine, 0.1);
    EXPECT_THAT(report.calibration->held_out_texts,
                testing::Not(testing::IsEmpty()));
  }
}

TEST_F(CompressCalibratedTest, TheReportSaysWhatWasDone) {
  const CompressionReport report = CompressOrDie();
  const std::string written = ReadText(root_ / "out" / "compression.json");
  EXPECT_EQ(written, report.ToJson());
  const nlohmann::json json = nlohmann::json::parse(written);
  EXPECT_EQ(json["method"], "auto");
  EXPECT_EQ(json["budget"]["kind"], "ratio");
  EXPECT_EQ(json["calibration"]["source"], (root_ / "text").string());
  EXPECT_EQ(json["calibration"]["seed"], 1);
  EXPECT_GE(json["calibration"]["fit_tokens"], 2000);
  EXPECT_EQ(json["ranks"].size(), 2);
  EXPECT_EQ(json["matrices"].size(), 12);
  const Model model = *LoadModel(options_.output);
  for (int layer = 0; layer < 2; ++layer) {
    EXPECT_EQ(json["ranks"][layer]["ffn_out"],
              model.layers[layer].ffn_out.rank);
  }
  for (const nlohmann::json& matrix : json["matrices"]) {
    EXPECT_GE(matrix["output_error"], 0);
    EXPECT_LT(matrix["output_error"], 1.5);
  }
  EXPECT_THAT(report.ToTable(), HasSubstr("held-out text:"));
}

TEST_F(CompressCalibratedTest, TheBytesDependOnTheSeedNotOnThreads) {
  options_.threads = 1;
  CompressOrDie();
  const std::string weights = ReadText(root_ / "out" / "model.safetensors");
  const std::string report = ReadText(root_ / "out" / "compression.json");
  options_.force = true;
  options_.threads = 3;
  CompressOrDie();
  EXPECT_EQ(ReadText(root_ / "out" / "model.safetensors"), weights);
  EXPECT_EQ(ReadText(root_ / "out" / "compression.json"), report);
  options_.calibration.seed = 2;
  CompressOrDie();
  EXPECT_NE(ReadText(root_ / "out" / "model.safetensors"), weights);
}

TEST_F(CompressCalibratedTest, ComponentMakesNarrowHeadsOfFormatTwo) {
  options_.method = "component";
  options_.ratio = 0.45;
  const CompressionReport report = CompressOrDie();
  EXPECT_TRUE(report.HasNarrowHeads());
  const auto file = SafetensorsFile::Open(root_ / "out" / "model.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->metadata().at("svdserve.format"), "2");
  const Model model = *LoadModel(options_.output);
  for (int layer = 0; layer < 2; ++layer) {
    const EncoderLayer& made = model.layers[layer];
    const int width = report.forms[layer].query_dim;
    EXPECT_EQ(made.query.out, 2 * (width == 0 ? 32 : width));
    EXPECT_EQ(made.query.rank, 0);
  }
}

TEST_F(CompressCalibratedTest, LeastCosineIsKeptWithFewParameters) {
  options_.budget = Budget{Budget::Kind::kCosine, 0.9};
  const CompressionReport report = CompressOrDie();
  EXPECT_GE(report.calibration->kept.held_out_cosine, 0.9);
  EXPECT_LT(report.kept_ratio(), 0.95);
  options_.force = true;
  options_.budget->value = 0.98;
  EXPECT_GE(CompressOrDie().kept_ratio(), report.kept_ratio());
}

TEST_F(CompressCalibratedTest, LeastCosineThatNoRatioReachesIsRefused) {
  options_.budget = Budget{Budget::Kind::kCosine, std::nextafter(1.0, 0.0)};
  EXPECT_THAT(Compress().status().message(),
              HasSubstr("is not reached: ratio 0.95 gives"));
  ExpectNothingButTheInput();
}

TEST_F(CompressCalibratedTest, FactorsAloneKeepEveryLayerFused) {
  options_.method = "whitened";
  options_.ratio = 0.5;
  const CompressionReport report = CompressOrDie();
  for (const LayerForm& form : report.forms) {
    EXPECT_GT(form.ranks[static_cast<int>(MatrixKind::kValue)], 0);
    EXPECT_GT(form.ranks[static_cast<int>(MatrixKind::kFfnIn)], 0);
  }
  EXPECT_LT(report.activation_bytes_per_token,
            report.dense_activation_bytes_per_token);
  // Ranks end before this ratio: the rest of it goes to dense matrices.
  options_.force = true;
  options_.ratio = 0.97;
  EXPECT_GT(CompressOrDie().kept_ratio(), 0.9);
}

TEST_F(CompressCalibratedTest, ActivationBytesAreWithinTheBudget) {
  options_.ratio = 0.7;
  const double bytes = CompressOrDie().activation_bytes_per_token;
  options_.force = true;
  options_.budget = Budget{Budget::Kind::kActivationBytes, bytes};
  EXPECT_LE(CompressOrDie().activation_bytes_per_token, bytes);
  options_.budget->value = 1;
  EXPECT_THAT(Compress().status().message(), HasSubstr("the least is"));
}

// `auto` compares heads of two widths where both are possible.
TEST_F(CompressCalibratedTest, AutoSaysWhatItCompared) {
  const CompressionReport report = CompressOrDie();
  ASSERT_TRUE(report.calibration->rejected.has_value());
  const Candidate& kept = report.calibration->kept;
  const Candidate& rejected = *report.calibration->rejected;
  EXPECT_NE(kept.narrow_heads, rejected.narrow_heads);
  EXPECT_EQ(kept.narrow_heads, report.HasNarrowHeads());
  EXPECT_EQ(kept.activation_bytes_per_token, report.activation_bytes_per_token);
  // Narrower heads take more bytes: they are kept for a higher cosine only.
  EXPECT_TRUE(!kept.narrow_heads ||
              kept.held_out_cosine > rejected.held_out_cosine);
  EXPECT_THAT(report.ToTable(), HasSubstr("auto:             kept "));
  const auto json = nlohmann::json::parse(report.ToJson())["calibration"];
  EXPECT_EQ(json["rejected"]["held_out_mean_cosine"], rejected.held_out_cosine);

  options_.force = true;
  for (const char* method : {"whitened", "component"}) {
    options_.method = method;
    EXPECT_FALSE(CompressOrDie().calibration->rejected.has_value());
  }
}

TEST_F(CompressCalibratedTest, RoundsToTheDtype) {
  options_.dtype = DType::kF16;
  CompressOrDie();
  const Model model = *LoadModel(options_.output);
  for (const EncoderLayer& layer : model.layers) {
    const Linear& linear = layer.ffn_out;
    EXPECT_EQ((linear.rank > 0 ? linear.u : linear.weight).dtype(),
              DType::kF16);
    EXPECT_EQ(layer.ffn_out.bias.dtype(), DType::kF16);
  }
}

TEST_F(CompressCalibratedTest, RefusesEmptyTinyAndAbsentText) {
  WriteText("text", "\n\n");
  EXPECT_THAT(Compress().status().message(), HasSubstr("holds no text"));
  WriteText("text", "the bird sings\n");
  EXPECT_THAT(Compress().status().message(), HasSubstr("has only"));
  fs::remove(root_ / "text");
  EXPECT_EQ(Compress().status().code(), absl::StatusCode::kNotFound);
  ExpectNothingButTheInput();
}

TEST_F(CompressCalibratedTest, RefusesAnUnknownMethodAndABadBudget) {
  options_.method = "asvd";
  EXPECT_THAT(Compress().status().message(),
              HasSubstr("known: auto, whitened, component, svd"));
  options_.method = "svd";
  options_.budget = Budget{Budget::Kind::kCosine, 0.9};
  EXPECT_THAT(Compress().status().message(), HasSubstr("svd takes a ratio"));
  options_.method = "auto";
  options_.budget->value = 1.5;
  EXPECT_THAT(Compress().status().message(), HasSubstr("least cosine 1.5"));
  options_.budget.reset();
  options_.ratio = 0.01;
  EXPECT_THAT(Compress().status().message(), HasSubstr("too small"));
  ExpectNothingButTheInput();
}

TEST_F(CompressCalibratedTest, RefusesActivationsThatOverflow) {
  // Finite weights, infinite products.
  model_.Set("encoder.layer.0.output.dense.weight",
             std::vector<float>(64 * 128, 3e38F));
  const absl::Status refusal = Compress().status();
  EXPECT_EQ(refusal.code(), absl::StatusCode::kInvalidArgument) << refusal;
  EXPECT_THAT(refusal.message(), HasSubstr("activations"));
  ExpectNothingButTheInput();
}

TEST_F(CompressCalibratedTest, FailedWriteLeavesNothing) {
  model_.Write(root_ / "in");
  for (const char* method : {"auto", "whitened", "component"}) {
    options_.method = method;
    absl::Status status;
    {
      const FileSizeLimit limit(20000);
      status = CompressModel(options_).status();
    }
    EXPECT_THAT(status.message(), HasSubstr("model.safetensors")) << method;
    EXPECT_THAT(status.message(), HasSubstr("cannot be written")) << method;
    ExpectNothingButTheInput();
  }
}

TEST_F(CompressCalibratedTest, ProgressGrowsToOneAndInterruptionLeavesNothing) {
  double last = 0;
  options_.progress = [&](double share) {
    EXPECT_GE(share, last);
    last = share;
    return true;
  };
  CompressOrDie();
  EXPECT_EQ(last, 1);
  fs::remove_all(options_.output);
  for (int stop = 1; stop <= 4; ++stop) {
    int calls = 0;
    options_.progress = [&](double) { return ++calls < stop; };
    EXPECT_EQ(Compress().status().code(), absl::StatusCode::kCancelled);
    ExpectNothingButTheInput();
  }
}

}  // namespace
}  // namespace svdserve
