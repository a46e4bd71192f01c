#include "engine/text/tokenizer_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_base.h"
#include "tests/engine/text/tiny_tokenizer.h"

namespace svdserve {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json ValidTokenizer() {
  return json::parse(R"({
    "version": "1.0",
    "added_tokens": [{"id": 1, "content": "[CLS]", "single_word": false,
      "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
    "normalizer": {"type": "BertNormalizer", "clean_text": true,
      "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {"type": "BertProcessing",
      "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
    "model": {"type": "WordPiece", "unk_token": "[UNK]",
      "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
      "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "##b": 4}}})");
}

// The error that a changed file gives.
std::string ErrorAfter(std::string_view pointer, const json& value,
                       absl::StatusCode code) {
  json file = ValidTokenizer();
  file[json::json_pointer(std::string(pointer))] = value;
  const auto spec = ParseTokenizerJson("dir/tokenizer.json", file.dump());
  if (spec.ok()) return "no error";
  EXPECT_EQ(spec.status().code(), code) << spec.status();
  const std::string message(spec.status().message());
  EXPECT_THAT(message, testing::StartsWith("dir/tokenizer.json"));
  return message;
}

std::string Invalid(std::string_view pointer, const json& value) {
  return ErrorAfter(pointer, value, absl::StatusCode::kInvalidArgument);
}

std::string Unsupported(std::string_view pointer, const json& value) {
  return ErrorAfter(pointer, value, absl::StatusCode::kUnimplemented);
}

TEST(TokenizerJsonTest, ReadsAValidFile) {
  const auto spec = ParseTokenizerJson("f", ValidTokenizer().dump());
  ASSERT_TRUE(spec.ok()) << spec.status();
  const auto tokenizer = MakeTokenizer(*spec);
  EXPECT_EQ(Join(*tokenizer, Encode(*tokenizer, "Ab", "a", {})),
            "[CLS] a ##b [SEP] a [SEP]");
}

TEST(TokenizerJsonTest, FollowsSequencesOfOne) {
  json file = ValidTokenizer();
  file["normalizer"] = {{"type", "Sequence"},
                        {"normalizers", {file["normalizer"]}}};
  file["pre_tokenizer"] = {{"type", "Sequence"},
                           {"pretokenizers", {file["pre_tokenizer"]}}};
  const auto spec = ParseTokenizerJson("f", file.dump());
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_TRUE(spec->word_piece.normalizer.strip_accents);
}

TEST(TokenizerJsonTest, ReadsTemplatesOfAnyShape) {
  json file = ValidTokenizer();
  file["post_processor"] = json::parse(R"({"type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 3}},
               {"SpecialToken": {"id": "end", "type_id": 2}}],
    "pair": [{"Sequence": {"id": "B", "type_id": 1}},
             {"SpecialToken": {"id": "end", "type_id": 0}},
             {"Sequence": {"id": "A", "type_id": 0}}],
    "special_tokens": {"end": {"id": "end", "ids": [2, 1], "tokens": []}}})");
  const auto spec = ParseTokenizerJson("f", file.dump());
  ASSERT_TRUE(spec.ok()) << spec.status();
  const auto tokenizer = MakeTokenizer(*spec);
  const Encoding single = Encode(*tokenizer, "a", std::nullopt, {});
  EXPECT_EQ(Join(*tokenizer, single), "a [SEP] [CLS]");
  EXPECT_THAT(single.type_ids, testing::ElementsAre(3, 2, 2));
  EXPECT_EQ(Join(*tokenizer, Encode(*tokenizer, "ab", "a", {})),
            "a [SEP] [CLS] a ##b");
}

TEST(TokenizerJsonTest, AddsNothingWithoutAPostProcessor) {
  json file = ValidTokenizer();
  file["post_processor"] = nullptr;
  const auto spec = ParseTokenizerJson("f", file.dump());
  ASSERT_TRUE(spec.ok()) << spec.status();
  const auto tokenizer = MakeTokenizer(*spec);
  EXPECT_EQ(Join(*tokenizer, Encode(*tokenizer, "a", "ab", {})), "a a ##b");
}

TEST(TokenizerJsonTest, NamesWhatItDoesNotSupport) {
  EXPECT_THAT(Unsupported("/model/type", "WordLevel"),
              HasSubstr("model of type 'WordLevel' is not supported; "
                        "supported: WordPiece, BPE and Unigram"));
  EXPECT_THAT(Unsupported("/normalizer", {{"type", "NFKC"}}),
              HasSubstr("'NFKC' is not supported; supported: one Bert"));
  EXPECT_THAT(Unsupported("/pre_tokenizer", {{"type", "ByteLevel"}}),
              HasSubstr("'ByteLevel'"));
  EXPECT_THAT(Unsupported("/pre_tokenizer", nullptr), HasSubstr("'null'"));
  EXPECT_THAT(Unsupported("/post_processor", {{"type", "RobertaProcessing"}}),
              HasSubstr("'RobertaProcessing'"));
}

TEST(TokenizerJsonTest, NamesThePartThatIsDamaged) {
  EXPECT_THAT(Invalid("/model", nullptr), HasSubstr(": model: "));
  EXPECT_THAT(Invalid("/model/vocab", 7), HasSubstr(": model: "));
  EXPECT_THAT(Invalid("/model/vocab/a", -3),
              HasSubstr("the id of token 'a' is -3"));
  EXPECT_THAT(Invalid("/model/vocab/a", 1.5), HasSubstr("is 1.5"));
  EXPECT_THAT(Invalid("/model/vocab/a", 1ULL << 31), HasSubstr("2147483648"));
  EXPECT_THAT(Invalid("/model/max_input_chars_per_word", -1),
              HasSubstr("max_input_chars_per_word is -1"));
  EXPECT_THAT(Invalid("/normalizer/lowercase", "yes"),
              HasSubstr(": normalizer: "));
  EXPECT_THAT(Invalid("/post_processor/cls", {"[CLS]"}),
              HasSubstr(": post_processor: "));
  EXPECT_THAT(Invalid("/added_tokens/0/content", 5),
              HasSubstr(": added_tokens: "));
}

TEST(TokenizerJsonTest, AnswersEveryTruncatedFileWithAnError) {
  const std::string file = ValidTokenizer().dump();
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(ParseTokenizerJson("f", file.substr(0, size)).ok()) << size;
  }
}

TEST(TokenizerJsonTest, NeedsItsUnknownTokenInTheVocabulary) {
  json file = ValidTokenizer();
  file["model"]["unk_token"] = "<unk>";
  const auto spec = ParseTokenizerJson("f", file.dump());
  ASSERT_TRUE(spec.ok());
  const auto tokenizer = CreateTokenizer(*spec);
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_THAT(std::string(tokenizer.status().message()),
              HasSubstr("unk_token '<unk>' is not in the vocabulary"));
}

constexpr char kVocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\n";

TEST(VocabTextTest, NeedsNoOtherFile) {
  const auto spec = ParseVocabText("vocab.txt", kVocab, "", "");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_TRUE(spec->word_piece.normalizer.lowercase);
  EXPECT_TRUE(spec->word_piece.normalizer.strip_accents);
  const auto tokenizer = MakeTokenizer(*spec);
  EXPECT_EQ(Join(*tokenizer, Encode(*tokenizer, "AB[MASK]", "a", {})),
            "[CLS] a ##b [MASK] [SEP] a [SEP]");
}

TEST(VocabTextTest, ObeysTheConfig) {
  const auto spec = ParseVocabText(
      "vocab.txt", "<s>\n</s>\n<u>\na\n",
      R"({"do_lower_case": false, "tokenize_chinese_chars": false,
          "strip_accents": true, "unk_token": {"content": "<u>"},
          "cls_token": "overridden", "tokenizer_class": "BertTokenizerFast",
          "added_tokens_decoder": {"9": {"content": "<9>"},
                                   "10": {"content": "<10>"}}})",
      R"({"cls_token": "<s>", "sep_token": "</s>"})");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_FALSE(spec->word_piece.normalizer.lowercase);
  EXPECT_FALSE(spec->word_piece.normalizer.handle_chinese_chars);
  EXPECT_TRUE(spec->word_piece.normalizer.strip_accents);
  const auto tokenizer = MakeTokenizer(*spec);
  EXPECT_EQ(Join(*tokenizer, Encode(*tokenizer, "a A", std::nullopt, {})),
            "<s> a <u> </s>");
  EXPECT_EQ(tokenizer->TokenToId("<9>"), 4);
  EXPECT_EQ(tokenizer->TokenToId("<10>"), 5);
}

TEST(VocabTextTest, TakesAnyEndOfLineAndTheLastOfEqualTokens) {
  const auto spec =
      ParseVocabText("vocab.txt", "[UNK]\r\n[CLS]\r[SEP]\n\na\nb\na", "", "");
  ASSERT_TRUE(spec.ok()) << spec.status();
  const auto tokenizer = MakeTokenizer(*spec);
  EXPECT_EQ(tokenizer->TokenToId("[SEP]"), 2);
  EXPECT_EQ(tokenizer->TokenToId("b"), 5);
  EXPECT_EQ(tokenizer->TokenToId("a"), 6);
}

TEST(VocabTextTest, NamesWhatIsWrong) {
  const auto error = [](std::string_view vocab, std::string_view config) {
    const auto spec = ParseVocabText("vocab.txt", vocab, config, "");
    return spec.ok() ? "no error" : std::string(spec.status().message());
  };
  EXPECT_THAT(error("[UNK]\n\xff\n", ""),
              HasSubstr("vocab.txt: malformed UTF-8 at byte 6"));
  EXPECT_THAT(error("[UNK]\na\n", ""),
              HasSubstr("lacks [SEP], the default of sep_token"));
  EXPECT_THAT(error("", ""), HasSubstr("vocab.txt: holds no tokens"));
  EXPECT_THAT(error(kVocab, R"({"sep_token": "</s>"})"),
              HasSubstr("sep_token '</s>' is not in the vocabulary"));
  EXPECT_THAT(error(kVocab, "{"), HasSubstr("tokenizer_config.json: "));
  EXPECT_THAT(error(kVocab, "[]"), HasSubstr("tokenizer_config.json: "));
  EXPECT_THAT(error(kVocab, R"({"tokenizer_class": "XLNetTokenizer"})"),
              HasSubstr("'XLNetTokenizer' is not supported without"));
}

class TokenizerLoadTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    directory_ = testing::TempDir() + "tokenizer_load_" + info->name();
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

TEST_F(TokenizerLoadTest, PrefersTokenizerJson) {
  Write("tokenizer.json", ValidTokenizer().dump());
  Write("vocab.txt", "nothing that would do\n");
  const auto tokenizer = Tokenizer::Load(directory_);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), 5);
}

TEST_F(TokenizerLoadTest, FallsBackToVocabText) {
  Write("vocab.txt", kVocab);
  Write("tokenizer_config.json", R"({"do_lower_case": false})");
  const auto tokenizer = Tokenizer::Load(directory_);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(Tokens(**tokenizer, "a A"), "a [UNK]");
}

TEST_F(TokenizerLoadTest, NamesTheFileThatIsMissingEmptyOrDamaged) {
  EXPECT_THAT(Error(), HasSubstr("neither tokenizer.json nor vocab.txt"));
  Write("vocab.txt", "");
  EXPECT_THAT(Error(), HasSubstr("vocab.txt: is empty"));
  Write("tokenizer.json", "{");
  EXPECT_THAT(Error(), HasSubstr(directory_ + "/tokenizer.json: "));
}

}  // namespace
}  // namespace svdserve
