#include "tools/compress/compress.h"

#include <limits>
#include <set>

#include "absl/strings/str_cat.h"
#include "engine/model/model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/tools/file_size_limit.h"
#include "tests/tools/tiny_model.h"

namespace svdserve {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr char kQuery[] = "encoder.layer.0.attention.self.query";

// An input, and a place beside it for the output.
class CompressTest : public testing::Test {
 protected:
  absl::StatusOr<CompressionReport> Compress() {
    model_.Write(root_ / "in");
    return CompressModel(options_);
  }
  CompressionReport CompressOrDie() {
    absl::StatusOr<CompressionReport> report = Compress();
    EXPECT_TRUE(report.ok()) << report.status();
    return report.ok() ? *std::move(report) : CompressionReport();
  }
  absl::Status RefusalOfCompress() { return Compress().status(); }

  Model LoadOutput() {
    absl::StatusOr<Model> model = LoadModel(options_.output);
    EXPECT_TRUE(model.ok()) << model.status();
    return model.ok() ? *std::move(model) : Model();
  }

  static std::set<std::string> Names(const fs::path& directory) {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory)) {
      names.insert(entry.path().filename().string());
    }
    return names;
  }

  const fs::path root_ = FreshDirectory();
  TinyModel model_;
  CompressOptions options_{
      .input = root_ / "in", .output = root_ / "out", .method = "svd"};
};

TEST_F(CompressTest, OutputLoadsWithTheReportedRanks) {
  const CompressionReport report = CompressOrDie();
  const Model model = LoadOutput();
  ASSERT_EQ(model.layers.size(), 2);
  for (const EncoderLayer& layer : model.layers) {
    EXPECT_EQ(layer.query.rank, report.forms[0].ranks[0]);
    EXPECT_EQ(layer.ffn_in.rank, report.forms[0].ranks[4]);
    EXPECT_EQ(layer.ffn_out.rank, report.forms[0].ranks[5]);
    EXPECT_EQ(layer.ffn_out.u.shape()[0], 128);
    EXPECT_EQ(layer.ffn_out.v.shape()[1], 64);
  }
  EXPECT_LE(report.kept_ratio(), 0.5);
}

TEST_F(CompressTest, LowRankMatrixIsRecovered) {
  std::vector<float> low(64 * 64);  // [out, in], rank 2
  for (int o = 0; o < 64; ++o) {
    for (int i = 0; i < 64; ++i) {
      low[o * 64 + i] = 0.01F * (o % 5) * (i % 7) - 0.02F * (o % 3) * (i % 11);
    }
  }
  model_.Set(absl::StrCat(kQuery, ".weight"), low);
  const CompressionReport report = CompressOrDie();
  EXPECT_EQ(report.matrices[0].name, kQuery);
  EXPECT_LT(report.matrices[0].relative_error, 1e-6);
  EXPECT_GT(report.matrices[1].relative_error, 0.1);  // random: full rank

  const Linear query = LoadOutput().layers[0].query;
  const std::vector<float> u = query.u.ToF32();
  const std::vector<float> v = query.v.ToF32();
  for (int i = 0; i < 64; ++i) {
    for (int o = 0; o < 64; ++o) {
      float product = 0;
      for (int r = 0; r < query.rank; ++r) {
        product += u[i * query.rank + r] * v[r * 64 + o];
      }
      ASSERT_NEAR(product, low[o * 64 + i], 1e-5) << i << ", " << o;
    }
  }
}

TEST_F(CompressTest, CopiesWhatIsNotWeights) {
  CompressOrDie();
  EXPECT_THAT(Names(options_.output),
              UnorderedElementsAre("config.json", "vocab.txt", "modules.json",
                                   "1_Pooling", "model.safetensors",
                                   "compression.json"));
  EXPECT_EQ(ReadText(root_ / "out" / "1_Pooling" / "config.json"),
            ReadText(root_ / "in" / "1_Pooling" / "config.json"));
  const Model dense = *LoadModel(options_.input);
  const Model small = LoadOutput();
  EXPECT_EQ(small.embeddings.word.ToF32(), dense.embeddings.word.ToF32());
  EXPECT_EQ(small.layers[1].ffn_in.bias.ToF32(),
            dense.layers[1].ffn_in.bias.ToF32());
}

TEST_F(CompressTest, ReportIsWrittenAndDoesNotDependOnThreads) {
  const CompressionReport report = CompressOrDie();
  const std::string written = ReadText(root_ / "out" / "compression.json");
  EXPECT_EQ(written, report.ToJson());
  const nlohmann::json json = nlohmann::json::parse(written);
  EXPECT_EQ(json["method"], "svd");
  EXPECT_EQ(json["matrices"].size(), 12);
  EXPECT_EQ(json["ranks"][0]["query"], report.forms[0].ranks[0]);

  const std::string weights = ReadText(root_ / "out" / "model.safetensors");
  options_.threads = 1;
  options_.force = true;
  EXPECT_EQ(CompressOrDie().ToJson(), written);
  EXPECT_EQ(ReadText(root_ / "out" / "model.safetensors"), weights);
}

TEST_F(CompressTest, RoundsAllWeightsToTheDtype) {
  options_.dtype = DType::kBF16;
  const CompressionReport report = CompressOrDie();
  EXPECT_EQ(report.dtype, "BF16");
  const Model model = LoadOutput();
  EXPECT_EQ(model.layers[0].query.u.dtype(), DType::kBF16);
  EXPECT_EQ(model.layers[0].query.bias.dtype(), DType::kBF16);
  EXPECT_EQ(model.embeddings.word.dtype(), DType::kBF16);
}

TEST_F(CompressTest, KeepsThePrefixOfTheNames) {
  std::map<std::string, RawTensor> prefixed;
  for (const auto& [name, tensor] : model_.tensors) {
    prefixed["bert." + name] = tensor;
  }
  model_.tensors = prefixed;
  CompressOrDie();
  const auto file = SafetensorsFile::Open(root_ / "out" / "model.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(file->entries().contains(absl::StrCat("bert.", kQuery, ".U")));
  EXPECT_FALSE(
      file->entries().contains(absl::StrCat("bert.", kQuery, ".weight")));
}

TEST_F(CompressTest, MatricesThatDoNotPayStayDense) {
  options_.ratio = 0.99;
  const CompressionReport report = CompressOrDie();
  const Model model = LoadOutput();
  int dense = 0;
  for (int k = 0; k < kMatrixKinds; ++k) dense += report.forms[0].ranks[k] == 0;
  EXPECT_GT(dense, 0);
  EXPECT_EQ(model.shape.layers[0].query, report.forms[0].ranks[0]);
  EXPECT_EQ(model.shape.layers[0].ffn_out, report.forms[0].ranks[5]);
}

TEST_F(CompressTest, RefusesABadRatioBeforeAnything) {
  options_.ratio = 1.5;
  EXPECT_THAT(RefusalOfCompress().message(), HasSubstr("ratio 1.5"));
  EXPECT_FALSE(fs::exists(options_.output));
}

TEST_F(CompressTest, RefusesNanAndNamesTheTensor) {
  std::vector<float> values(64 * 64, 0.1F);
  values[5] = std::numeric_limits<float>::quiet_NaN();
  model_.Set(absl::StrCat(kQuery, ".weight"), values);
  const absl::Status refusal = RefusalOfCompress();
  EXPECT_EQ(refusal.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(refusal.message(), HasSubstr(kQuery));
  EXPECT_THAT(Names(root_), UnorderedElementsAre("in"));
}

TEST_F(CompressTest, RefusesAnUnknownArchitecture) {
  const std::string bert = "\"BertModel\"";
  model_.config.replace(model_.config.find(bert), bert.size(),
                        "\"T5EncoderModel\"");
  EXPECT_THAT(RefusalOfCompress().message(), HasSubstr("T5EncoderModel"));
  EXPECT_THAT(Names(root_), UnorderedElementsAre("in"));
}

TEST_F(CompressTest, RefusesACompressedInput) {
  CompressOrDie();
  options_.input = options_.output;
  options_.output = root_ / "again";
  const absl::Status refusal = CompressModel(options_).status();
  EXPECT_EQ(refusal.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(refusal.message(), HasSubstr("compressed already"));
  EXPECT_THAT(Names(root_), UnorderedElementsAre("in", "out"));
}

TEST_F(CompressTest, RefusesAnOutputThatExistsUnlessForced) {
  CompressOrDie();
  EXPECT_EQ(RefusalOfCompress().code(), absl::StatusCode::kAlreadyExists);
  options_.force = true;
  options_.ratio = 0.25;
  CompressOrDie();
  EXPECT_EQ(nlohmann::json::parse(ReadText(
                root_ / "out" / "compression.json"))["ratio"]["requested"],
            0.25);
  EXPECT_THAT(Names(root_), UnorderedElementsAre("in", "out"));
}

TEST_F(CompressTest, NeverReplacesADirectoryThatIsNoModel) {
  fs::create_directories(root_ / "out" / "precious");
  options_.force = true;
  EXPECT_EQ(RefusalOfCompress().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(fs::exists(root_ / "out" / "precious"));
}

TEST_F(CompressTest, NeverReplacesItsInput) {
  options_.force = true;
  for (const fs::path& output :
       {root_ / "in", root_, root_ / "x" / ".." / "in"}) {
    options_.output = output;
    EXPECT_EQ(RefusalOfCompress().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(fs::exists(root_ / "in" / "model.safetensors"));
}

TEST_F(CompressTest, WritesNothingIntoItsInput) {
  options_.output = root_ / "in" / "out";
  EXPECT_THAT(RefusalOfCompress().message(), HasSubstr("lies in the input"));
  EXPECT_FALSE(fs::exists(options_.output));
}

TEST_F(CompressTest, ProgressGrowsToOne) {
  double last = 0;
  int calls = 0;
  options_.progress = [&](double share) {
    EXPECT_GE(share, last);
    last = share;
    ++calls;
    return true;
  };
  CompressOrDie();
  EXPECT_EQ(last, 1);
  EXPECT_GE(calls, 12);
}

TEST_F(CompressTest, InterruptionLeavesNothing) {
  int calls = 0;
  options_.progress = [&](double) { return ++calls < 3; };
  EXPECT_EQ(RefusalOfCompress().code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(Names(root_), UnorderedElementsAre("in"));
}

TEST_F(CompressTest, InterruptionAtTheEndLeavesTheOldOutput) {
  CompressOrDie();
  const std::string old = ReadText(root_ / "out" / "model.safetensors");
  options_.force = true;
  options_.ratio = 0.25;
  options_.progress = [](double share) { return share < 1; };
  EXPECT_EQ(RefusalOfCompress().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(ReadText(root_ / "out" / "model.safetensors"), old);
  EXPECT_THAT(Names(root_), UnorderedElementsAre("in", "out"));
}

TEST_F(CompressTest, FailedWriteLeavesNothing) {
  model_.Write(root_ / "in");
  absl::Status status;
  {
    const FileSizeLimit limit(20000);
    status = CompressModel(options_).status();
  }
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(status.message(), HasSubstr("model.safetensors"));
  EXPECT_THAT(Names(root_), UnorderedElementsAre("in"));
}

}  // namespace
}  // namespace svdserve
