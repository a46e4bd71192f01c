#include "engine/model/bert_config.h"

#include <string>
#include <utility>

#include "engine/model/strict_json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/model/tiny_checkpoint.h"

namespace svdserve {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class BertConfigTest : public testing::Test {
 protected:
  BertConfig Parse() {
    absl::StatusOr<BertConfig> config = ParseBertConfig(json_, "config.json");
    EXPECT_TRUE(config.ok()) << config.status();
    return config.ok() ? *config : BertConfig();
  }
  void ExpectRefused(const std::string& key, const json& value,
                     absl::StatusCode code, const std::string& message) {
    json bent = json_;
    bent[key] = value;
    const absl::Status status = ParseBertConfig(bent, "config.json").status();
    EXPECT_EQ(status.code(), code) << key << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("config.json: \"" + key + "\""));
  }

  json json_ = TinyCheckpoint().config;
};

TEST_F(BertConfigTest, ReadsSizes) {
  const BertConfig config = Parse();
  EXPECT_EQ(config.hidden, 16);
  EXPECT_EQ(config.heads, 1);
  EXPECT_EQ(config.layers, 1);
  EXPECT_EQ(config.intermediate, 24);
  EXPECT_EQ(config.vocab, 8);
  EXPECT_EQ(config.max_positions, 4);
  EXPECT_EQ(config.type_vocab, 2);
  EXPECT_EQ(config.layer_norm_eps, 1e-12f);
  EXPECT_EQ(config.task, Task::kEmbedding);
}

TEST_F(BertConfigTest, KnowsActivations) {
  json_["hidden_act"] = "relu";
  EXPECT_EQ(Parse().activation, Activation::kRelu);
  json_["hidden_act"] = "gelu_new";
  EXPECT_EQ(Parse().activation, Activation::kGeluTanh);
  json_["hidden_act"] = "gelu_pytorch_tanh";
  EXPECT_EQ(Parse().activation, Activation::kGeluTanh);
  json_.erase("hidden_act");
  EXPECT_EQ(Parse().activation, Activation::kGelu);
}

TEST_F(BertConfigTest, ReadsLabelsInOrder) {
  json_["architectures"] = {"BertForSequenceClassification"};
  json_["id2label"] = json::object();
  for (int i = 0; i < 11; ++i) {  // as text, "10" sorts before "2"
    json_["id2label"][std::to_string(i)] = std::string(1, 'a' + i);
  }
  const BertConfig config = Parse();
  EXPECT_EQ(config.task, Task::kClassification);
  EXPECT_THAT(config.labels, ElementsAre("a", "b", "c", "d", "e", "f", "g", "h",
                                         "i", "j", "k"));
}

TEST_F(BertConfigTest, NamesTwoLabelsAsTransformersDoes) {
  json_["architectures"] = {"BertForSequenceClassification"};
  EXPECT_THAT(Parse().labels, ElementsAre("LABEL_0", "LABEL_1"));
}

TEST_F(BertConfigTest, PretrainingHeadsAreIgnored) {
  json_["architectures"] = {"BertForMaskedLM"};
  EXPECT_EQ(Parse().task, Task::kEmbedding);
}

TEST_F(BertConfigTest, NamesWhatIsNotServed) {
  const auto code = absl::StatusCode::kUnimplemented;
  for (const char* type : {"xlm-roberta-xl", "longformer", "deberta-v2"}) {
    ExpectRefused("model_type", type, code,
                  std::string("is \"") + type +
                      "\"; served are bert, roberta, xlm-roberta, distilbert");
  }
  ExpectRefused("architectures", {"RobertaModel"}, code,
                "BertForPreTraining, BertForSequenceClassification");
  ExpectRefused("architectures", {"BertForTokenClassification"}, code,
                "BertForTokenClassification");
  ExpectRefused("position_embedding_type", "relative_key", code,
                "relative_key");
  ExpectRefused("hidden_act", "silu", code, "silu");
  ExpectRefused("is_decoder", true, code, "only encoders");
  ExpectRefused("add_cross_attention", true, code, "only encoders");
  ExpectRefused("pruned_heads", {{"0", {0}}}, code, "pruning");
  ExpectRefused("quantization_config", {{"bits", 4}}, code, "must be F32");
  ExpectRefused("num_attention_heads", 2, code, "heads of width 8");
}

TEST_F(BertConfigTest, ReadsRoberta) {
  for (const TinyCheckpoint& tiny :
       {TinyCheckpoint::Roberta(), TinyCheckpoint::XlmRoberta()}) {
    json_ = tiny.config;
    EXPECT_EQ(Parse().architecture->model_type, json_["model_type"]);
    EXPECT_EQ(Parse().max_positions, 4);
    EXPECT_EQ(Parse().unused_positions, 2);
    EXPECT_EQ(Parse().type_vocab, 1);
    json_["layer_norm_eps"] = 1e-5;
    EXPECT_EQ(Parse().layer_norm_eps, 1e-5f);
    json_.erase("pad_token_id");  // 1, as in transformers
    json_.erase("type_vocab_size");
    EXPECT_EQ(Parse().unused_positions, 2);
    EXPECT_EQ(Parse().type_vocab, 2);
    json_["pad_token_id"] = 4;
    EXPECT_EQ(Parse().max_positions, 1);
  }
  ExpectRefused("pad_token_id", -1, absl::StatusCode::kInvalidArgument,
                "whole number from 0");
  ExpectRefused("max_position_embeddings", 5,
                absl::StatusCode::kInvalidArgument,
                "begin at \"pad_token_id\" + 1, 5");
  ExpectRefused("position_embedding_type", "relative_key",
                absl::StatusCode::kUnimplemented, "served is \"absolute\"");
  ExpectRefused("architectures", {"XLMRobertaForTokenClassification"},
                absl::StatusCode::kUnimplemented,
                "served with this \"model_type\" are XLMRobertaModel, "
                "XLMRobertaForMaskedLM, XLMRobertaForSequenceClassification");
}

TEST_F(BertConfigTest, ReadsDistilBert) {
  json_ = TinyCheckpoint::DistilBert().config;
  json_["layer_norm_eps"] = 1e-3;  // these two are none of DistilBERT's
  json_["hidden_act"] = "silu";
  json_["pad_token_id"] = 3;
  json_["activation"] = "relu";
  json_["sinusoidal_pos_embds"] = true;  // how a training began
  const BertConfig config = Parse();
  EXPECT_EQ(config.architecture->model_type, "distilbert");
  EXPECT_EQ(config.hidden, 16);
  EXPECT_EQ(config.heads, 1);
  EXPECT_EQ(config.layers, 1);
  EXPECT_EQ(config.intermediate, 24);
  EXPECT_EQ(config.max_positions, 4);
  EXPECT_EQ(config.unused_positions, 0);
  EXPECT_EQ(config.type_vocab, 1);
  EXPECT_EQ(config.layer_norm_eps, 1e-12f);
  EXPECT_EQ(config.activation, Activation::kRelu);
  ExpectRefused("activation", "silu", absl::StatusCode::kUnimplemented, "silu");
  ExpectRefused("n_heads", 2, absl::StatusCode::kUnimplemented,
                "heads of width 8");
  ExpectRefused("n_heads", nullptr, absl::StatusCode::kInvalidArgument,
                "is missing");
  json_["n_heads"] = 3;
  ExpectRefused("dim", 16, absl::StatusCode::kInvalidArgument,
                "must be a multiple of \"n_heads\"");
}

TEST_F(BertConfigTest, KnowsEachClassifier) {
  for (const auto& [tiny, name] :
       {std::pair{TinyCheckpoint::Roberta(),
                  "RobertaForSequenceClassification"},
        {TinyCheckpoint::XlmRoberta(), "XLMRobertaForSequenceClassification"},
        {TinyCheckpoint::DistilBert(),
         "DistilBertForSequenceClassification"}}) {
    json_ = tiny.config;
    EXPECT_EQ(Parse().task, Task::kEmbedding);
    json_["architectures"] = {name};
    EXPECT_EQ(Parse().task, Task::kClassification);
    EXPECT_THAT(Parse().labels, ElementsAre("LABEL_0", "LABEL_1"));
  }
}

TEST_F(BertConfigTest, HeadsAreAtMost128Wide) {
  json_["hidden_size"] = 128;
  EXPECT_EQ(Parse().hidden, 128);
  json_["hidden_size"] = 144;
  ExpectRefused("num_attention_heads", 1, absl::StatusCode::kUnimplemented,
                "heads of width 144");
}

TEST_F(BertConfigTest, RefusesNonsense) {
  const auto code = absl::StatusCode::kInvalidArgument;
  ExpectRefused("hidden_size", "16", code, "whole number");
  ExpectRefused("hidden_size", 16.5, code, "whole number");
  ExpectRefused("hidden_size", 0, code, "whole number from 1");
  ExpectRefused("hidden_size", -16, code, "whole number");
  ExpectRefused("hidden_size", nullptr, code, "is missing");
  ExpectRefused("vocab_size", uint64_t{1} << 63, code, "whole number");
  ExpectRefused("layer_norm_eps", -1, code, "number from 0");
  ExpectRefused("hidden_act", 3, code, "must be a string");
  ExpectRefused("is_decoder", "no", code, "true or false");
  ExpectRefused("architectures", "BertModel", code, "list of one name");
  json_["architectures"] = {"BertForSequenceClassification"};
  ExpectRefused("id2label", {{"1", "yes"}}, code, "name for class 0");
  ExpectRefused("id2label", {{"0", 0}}, code, "name for class 0");
  ExpectRefused("id2label", json::object(), code, "each class");
}

TEST_F(BertConfigTest, HiddenIsAMultipleOfHeads) {
  json_["num_attention_heads"] = 3;
  ExpectRefused("hidden_size", 16, absl::StatusCode::kInvalidArgument,
                "must be a multiple");
}

TEST_F(BertConfigTest, MustBeAnObject) {
  EXPECT_THAT(
      std::string(ParseBertConfig(json::array(), "f").status().message()),
      HasSubstr("f: not a JSON object"));
}

TEST(StrictJson, RefusesDuplicateKeysAtAnyDepth) {
  EXPECT_TRUE(ParseStrictJson(R"({"a": {"b": 1}, "b": [{"a": 1}]})", "f").ok());
  EXPECT_THAT(std::string(ParseStrictJson(R"({"a": [{"b": 1, "b": 2}]})", "f")
                              .status()
                              .message()),
              HasSubstr("f: key \"b\" occurs twice"));
}

TEST(StrictJson, RefusesMalformedText) {
  for (const char* text : {"", "{", "{\"a\":1,}", "{}{}", "\"\xff\"", "nul",
                           "{\"a\":NaN}", "1e999"}) {
    EXPECT_FALSE(ParseStrictJson(text, "f").ok()) << text;
  }
}

TEST(StrictJson, RefusesFilesThatAreNotConfigurations) {
  const std::string directory = FreshDirectory("json");
  EXPECT_EQ(ReadStrictJson(directory + "/none").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(ReadStrictJson(directory).status().message()),
              HasSubstr("not a file"));
  WriteFile(directory + "/long", std::string(9 << 20, ' '));
  EXPECT_THAT(
      std::string(ReadStrictJson(directory + "/long").status().message()),
      HasSubstr("longer than"));
}

}  // namespace
}  // namespace svdserve
