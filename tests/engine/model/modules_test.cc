#include "engine/model/modules.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/engine/model/tiny_checkpoint.h"

namespace svdserve {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

class ModulesTest : public testing::Test {
 protected:
  void SetUp() override { directory_ = FreshDirectory("modules"); }

  void Write(const std::string& name, const json& content) {
    WriteFile(directory_ + "/" + name, content.dump());
  }
  // modules.json; module i has its files in the folder "i".
  void List(const std::vector<std::string>& kinds) {
    json list = json::array();
    for (size_t i = 0; i < kinds.size(); ++i) {
      list.push_back({{"idx", i},
                      {"type", "sentence_transformers.models." + kinds[i]},
                      {"path", i == 0 ? "" : std::to_string(i)}});
    }
    Write("modules.json", list);
  }
  SentenceModules Read() {
    absl::StatusOr<SentenceModules> modules =
        ReadSentenceModules(directory_, 64);
    EXPECT_TRUE(modules.ok()) << modules.status();
    return modules.ok() ? *modules : SentenceModules();
  }
  std::string Error(absl::StatusCode code) {
    const absl::Status status = ReadSentenceModules(directory_, 64).status();
    EXPECT_EQ(status.code(), code) << status;
    return std::string(status.message());
  }
  std::string Refused() { return Error(absl::StatusCode::kUnimplemented); }
  std::string Invalid() { return Error(absl::StatusCode::kInvalidArgument); }

  std::string directory_;
};

TEST_F(ModulesTest, NoneMeansMeanPooling) {
  const SentenceModules modules = Read();
  EXPECT_FALSE(modules.listed);
  EXPECT_EQ(modules.pooling, Pooling::kMean);
  EXPECT_FALSE(modules.normalize);
  EXPECT_FALSE(modules.max_tokens.has_value());
}

TEST_F(ModulesTest, ReadsPoolingInBothSpellings) {
  List({"Transformer", "Pooling", "Normalize"});
  Write("1/config.json", {{"word_embedding_dimension", 64},
                          {"pooling_mode_cls_token", false},
                          {"pooling_mode_max_tokens", true}});
  EXPECT_EQ(Read().pooling, Pooling::kMax);
  EXPECT_TRUE(Read().normalize);
  Write("1/config.json",
        {{"embedding_dimension", 64}, {"pooling_mode", "cls"}});
  EXPECT_EQ(Read().pooling, Pooling::kCls);
  Write("1/config.json", {{"pooling_mode", {"mean"}}});
  EXPECT_EQ(Read().pooling, Pooling::kMean);
}

TEST_F(ModulesTest, RefusesOtherPooling) {
  List({"Transformer", "Pooling"});
  Write("1/config.json", {{"pooling_mode", {"mean", "cls"}}});
  EXPECT_THAT(Refused(), HasSubstr("switches on 2 pooling modes"));
  Write("1/config.json", {{"pooling_mode", "weightedmean"}});
  EXPECT_THAT(Refused(), HasSubstr("weightedmean"));
  Write("1/config.json", {{"pooling_mode_mean_sqrt_len_tokens", true}});
  EXPECT_THAT(Refused(), HasSubstr("mean_sqrt_len_tokens"));
  Write("1/config.json", json::object());
  EXPECT_THAT(Refused(), HasSubstr("switches on 0"));
  Write("1/config.json", {{"pooling_mode", 1}});
  EXPECT_THAT(Invalid(), HasSubstr("pooling_mode"));
  Write("1/config.json",
        {{"pooling_mode", "cls"}, {"embedding_dimension", 32}});
  EXPECT_THAT(Invalid(), HasSubstr("differs from the encoder's width, 64"));
}

TEST_F(ModulesTest, PromptTokensMustBePooled) {
  List({"Transformer", "Pooling"});
  Write("1/config.json", {{"pooling_mode", "mean"}, {"include_prompt", false}});
  EXPECT_EQ(Read().pooling, Pooling::kMean);  // there is no prompt to exclude
  Write("config_sentence_transformers.json", {{"prompts", {{"q", "q: "}}}});
  EXPECT_THAT(Refused(), HasSubstr("include_prompt"));
}

TEST_F(ModulesTest, ReadsDenseModules) {
  List({"Transformer", "Pooling", "Dense", "Dropout", "Dense"});
  Write("1/config.json", {{"pooling_mode", "mean"}});
  Write("2/config.json", {{"in_features", 64},
                          {"out_features", 32},
                          {"activation_function", "torch.nn.GELU"}});
  Write("4/config.json",
        {{"in_features", 32},
         {"out_features", 8},
         {"bias", false},
         {"activation_function", "torch.nn.modules.linear.Identity"}});
  const SentenceModules modules = Read();
  ASSERT_EQ(modules.dense.size(), 2);
  EXPECT_EQ(modules.dense[0].activation, HeadActivation::kGelu);
  EXPECT_TRUE(modules.dense[0].bias);
  EXPECT_EQ(modules.dense[1].activation, HeadActivation::kIdentity);
  EXPECT_FALSE(modules.dense[1].bias);
  EXPECT_EQ(modules.dense[1].out, 8);
  EXPECT_EQ(modules.dense[1].directory, directory_ + "/4");
}

TEST_F(ModulesTest, RefusesDenseThatDoesNotFit) {
  List({"Transformer", "Pooling", "Dense"});
  Write("1/config.json", {{"pooling_mode", "mean"}});
  json dense = {{"in_features", 32}, {"out_features", 8}};
  Write("2/config.json", dense);
  EXPECT_THAT(Invalid(), HasSubstr("in_features"));
  dense["in_features"] = 64;
  dense["activation_function"] = "torch.nn.modules.activation.SiLU";
  Write("2/config.json", dense);
  EXPECT_THAT(Refused(), HasSubstr("SiLU"));
  dense.erase("activation_function");
  dense["module_input_name"] = "token_embeddings";
  Write("2/config.json", dense);
  EXPECT_THAT(Refused(), HasSubstr("module_input_name"));
}

TEST_F(ModulesTest, RefusesOtherChains) {
  Write("1/config.json", {{"pooling_mode", "mean"}});
  List({"Pooling"});
  EXPECT_THAT(Refused(), HasSubstr("module 0 is Pooling"));
  List({"Transformer", "Pooling", "WordWeights"});
  EXPECT_THAT(Refused(), HasSubstr("module 2 is WordWeights"));
  List({"Transformer", "Pooling", "Normalize", "Dense"});
  EXPECT_THAT(Refused(), HasSubstr("module 3 is Dense"));
  Write("modules.json", json::array());
  EXPECT_THAT(Invalid(), HasSubstr("not a list of modules"));
}

TEST_F(ModulesTest, FilesLieWithinTheModel) {
  Write("modules.json", {{{"type", "Transformer"}, {"path", ""}},
                         {{"type", "Pooling"}, {"path", "../1"}}});
  EXPECT_THAT(Invalid(), HasSubstr("within the model's directory"));
  Write("modules.json", {{{"type", "Transformer"}, {"path", "0_BERT"}}});
  EXPECT_THAT(Refused(), HasSubstr("one level up"));
}

TEST_F(ModulesTest, ReadsPrompts) {
  Write("config_sentence_transformers.json",
        {{"prompts", {{"query", "q: "}, {"document", ""}}},
         {"default_prompt_name", "query"}});
  EXPECT_THAT(Read().prompts,
              ElementsAre(Pair("document", ""), Pair("query", "q: ")));
  EXPECT_EQ(Read().default_prompt, "query");
  Write("config_sentence_transformers.json",
        {{"prompts", {{"query", "q: "}}}, {"default_prompt_name", "other"}});
  EXPECT_THAT(Invalid(), HasSubstr("\"other\""));
  Write("config_sentence_transformers.json", {{"prompts", {{"query", 1}}}});
  EXPECT_THAT(Invalid(), HasSubstr("\"query\""));
}

TEST_F(ModulesTest, ReadsTheLongestInput) {
  Write("tokenizer_config.json", {{"model_max_length", 1e30}});
  EXPECT_FALSE(Read().max_tokens.has_value());
  Write("tokenizer_config.json", {{"model_max_length", 40}});
  EXPECT_EQ(Read().max_tokens, 40);
  Write("sentence_bert_config.json", {{"max_seq_length", 30}});
  EXPECT_EQ(Read().max_tokens, 30);
  Write("sentence_bert_config.json", {{"max_seq_length", 0}});
  EXPECT_THAT(Invalid(), HasSubstr("max_seq_length"));
}

TEST_F(ModulesTest, LowerCasingIsTheTokenizers) {
  Write("sentence_bert_config.json", {{"do_lower_case", true}});
  Write("tokenizer_config.json", {{"do_lower_case", true}});
  EXPECT_FALSE(Read().listed);
  Write("tokenizer_config.json", {{"do_lower_case", false}});
  EXPECT_THAT(Refused(), HasSubstr("do_lower_case"));
}

}  // namespace
}  // namespace svdserve
