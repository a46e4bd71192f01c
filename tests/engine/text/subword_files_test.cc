// Files of RoBERTa's and XLM-R's tokenizers; BERT's: tokenizer_files_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/escaping.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_files.h"
#include "tests/engine/text/tiny_subwords.h"
#include "tests/engine/text/tiny_tokenizer.h"

namespace svdserve {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

json BpeVocab() {
  json vocab = json::object();
  for (const auto& [token, id] : BpeSpec({{"a", "b"}, {"Ġ", "ab"}}).vocab) {
    vocab[token] = id;
  }
  return vocab;
}

json Roberta() {
  json file = json::parse(R"({
    "added_tokens": [{"content": "<s>", "special": true},
      {"content": "<mask>", "lstrip": true, "special": true}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true,
      "trim_offsets": true, "use_regex": true},
    "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 1],
      "cls": ["<s>", 0], "trim_offsets": true, "add_prefix_space": true},
    "model": {"type": "BPE", "dropout": null, "unk_token": null,
      "continuing_subword_prefix": "", "end_of_word_suffix": "",
      "fuse_unk": false, "byte_fallback": false,
      "merges": [["a", "b"], ["Ġ", "ab"]]}})");
  file["model"]["vocab"] = BpeVocab();
  return file;
}

json Xlmr() {
  json file = json::parse(R"({
    "added_tokens": [{"content": "<mask>", "special": true}],
    "normalizer": {"type": "Sequence", "normalizers": [
      {"type": "Precompiled"},
      {"type": "Strip", "strip_left": false, "strip_right": true},
      {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
      {"type": "Replace", "pattern": {"String": "q"}, "content": "b"}]},
    "pre_tokenizer": {"type": "Metaspace", "replacement": "▁",
      "prepend_scheme": "always", "split": true},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                 {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [{"Sequence": {"id": "A", "type_id": 0}},
               {"Sequence": {"id": "B", "type_id": 0}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": []}}},
    "model": {"type": "Unigram", "unk_id": 2, "byte_fallback": false,
      "vocab": [["<s>", 0], ["</s>", 0.0], ["<unk>", 0.0], ["▁a", -1.5],
                ["a", -2], ["b", -2.5]]}})");
  file["normalizer"]["normalizers"][0]["precompiled_charsmap"] =
      absl::Base64Escape(MakeCharsmap({{"Ａ", "a"}}));
  return file;
}

std::unique_ptr<const Tokenizer> Load(const json& file) {
  auto spec = ParseTokenizerJson("f", file.dump());
  EXPECT_TRUE(spec.ok()) << spec.status();
  return MakeTokenizer(*std::move(spec));
}

// The error that a changed file gives.
std::string ErrorAfter(json file, std::string_view pointer, const json& value) {
  file[json::json_pointer(std::string(pointer))] = value;
  auto spec = ParseTokenizerJson("f", file.dump());
  return spec.ok() ? "no error" : std::string(spec.status().message());
}

TEST(RobertaJsonTest, ReadsAValidFile) {
  const auto tokenizer = Load(Roberta());
  const Encoding encoding = Encode(*tokenizer, "ab <mask>", "b", {});
  EXPECT_EQ(Join(*tokenizer, encoding), "<s> Ġab <mask> </s> </s> Ġ b </s>");
  EXPECT_THAT(encoding.type_ids, testing::Each(0));
}

TEST(RobertaJsonTest, ReadsMergesAsLinesAndAModelWithoutItsType) {
  json file = Roberta();
  file["model"]["merges"] = {"#version: 0.2", "a b", "Ġ ab"};
  file["model"].erase("type");
  EXPECT_EQ(Tokens(*Load(file), "ab"), "Ġab");
}

TEST(RobertaJsonTest, NamesWhatItDoesNotSupport) {
  const auto error = [](std::string_view pointer, const json& value) {
    return ErrorAfter(Roberta(), pointer, value);
  };
  EXPECT_THAT(error("/model/dropout", 0.1), HasSubstr("BPE with dropout"));
  EXPECT_THAT(error("/model/byte_fallback", true),
              HasSubstr("BPE with byte_fallback is not supported"));
  EXPECT_THAT(error("/model/end_of_word_suffix", "</w>"),
              HasSubstr("BPE with end_of_word_suffix is not supported"));
  EXPECT_THAT(error("/normalizer", {{"type", "NFC"}}),
              HasSubstr("a normalizer of type 'NFC' is not supported"));
  EXPECT_THAT(error("/pre_tokenizer", {{"type", "Metaspace"}}),
              HasSubstr("supported: one ByteLevel, for a BPE model"));
  EXPECT_THAT(error("/post_processor", {{"type", "ByteLevel"}}),
              HasSubstr("supported: one RobertaProcessing, Template"));
}

TEST(RobertaJsonTest, NamesThePartThatIsDamaged) {
  const auto error = [](std::string_view pointer, const json& value) {
    return ErrorAfter(Roberta(), pointer, value);
  };
  EXPECT_THAT(error("/model/merges/1", "Ġ  ab"),
              HasSubstr("merge 1 is 'Ġ  ab', not two tokens"));
  EXPECT_THAT(error("/model/merges/1", {"a"}), HasSubstr("f: model: "));
  EXPECT_THAT(error("/model/merges", 5), HasSubstr("f: model: "));
  EXPECT_THAT(error("/model/vocab/a", -1), HasSubstr("token 'a' is -1"));
  EXPECT_THAT(error("/pre_tokenizer/add_prefix_space", 1),
              HasSubstr("f: pre_tokenizer: "));
  EXPECT_THAT(error("/post_processor/trim_offsets", nullptr),
              HasSubstr("f: post_processor: "));
}

TEST(XlmrJsonTest, ReadsAValidFile) {
  const auto tokenizer = Load(Xlmr());
  EXPECT_EQ(Join(*tokenizer, Encode(*tokenizer, "Ａq<mask> ", {}, {})),
            "<s> ▁a b <mask>");
  EXPECT_EQ(tokenizer->TokenToId("<mask>"), 6);
}

TEST(XlmrJsonTest, ReadsFilesOfOldVersions) {
  json file = Xlmr();
  file["model"].erase("type");
  file["normalizer"] = file["normalizer"]["normalizers"][0];
  file["pre_tokenizer"] = json::parse(R"({"type": "Sequence",
    "pretokenizers": [{"type": "WhitespaceSplit"},
      {"type": "Metaspace", "replacement": "▁", "add_prefix_space": true,
       "str_rep": "▁"}]})");
  EXPECT_EQ(Tokens(*Load(file), " a\t Ａ"), "▁a ▁a");
}

TEST(XlmrJsonTest, ReadsScoresAsSerdeJsonDoes) {
  json file = Xlmr();
  // Not the nearest: serde_json divides 13864072317121257 by 1e15.
  file["model"]["vocab"][3][1] = -13.864072317121257;
  file["model"]["vocab"][4][1] = 1e-7;
  file["model"]["vocab"][5][1] = -2.5e20;
  const auto spec = ParseTokenizerJson("f", file.dump());
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_THAT(spec->unigram.scores,
              ElementsAre(0, 0, 0, -13.864072317121256, 1e-7, -2.5e20));
}

TEST(XlmrJsonTest, NamesWhatItDoesNotSupport) {
  const auto error = [](std::string_view pointer, const json& value) {
    return ErrorAfter(Xlmr(), pointer, value);
  };
  EXPECT_THAT(error("/model/unk_id", nullptr),
              HasSubstr("Unigram without unk_id is not supported"));
  EXPECT_THAT(error("/normalizer", {{"type", "NFKC"}}),
              HasSubstr("'NFKC' is not supported; supported: Precompiled"));
  EXPECT_THAT(error("/normalizer/normalizers/2/pattern", {{"Regex", "a+"}}),
              HasSubstr("supported: a String, and the Regex ' {2,}'"));
  EXPECT_THAT(error("/pre_tokenizer", {{"type", "ByteLevel"}}),
              HasSubstr("supported: Metaspace, maybe after a WhitespaceSplit"));
  EXPECT_THAT(error("/post_processor", {{"type", "RobertaProcessing"}}),
              HasSubstr("'RobertaProcessing'"));
}

TEST(XlmrJsonTest, NamesThePartThatIsDamaged) {
  const auto error = [](std::string_view pointer, const json& value) {
    return ErrorAfter(Xlmr(), pointer, value);
  };
  EXPECT_THAT(error("/model/vocab/4", {"b", -2}),
              HasSubstr("token 'b' is there twice"));
  EXPECT_THAT(error("/model/vocab/4/1", "x"), HasSubstr("f: model: "));
  EXPECT_THAT(error("/model/unk_id", -1),
              HasSubstr("the id of token 'unk_id'"));
  EXPECT_THAT(error("/normalizer/normalizers/0/precompiled_charsmap", "?"),
              HasSubstr("precompiled_charsmap is not base64"));
  EXPECT_THAT(error("/normalizer/normalizers/3/pattern/String", ""),
              HasSubstr("Replace has an empty pattern"));
  EXPECT_THAT(error("/pre_tokenizer/replacement", "__"),
              HasSubstr("the replacement '__', not one character"));
  EXPECT_THAT(error("/pre_tokenizer/prepend_scheme", "maybe"),
              HasSubstr("prepend_scheme 'maybe', not always, first or never"));
  EXPECT_THAT(error("/pre_tokenizer/add_prefix_space", false),
              HasSubstr("add_prefix_space false, but prepend_scheme 'always'"));
}

TEST(SubwordJsonTest, AnswersEveryTruncatedFileWithAnError) {
  for (const json& whole : {Roberta(), Xlmr()}) {
    const std::string file = whole.dump();
    for (size_t size = 0; size < file.size(); size += 7) {
      EXPECT_FALSE(ParseTokenizerJson("f", file.substr(0, size)).ok()) << size;
    }
  }
}

class SubwordLoadTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    directory_ = testing::TempDir() + "subword_load_" + info->name();
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void Write(const std::string& name, std::string_view contents) {
    std::ofstream(directory_ + "/" + name, std::ios::binary) << contents;
  }
  std::string Error() {
    const auto tokenizer = Tokenizer::Load(directory_);
    return tokenizer.ok() ? "no error"
                          : std::string(tokenizer.status().message());
  }

  std::string directory_;
};

TEST_F(SubwordLoadTest, ReadsVocabJsonAndMerges) {
  Write("vocab.json", BpeVocab().dump());
  Write("merges.txt", "#version: 0.2\na b\nĠ ab\n");
  auto tokenizer = Tokenizer::Load(directory_);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(Join(**tokenizer, Encode(**tokenizer, "ab ab", "a", {})),
            "<s> ab Ġab </s> </s> a </s>");
  Write("tokenizer_config.json",
        R"({"tokenizer_class": "RobertaTokenizer", "add_prefix_space": true,
            "mask_token": "x"})");
  tokenizer = Tokenizer::Load(directory_);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(Tokens(**tokenizer, "abx"), "Ġab x");
}

TEST_F(SubwordLoadTest, NamesTheFileThatIsMissingOrDamaged) {
  Write("vocab.json", BpeVocab().dump());
  EXPECT_THAT(Error(), HasSubstr("nor vocab.json and merges.txt"));
  Write("merges.txt", "a b c\n");
  EXPECT_THAT(Error(), HasSubstr("vocab.json: beside it, merges.txt: merge 0"));
  Write("merges.txt", "a b\n");
  Write("tokenizer_config.json", R"({"tokenizer_class": "GPT2Tokenizer"})");
  EXPECT_THAT(Error(), HasSubstr("'GPT2Tokenizer' is not supported without"));
  Write("tokenizer_config.json", R"({"sep_token": "[SEP]"})");
  EXPECT_THAT(Error(), HasSubstr("sep_token '[SEP]' is not in the vocabulary"));
}

TEST_F(SubwordLoadTest, SaysWhatToDoAboutSentencePieceModels) {
  Write("sentencepiece.bpe.model", "x");
  EXPECT_THAT(Error(), HasSubstr("sentencepiece.bpe.model is not read; where "
                                 "Python's transformers, sentencepiece and "
                                 "protobuf are installed, this makes a "
                                 "tokenizer.json of it: python3 -c"));
}

}  // namespace
}  // namespace svdserve
