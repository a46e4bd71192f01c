#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/model/tiny_test.h"

namespace svdserve {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

Model LoadGolden(const std::string& name) {
  absl::StatusOr<Model> model = LoadModel("tests/golden/models/" + name);
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? *std::move(model) : Model();
}

TEST(LoadModel, ReadsASentenceModel) {
  const Model model = LoadGolden("mean_normalize");
  EXPECT_EQ(model.config.name, "mean_normalize");
  EXPECT_EQ(model.config.task, Task::kEmbedding);
  EXPECT_EQ(model.config.pooling, Pooling::kMean);
  EXPECT_TRUE(model.config.normalize);
  EXPECT_EQ(model.config.max_tokens, 64);
  EXPECT_THAT(model.config.prompts,
              ElementsAre(Pair("document", ""), Pair("passage", "text: "),
                          Pair("query", "query: ")));
  EXPECT_EQ(model.config.default_prompt, "query");
  EXPECT_THAT(model.head, IsEmpty());

  EXPECT_EQ(model.shape.hidden, 64);
  EXPECT_EQ(model.shape.heads, 2);
  EXPECT_EQ(model.shape.head_dim, 32);
  EXPECT_EQ(model.shape.intermediate, 96);
  EXPECT_EQ(model.shape.vocab, 91);
  EXPECT_EQ(model.shape.max_positions, 80);
  EXPECT_EQ(model.shape.type_vocab, 2);
  EXPECT_EQ(model.shape.max_tokens, 64);
  EXPECT_THAT(model.shape.layers, ElementsAre(LayerShape(), LayerShape()));
  EXPECT_EQ(model.shape.output_width(), 64);
}

TEST(LoadModel, ReadsDenseModules) {
  const Model model = LoadGolden("max_dense");
  EXPECT_EQ(model.config.pooling, Pooling::kMax);
  ASSERT_EQ(model.head.size(), 2);
  EXPECT_EQ(model.head[0].activation, HeadActivation::kTanh);
  EXPECT_FALSE(model.head[0].linear.bias.empty());
  EXPECT_EQ(model.head[1].activation, HeadActivation::kIdentity);
  EXPECT_TRUE(model.head[1].linear.bias.empty());
  EXPECT_THAT(model.shape.head_widths, ElementsAre(32, 24));
  EXPECT_EQ(model.shape.output_width(), 24);
}

TEST(LoadModel, ReadsAClassifier) {
  const Model model = LoadGolden("classify_5_labels_bf16");
  EXPECT_EQ(model.config.task, Task::kClassification);
  EXPECT_EQ(model.config.pooling, Pooling::kCls);
  EXPECT_THAT(model.config.labels, ElementsAre("A", "B", "C", "D", "E"));
  EXPECT_EQ(model.shape.activation, Activation::kRelu);
  ASSERT_EQ(model.head.size(), 2);
  EXPECT_EQ(model.head[0].activation, HeadActivation::kTanh);
  EXPECT_THAT(model.shape.head_widths, ElementsAre(64, 5));
  EXPECT_EQ(model.head[1].linear.weight.dtype(), DType::kBF16);
}

TEST(LoadModel, ReadsRanksMatrixByMatrix) {
  const Model model = LoadGolden("mixed_bf16");
  EXPECT_THAT(model.shape.layers,
              ElementsAre(LayerShape{.query = 16,
                                     .key = 16,
                                     .value = 16,
                                     .attention_output = 16,
                                     .ffn_in = 19},
                          LayerShape{.key = 8, .ffn_out = 21}));
  const Linear& ffn = model.layers[0].ffn_in;
  EXPECT_THAT(ffn.u.shape(), ElementsAre(64, 19));
  EXPECT_THAT(ffn.v.shape(), ElementsAre(19, 96));
  EXPECT_TRUE(ffn.weight.empty());
}

TEST(LoadModel, CountsBytesAsStoredAndAsIfDense) {
  const Model dense = LoadGolden("mean_normalize");
  EXPECT_EQ(dense.WeightBytes(), dense.DenseEquivalentBytes());
  const Model factored = LoadGolden("factored");
  EXPECT_EQ(factored.DenseEquivalentBytes(), dense.WeightBytes());
  // Both layers: ranks times (in + out), against in times out.
  const int saved = 2 * (4 * 64 * 64 + 64 * 96) -
                    2 * (13 + 16 + 24 + 20) * 128 - 2 * 25 * 160 + 2 * 64 * 96 -
                    (32 + 7) * 160;
  EXPECT_EQ(dense.WeightBytes() - factored.WeightBytes(), saved * 4);
}

TEST(LoadModel, ReadsShardsAndOldNames) {
  EXPECT_EQ(LoadGolden("sharded_head16").shape.head_dim, 16);
  const Model old = LoadGolden("mean_old_files");
  EXPECT_EQ(old.config.max_tokens, 48);
  EXPECT_FALSE(old.layers[0].ffn_norm.gamma.empty());
}

TEST_F(TinyTest, DefaultsToMeanPooling) {
  const Model model = Load();
  EXPECT_EQ(model.config.task, Task::kEmbedding);
  EXPECT_EQ(model.config.pooling, Pooling::kMean);
  EXPECT_FALSE(model.config.normalize);
  EXPECT_EQ(model.config.max_tokens, 4);
}

TEST_F(TinyTest, KeepsTheWeights) {
  const Model model = Load();
  const auto expected = ToTensor(SomeWeights({24, 16}));
  EXPECT_EQ(model.layers[0].ffn_in.weight.ToF32(), expected->ToF32());
}

TEST_F(TinyTest, IgnoresBuffersAndOtherHeads) {
  tiny_.tensors["embeddings.position_ids"] = {
      "I64", {1, 4}, SomeWeights({8}).bytes, 32};
  tiny_.Add("pooler.dense.weight", {3, 3});
  tiny_.Add("cls.predictions.bias", {8});
  EXPECT_EQ(Load().shape.hidden, 16);
}

TEST_F(TinyTest, NamesAMissingTensor) {
  tiny_.tensors.erase(query_ + ".bias");
  EXPECT_THAT(Refused(query_ + ".bias"), HasSubstr("is missing"));
}

TEST_F(TinyTest, NamesAnUnexpectedTensor) {
  tiny_.Add("encoder.layer.1.output.dense.bias", {16});
  EXPECT_THAT(Refused("encoder.layer.1.output.dense.bias"),
              HasSubstr("not part of this architecture"));
}

TEST_F(TinyTest, NamesAWrongShape) {
  tiny_.Add(ffn_in_ + ".weight", {16, 24});
  EXPECT_THAT(Refused(ffn_in_ + ".weight"),
              HasSubstr("its shape is [16, 24], expected [24, 16]"));
}

TEST_F(TinyTest, NamesAWrongDtype) {
  tiny_.tensors[query_ + ".bias"] = {"I32", {16}, SomeWeights({16}).bytes, 64};
  EXPECT_THAT(Refused(query_ + ".bias"), HasSubstr("dtype is I32"));
}

TEST_F(TinyTest, RefusesOneTensorUnderTwoNames) {
  tiny_.Add("bert." + query_ + ".bias", {16});
  EXPECT_THAT(Refused(query_ + ".bias"), HasSubstr("is also in"));
}

TEST_F(TinyTest, RefusesWeightsThatAreNotFinite) {
  for (const float bad : {std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> values(16, 1);
    values[11] = bad;
    tiny_.tensors[query_ + ".bias"] =
        ToRawTensor(Tensor::FromF32({16}, values));
    EXPECT_THAT(Refused(query_ + ".bias"), HasSubstr("NaN or infinity"));
  }
}

TEST_F(TinyTest, RefusesHalvesThatAreNotFinite) {
  for (const auto& [dtype, infinity] :
       {std::pair<const char*, uint16_t>{"F16", 0xfc00}, {"BF16", 0x7f80}}) {
    std::shared_ptr<std::byte[]> bytes(new std::byte[32]());
    tiny_.tensors[query_ + ".bias"] = {dtype, {16}, bytes, 32};
    EXPECT_EQ(Load().shape.hidden, 16);
    std::memcpy(bytes.get() + 30, &infinity, 2);
    EXPECT_THAT(Refused(query_ + ".bias"), HasSubstr("NaN or infinity"));
  }
}

TEST_F(TinyTest, ReadsFactors) {
  tiny_.Factor(ffn_in_, {16, 5}, {5, 24});
  const Model model = Load();
  EXPECT_EQ(model.layers[0].ffn_in.rank, 5);
  EXPECT_THAT(model.shape.layers, ElementsAre(LayerShape{.ffn_in = 5}));
}

TEST_F(TinyTest, RefusesFactorsThatDoNotFit) {
  tiny_.Factor(ffn_in_, {16, 5}, {6, 24});
  EXPECT_THAT(Refused(ffn_in_ + ".V"), HasSubstr("expected [5, 24]"));
  tiny_.Factor(ffn_in_, {24, 5}, {5, 16});
  EXPECT_THAT(Refused(ffn_in_ + ".U"), HasSubstr("expected [16, 5]"));
  tiny_.Factor(ffn_in_, {16, 17}, {17, 24});
  EXPECT_THAT(Refused(ffn_in_ + ".U"), HasSubstr("rank from 1 to 16"));
  tiny_.Factor(ffn_in_, {16, 0}, {0, 24});
  EXPECT_THAT(Refused(ffn_in_ + ".U"), HasSubstr("rank from 1 to 16"));
  tiny_.Factor(ffn_in_, {80}, {5, 24});
  EXPECT_THAT(Refused(ffn_in_ + ".U"), HasSubstr("rank from 1 to 16"));
}

TEST_F(TinyTest, RefusesHalfAPair) {
  tiny_.Factor(ffn_in_, {16, 5}, {5, 24});
  tiny_.tensors.erase(ffn_in_ + ".V");
  EXPECT_THAT(Refused(ffn_in_ + ".U"), HasSubstr("comes without"));
}

TEST_F(TinyTest, RefusesFactorsBesideTheMatrix) {
  tiny_.Factor(ffn_in_, {16, 5}, {5, 24});
  tiny_.Add(ffn_in_ + ".weight", {24, 16});
  EXPECT_THAT(Refused(ffn_in_ + ".U"), HasSubstr("also stored dense"));
}

TEST_F(TinyTest, FactorsNeedTheFormatsVersion) {
  tiny_.Factor(ffn_in_, {16, 5}, {5, 24});
  tiny_.metadata.clear();
  EXPECT_THAT(Refused(ffn_in_ + ".U"), HasSubstr("lacks svdserve.format"));
  tiny_.metadata["svdserve.format"] = "3";
  EXPECT_EQ(Status().code(), absl::StatusCode::kUnimplemented);
}

TEST_F(TinyTest, EmbeddingsAreNeverFactored) {
  tiny_.Factor("embeddings.word_embeddings", {8, 2}, {2, 16});
  EXPECT_THAT(Refused("embeddings.word_embeddings.weight"),
              HasSubstr("is missing"));
}

TEST_F(TinyTest, ClassifierNeedsItsHead) {
  tiny_.config["architectures"] = {"BertForSequenceClassification"};
  tiny_.Add("pooler.dense.weight", {16, 16});
  tiny_.Add("pooler.dense.bias", {16});
  EXPECT_THAT(Refused("classifier.weight"), HasSubstr("is missing"));
  tiny_.Add("classifier.weight", {3, 16});
  tiny_.Add("classifier.bias", {3});
  EXPECT_THAT(Refused("classifier.weight"), HasSubstr("expected [2, 16]"));
  tiny_.config["id2label"] = {{"0", "a"}, {"1", "b"}, {"2", "c"}};
  EXPECT_EQ(Load().shape.output_width(), 3);
}

TEST_F(TinyTest, CrossEncoderListsTheTransformerAlone) {
  tiny_.files["modules.json"] = R"([{"type": "a.Transformer", "path": ""}])";
  EXPECT_EQ(Status().code(), absl::StatusCode::kUnimplemented);
  tiny_.config["architectures"] = {"BertForSequenceClassification"};
  tiny_.Add("pooler.dense.weight", {16, 16});
  tiny_.Add("pooler.dense.bias", {16});
  tiny_.Add("classifier.weight", {2, 16});
  tiny_.Add("classifier.bias", {2});
  EXPECT_EQ(Load().config.task, Task::kClassification);
}

TEST_F(TinyTest, DenseModuleNeedsSafetensors) {
  tiny_.files["modules.json"] =
      R"([{"type": "a.Transformer", "path": ""},
          {"type": "a.Pooling", "path": "1"}, {"type": "a.Dense", "path": "2"}])";
  tiny_.files["1/config.json"] = R"({"pooling_mode": "mean"})";
  tiny_.files["2/config.json"] = R"({"in_features": 16, "out_features": 4})";
  EXPECT_EQ(Status().code(), absl::StatusCode::kNotFound);
  tiny_.files["2/pytorch_model.bin"] = "pickle";
  EXPECT_THAT(std::string(Status().message()),
              AllOf(HasSubstr("2/pytorch_model.bin"), HasSubstr("convert")));
}

TEST(LoadModel, SaysWhatIsNotThere) {
  EXPECT_THAT(std::string(LoadModel("no/such/place").status().message()),
              HasSubstr("no/such/place/config.json: no such file"));
  const std::string directory = FreshDirectory("no_weights");
  WriteFile(directory + "/config.json", TinyCheckpoint().config.dump());
  absl::Status status = LoadModel(directory).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("model.safetensors"));
  WriteFile(directory + "/pytorch_model.bin", "pickle");
  status = LoadModel(directory).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("save_pretrained"));
}

TEST(LoadModel, RefusesADamagedIndex) {
  const std::string directory = FreshDirectory("sharded");
  std::filesystem::copy("tests/golden/models/sharded_head16", directory);
  const std::string index = directory + "/model.safetensors.index.json";
  const std::string good = ReadFile(index);
  const auto refused = [&](const std::string& from, const std::string& to) {
    std::string bent = good;
    bent.replace(bent.find(from), from.size(), to);
    WriteFile(index, bent);
    const absl::Status status = LoadModel(directory).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  };
  EXPECT_THAT(refused("weight_map", "weights"), HasSubstr("\"weight_map\""));
  EXPECT_THAT(refused("embeddings.LayerNorm.bias", "other"),
              HasSubstr("\"other\": is not in"));
  EXPECT_THAT(refused("model-00001", "../00001"), HasSubstr("same directory"));
  EXPECT_THAT(
      refused("-00001-of-00002.safetensors\"", "-00002-of-00002.safetensors\""),
      HasSubstr("as stated"));
  WriteFile(index, good);
  std::filesystem::remove(directory + "/model-00002-of-00002.safetensors");
  EXPECT_EQ(LoadModel(directory).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace svdserve
