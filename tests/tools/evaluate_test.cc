#include "tools/evaluate/evaluate.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/golden/golden.h"
#include "tests/tools/tiny_model.h"
#include "tools/compress/compress.h"
#include "tools/evaluate/output_file.h"
#include "tools/evaluate/spectra.h"
#include "tools/inspect/inspect.h"

namespace svdserve {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Optional;

namespace fs = std::filesystem;

constexpr char kGolden[] = "tests/golden/models/";

class EvaluateTest : public testing::Test {
 protected:
  EvaluateTest() {
    for (const GoldenInput& input : ReadGoldenModel("mean_normalize").inputs) {
      if (!input.text.empty()) texts_.texts.push_back(input.text);
    }
    for (int i = 0; i < 20; ++i) {
      texts_.texts.push_back("number " + std::to_string(i * 37));
    }
  }

  std::string Compress(const std::string& golden, double ratio) {
    const std::string output = root_ / (golden + std::to_string(ratio));
    const auto report = CompressModel({.input = kGolden + golden,
                                       .output = output,
                                       .ratio = ratio,
                                       .method = "svd"});
    EXPECT_TRUE(report.ok()) << report.status();
    return output;
  }

  // A golden model with something changed in one of its JSON files.
  std::string Changed(const std::string& golden, const std::string& file,
                      const std::string& from, const std::string& to) {
    const fs::path copy = root_ / ("changed_" + golden);
    fs::copy(kGolden + golden, copy, fs::copy_options::recursive);
    std::string text = ReadText(copy / file);
    const size_t place = text.find(from);
    EXPECT_NE(place, std::string::npos) << from;
    text.replace(place, from.size(), to);
    std::ofstream(copy / file) << text;
    return copy;
  }

  absl::Status ErrorOf(const std::string& dense, const std::string& other) {
    return Evaluate(dense, {other}, texts_).status();
  }

  const fs::path root_ = FreshDirectory();
  TextSet texts_ = {.source = "golden", .texts = {}};
};

TEST_F(EvaluateTest, AModelIsLikeItself) {
  const std::string model = std::string(kGolden) + "mean_normalize";
  const auto result = Evaluate(model, {model}, texts_);
  ASSERT_TRUE(result.ok()) << result.status();
  const ModelEvaluation& same = result->models.at(0);
  EXPECT_EQ(same.ratio, 1);
  EXPECT_NEAR(same.embedding->cosine.min, 1, 1e-12);
  EXPECT_EQ(same.embedding->neighbours.recall_at_1, 1);
  EXPECT_EQ(same.embedding->neighbours.recall_at_10, 1);
  EXPECT_THAT(same.embedding->similarities.spearman,
              Optional(testing::DoubleNear(1, 1e-12)));
  EXPECT_THAT(same.layer_errors, Each(Optional(0)));
  EXPECT_EQ(same.layer_errors.size(), result->dense.layers.size() + 1);
  EXPECT_TRUE(same.facts.compression.is_null());
}

TEST_F(EvaluateTest, MoreRanksAreNearer) {
  const auto result = Evaluate(
      std::string(kGolden) + "mean_normalize",
      {Compress("mean_normalize", 0.8), Compress("mean_normalize", 0.3)},
      texts_, {.threads = 1});
  ASSERT_TRUE(result.ok()) << result.status();
  const ModelEvaluation& large = result->models.at(0);
  const ModelEvaluation& small = result->models.at(1);
  EXPECT_LE(large.ratio, 0.8);
  EXPECT_LE(small.ratio, 0.3);
  EXPECT_GT(large.embedding->cosine.mean, small.embedding->cosine.mean);
  EXPECT_LT(*large.layer_errors.back(), *small.layer_errors.back());
  EXPECT_EQ(large.layer_errors.front(), 0);  // embeddings are not touched
  EXPECT_LT(small.facts.flops_per_token, large.facts.flops_per_token);
  EXPECT_LT(large.facts.flops_per_token, result->dense.flops_per_token);
  EXPECT_LT(small.facts.file_bytes, result->dense.file_bytes);
  EXPECT_EQ(small.facts.compression["method"], "svd");
  // Worst first, and no worse than the least.
  EXPECT_EQ(small.worst.front().cosine, small.embedding->cosine.min);
  EXPECT_LE(small.worst.front().cosine, small.worst.back().cosine);
}

TEST_F(EvaluateTest, CountsWhatAModelIs) {
  const std::string model = std::string(kGolden) + "mean_normalize";
  const auto result = Evaluate(model, {model}, texts_);
  ASSERT_TRUE(result.ok()) << result.status();
  const nlohmann::json config =
      nlohmann::json::parse(ReadText(model + "/config.json"));
  const int64_t d = config["hidden_size"];
  const int64_t f = config["intermediate_size"];
  const int64_t layers = config["num_hidden_layers"];
  const int64_t rows = config["vocab_size"].get<int64_t>() +
                       config["max_position_embeddings"].get<int64_t>() +
                       config["type_vocab_size"].get<int64_t>();
  const int64_t matrices = layers * (4 * d * d + 2 * d * f);
  EXPECT_EQ(result->dense.matrix_parameters, matrices);
  // Biases, and two norms a layer and one behind the embeddings.
  EXPECT_EQ(result->dense.parameters,
            matrices + rows * d + 2 * d + layers * (4 * d + f + d + 4 * d));
  EXPECT_EQ(result->dense.flops_per_token,
            2 * matrices + layers * 4 * result->dense.cost_tokens * d);
  EXPECT_EQ(result->dense.file_bytes,
            fs::file_size(model + "/model.safetensors"));
  const int tokens = result->dense.cost_tokens;
  EXPECT_EQ(tokens, std::min(256, result->max_tokens));
  const auto inspection = Inspect({.model = model,
                                   .plan = absl::StrCat("32x", tokens),
                                   .device = Device::kCuda,
                                   .backend = {}});
  ASSERT_TRUE(inspection.ok()) << inspection.status();
  EXPECT_EQ(result->dense.activation_bytes_per_token * 32 * tokens,
            inspection->plan->plan.peak_bytes);
}

TEST_F(EvaluateTest, ComparesClassifiers) {
  const std::string dense = std::string(kGolden) + "classify_5_labels_bf16";
  const auto result =
      Evaluate(dense, {dense, Compress("classify_5_labels_bf16", 0.3)}, texts_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->models[0].classification->argmax, 1);
  EXPECT_EQ(result->models[0].classification->max_error, 0);
  const ModelEvaluation& small = result->models[1];
  EXPECT_FALSE(small.embedding.has_value());
  EXPECT_GT(small.classification->mean_error, 0);
  EXPECT_EQ(small.worst.front().max_error, small.classification->max_error);
  EXPECT_THAT(result->labels, testing::Contains(small.worst[0].dense_label));
}

TEST_F(EvaluateTest, LongTextsAreCutAndCounted) {
  std::string text;
  for (int i = 0; i < 600; ++i) text += "12 ";
  texts_.texts.push_back(text);
  const std::string model = std::string(kGolden) + "mean_normalize";
  const auto result = Evaluate(model, {model}, texts_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->truncated, 1);
  EXPECT_THAT(result->ToText(), HasSubstr("1 of them were cut to"));
}

TEST_F(EvaluateTest, OneTextHasNoNeighbours) {
  texts_.texts.resize(1);
  const auto result = Evaluate(std::string(kGolden) + "mean_normalize",
                               {Compress("mean_normalize", 0.5)}, texts_);
  ASSERT_TRUE(result.ok()) << result.status();
  const auto json = nlohmann::json::parse(result->ToJson());
  const auto& fidelity = json["models"][0]["embedding"];
  EXPECT_TRUE(fidelity["neighbours"]["recall_at_1"].is_null());
  EXPECT_TRUE(fidelity["similarities"]["spearman"].is_null());
  EXPECT_THAT(result->ToText(), HasSubstr("recall@1 -"));
}

TEST_F(EvaluateTest, TheSameRunGivesTheSameBytes) {
  const std::string small = Compress("mean_normalize", 0.5);
  const auto run = [&](int threads) {
    const auto result = Evaluate(std::string(kGolden) + "mean_normalize",
                                 {small}, texts_, {.threads = threads});
    EXPECT_TRUE(result.ok()) << result.status();
    return nlohmann::json::parse(result->ToJson());
  };
  EXPECT_EQ(run(1), run(2));
}

TEST_F(EvaluateTest, ModelsOfOneNameAreToldApart) {
  const std::string small = Compress("mean_normalize", 0.5);
  const fs::path twin = root_ / "twin" / fs::path(small).filename();
  fs::create_directories(twin.parent_path());
  fs::copy(small, twin, fs::copy_options::recursive);
  const auto result =
      Evaluate(std::string(kGolden) + "mean_normalize", {small, twin}, texts_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->models[0].facts.name, small);
  EXPECT_EQ(result->models[1].facts.name, twin);
}

TEST_F(EvaluateTest, ThePageHoldsItsReportAndNothingFromElsewhere) {
  texts_.texts = {"</script><script>alert(1)</script>", "{{style}}"};
  const auto result = Evaluate(std::string(kGolden) + "mean_normalize",
                               {Compress("mean_normalize", 0.5)}, texts_);
  ASSERT_TRUE(result.ok()) << result.status();
  const std::string page = result->ToHtml();
  EXPECT_THAT(page, Not(HasSubstr("</script><script>alert")));
  EXPECT_THAT(page, HasSubstr("{{style}}"));  // the text is not filled in
  EXPECT_THAT(page, Not(HasSubstr("{{report}}")));
  EXPECT_THAT(page, Not(HasSubstr("src=")));
  const std::string head = "id=\"data\">";
  const size_t begin = page.find(head) + head.size();
  const std::string data = page.substr(begin, page.find("</script>") - begin);
  EXPECT_EQ(nlohmann::json::parse(data),
            nlohmann::json::parse(result->ToJson()));
}

TEST_F(EvaluateTest, RefusesWhatIsNotOfTheDenseModel) {
  const std::string dense = std::string(kGolden) + "mean_normalize";
  const std::string other = std::string(kGolden) + "classify_2_labels_f16";
  EXPECT_EQ(ErrorOf(dense, other).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(ErrorOf(dense, other).message(),
              HasSubstr("one embeds, the other classifies"));
  EXPECT_THAT(ErrorOf(dense, std::string(kGolden) + "head128_f16").message(),
              HasSubstr("hidden size 64 in the dense model, 128 in the other"));
  EXPECT_THAT(ErrorOf(std::string(kGolden) + "classify_2_labels_f16",
                      std::string(kGolden) + "classify_5_labels_bf16")
                  .message(),
              HasSubstr("was not made from classify_2_labels_f16: "));
}

TEST_F(EvaluateTest, RefusesAnotherTokenizer) {
  const std::string dense = std::string(kGolden) + "mean_normalize";
  const std::string other =
      Changed("mean_normalize", "tokenizer.json", "\"lowercase\": true",
              "\"lowercase\": false");
  texts_.texts = {"12", "The"};
  EXPECT_THAT(ErrorOf(dense, other).message(),
              HasSubstr("make other tokens of text 2"));
}

TEST_F(EvaluateTest, RefusesAnotherPooling) {
  const std::string dense = std::string(kGolden) + "mean_normalize";
  fs::copy(dense, root_ / "cls", fs::copy_options::recursive);
  std::ofstream(root_ / "cls/1_Pooling/config.json")
      << R"({"word_embedding_dimension": 64, "pooling_mode_cls_token": true,
             "pooling_mode_mean_tokens": false})";
  EXPECT_THAT(ErrorOf(dense, root_ / "cls").message(),
              HasSubstr("they pool in different ways"));
}

TEST_F(EvaluateTest, RefusesADamagedReportOfTheCompression) {
  const std::string small = Compress("mean_normalize", 0.5);
  std::ofstream(fs::path(small) / "compression.json") << "{\"method\": ";
  EXPECT_THAT(ErrorOf(std::string(kGolden) + "mean_normalize", small).message(),
              HasSubstr("compression.json is no JSON object"));
}

TEST_F(EvaluateTest, AModelThatIsNotThereIsMissedBeforeTheWork) {
  const std::string model = std::string(kGolden) + "mean_normalize";
  EXPECT_THAT(ErrorOf(root_ / "none", model).message(),
              HasSubstr("none/config.json: no such file"));
  const auto refusal =
      Evaluate(model, {model, root_ / "none"}, texts_,
               {.progress = [](const std::string& what) { FAIL() << what; }});
  EXPECT_EQ(refusal.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(refusal.status().message(),
              HasSubstr("none/config.json: no such file"));
}

TEST_F(EvaluateTest, SpectraFallFromTheLargestValue) {
  TinyModel model;
  // Its singular values are 1 to 64, in another order and with other signs.
  std::vector<float> weight(64 * 64);
  for (int i = 0; i < 64; ++i) {
    weight[i * 64 + (i * 7 + 3) % 64] = i % 2 == 0 ? i + 1.0F : -(i + 1.0F);
  }
  model.Set("encoder.layer.1.attention.self.key.weight", weight);
  const auto spectra = SpectraOf(model.Write(root_ / "tiny"), 2);
  ASSERT_TRUE(spectra.ok()) << spectra.status();
  ASSERT_EQ(spectra->size(), 12);
  const auto alone = SpectraOf(root_ / "tiny", 1);
  ASSERT_TRUE(alone.ok()) << alone.status();
  for (int i = 0; i < 12; ++i) {
    EXPECT_EQ(alone->at(i).values, spectra->at(i).values) << "every bit";
  }
  const Spectrum& key = spectra->at(7);
  EXPECT_EQ(key.layer, 1);
  EXPECT_STREQ(key.kind, "key");
  ASSERT_EQ(key.values.size(), 64);
  for (int i = 0; i < 64; ++i) EXPECT_NEAR(key.values[i], 64 - i, 1e-3);
}

// ---- Texts and files ----

class EvaluateFilesTest : public testing::Test {
 protected:
  std::string Write(const std::string& text) {
    std::ofstream(root_ / "texts.txt", std::ios::binary) << text;
    return root_ / "texts.txt";
  }
  const fs::path root_ = FreshDirectory();
};

TEST_F(EvaluateFilesTest, OneTextALine) {
  const auto set = ReadTexts(Write("one\r\n\n  \ntwo words\nthree"));
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_THAT(set->texts, ElementsAre("one", "two words", "three"));
  EXPECT_EQ(set->source, "texts.txt");
}

TEST_F(EvaluateFilesTest, NoTextIsAnError) {
  EXPECT_THAT(ReadTexts(Write("\n \r\n")).status().message(),
              HasSubstr("holds no text"));
  EXPECT_THAT(ReadTexts(root_ / "none").status().message(),
              HasSubstr("No such file"));
  EXPECT_THAT(ReadTexts(root_).status().message(),
              HasSubstr("is a directory; --text wants a file"));
  const std::string binary(
      "\x7f"
      "ELF\0\0text\n",
      11);
  EXPECT_THAT(ReadTexts(Write("text\n" + binary)).status().message(),
              HasSubstr("holds a zero byte"));
}

TEST_F(EvaluateFilesTest, TextsAreShortenedByCodePoints) {
  EXPECT_EQ(Shorten("äöü", 3), "äöü");
  EXPECT_EQ(Shorten("äöüß", 3), "äöü…");
  EXPECT_EQ(Shorten("", 3), "");
}

TEST_F(EvaluateFilesTest, OutputsAppearWholeOrNotAtAll) {
  const std::string path = root_ / "report.json";
  ASSERT_TRUE(WriteWhole(path, "first").ok());
  ASSERT_TRUE(WriteWhole(path, "second").ok());
  EXPECT_EQ(ReadText(path), "second");
  EXPECT_EQ(std::distance(fs::directory_iterator(root_), {}), 1);
}

TEST_F(EvaluateFilesTest, OutputsThatCannotBeAreFoundBefore) {
  EXPECT_THAT(CheckWritable(root_).message(), HasSubstr("is no file"));
  EXPECT_THAT(CheckWritable("/dev/null").message(), HasSubstr("is no file"));
  EXPECT_THAT(CheckWritable(root_ / "none/report.json").message(),
              HasSubstr("none/report.json cannot be written"));
  EXPECT_TRUE(CheckWritable(root_ / "report.json").ok());
  EXPECT_TRUE(fs::is_empty(root_));
}

}  // namespace
}  // namespace svdserve
