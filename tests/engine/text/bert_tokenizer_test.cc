#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/text/tokenizer_base.h"
#include "tests/engine/text/tiny_tokenizer.h"

namespace svdserve {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::vector<std::string>& Words() {
  static const auto* words = new std::vector<std::string>{
      "un",  "##aff", "##able", "##a", "a", "the", "cafe", "café",
      "İ",   "中",    "国",     ",",   "!", "new", "york", "i",
      "##i", "b",     "##b",    "c",   "d", "e"};
  return *words;
}

class BertTokenizerTest : public testing::Test {
 protected:
  std::string Split(std::string_view text) { return Tokens(*uncased_, text); }

  std::string Truncate(std::string_view text,
                       std::optional<std::string_view> pair, int max_tokens,
                       TruncationSide side) {
    EncodeOptions options;
    options.truncate = true;
    options.max_tokens = max_tokens;
    options.side = side;
    return Join(*uncased_, Encode(*uncased_, text, pair, options));
  }

  std::vector<std::pair<uint32_t, uint32_t>> Offsets(std::string_view text) {
    EncodeOptions options = TextOnly();
    options.with_offsets = true;
    std::vector<std::pair<uint32_t, uint32_t>> out;
    for (const TokenOffset& o :
         Encode(*uncased_, text, std::nullopt, options).offsets) {
      out.push_back({o.begin, o.end});
    }
    return out;
  }

  std::unique_ptr<const Tokenizer> uncased_ = MakeTokenizer(TinySpec(Words()));
};

TEST_F(BertTokenizerTest, TakesTheLongestPieceFirst) {
  EXPECT_EQ(Split("unaffable"), "un ##aff ##able");
  EXPECT_EQ(Split("una"), "un ##a");
}

TEST_F(BertTokenizerTest, MakesAWordThatHasNoPiecesUnknownAsAWhole) {
  EXPECT_EQ(Split("the unaffableness the"), "the [UNK] the");
  EXPECT_EQ(Split("z"), "[UNK]");
}

TEST_F(BertTokenizerTest, MakesAWordOfMoreThanAHundredCharactersUnknown) {
  const std::string hundred = "b" + std::string(99, 'b');
  EXPECT_THAT(Split(hundred), HasSubstr("b ##b ##b"));
  EXPECT_EQ(Split(hundred + "b the"), "[UNK] the");
}

TEST_F(BertTokenizerTest, LowersAndStripsAccents) {
  EXPECT_EQ(Split("THE CAFÉ"), "the cafe");
  EXPECT_EQ(Split("cafe\u0301"), "cafe");
  EXPECT_EQ(Split("\u0130"), "i");
}

TEST_F(BertTokenizerTest, KeepsCaseAndAccentsIfTold) {
  TokenizerSpec spec = TinySpec(Words());
  spec.word_piece.normalizer.lowercase = false;
  spec.word_piece.normalizer.strip_accents = false;
  const auto cased = MakeTokenizer(std::move(spec));
  EXPECT_EQ(Tokens(*cased, "café CAFÉ \u0130"), "café [UNK] İ");
}

TEST_F(BertTokenizerTest, LowersToMoreThanOneCharacterIfAccentsStay) {
  std::vector<std::string> words = Words();
  words.push_back("##\u0307");
  TokenizerSpec spec = TinySpec(words);
  spec.word_piece.normalizer.strip_accents = false;
  const auto tokenizer = MakeTokenizer(std::move(spec));
  EXPECT_EQ(Tokens(*tokenizer, "\u0130"), "i ##\u0307");
}

TEST_F(BertTokenizerTest, IsolatesChineseAndPunctuation) {
  EXPECT_EQ(Split("the中国,the!"), "the 中 国 , the !");
}

TEST_F(BertTokenizerTest, RemovesControlCharactersAndSplitsAtAnySpace) {
  EXPECT_EQ(Split("t\u00adh\u200be"), "the");
  EXPECT_EQ(Split("a\tb\u00a0c\u3000d\n"), "a b c d");
  EXPECT_EQ(Split(std::string_view("a\0b", 3)), "a ##b");
  EXPECT_EQ(Split(" \t\r\n"), "");
  EXPECT_EQ(Split(""), "");
}

TEST_F(BertTokenizerTest, CountsOffsetsInCodePointsOfTheText) {
  EXPECT_THAT(
      Offsets("É unaffable 中!"),
      ElementsAre(std::pair(0, 1), std::pair(2, 4), std::pair(4, 7),
                  std::pair(7, 11), std::pair(12, 13), std::pair(13, 14)));
  EXPECT_THAT(Offsets("cafe\u0301 the"),
              ElementsAre(std::pair(0, 4), std::pair(6, 9)));
  EXPECT_THAT(Offsets("zzz\u00ad the"),
              ElementsAre(std::pair(0, 3), std::pair(5, 8)));
}

TEST_F(BertTokenizerTest, ReadsEachIllFormedSubpartAsOneReplacement) {
  EXPECT_EQ(Split("a\xff the"), "a the");
  EXPECT_EQ(Split("a\xe2\x82 the"), "a the");
  EXPECT_THAT(Offsets("\xf0\x9f\x92\xff the"), ElementsAre(std::pair(3, 6)));
}

TEST_F(BertTokenizerTest, PutsSpecialTokensAroundTextAndPair) {
  const Encoding encoding = Encode(*uncased_, "a", "b c", {});
  EXPECT_EQ(Join(*uncased_, encoding), "[CLS] a [SEP] b c [SEP]");
  EXPECT_THAT(encoding.type_ids, ElementsAre(0, 0, 0, 1, 1, 1));
  EXPECT_EQ(Join(*uncased_, Encode(*uncased_, "", std::nullopt, {})),
            "[CLS] [SEP]");
}

TEST_F(BertTokenizerTest, TruncatesFromTheSideAskedFor) {
  EXPECT_EQ(Truncate("a b c d", {}, 4, TruncationSide::kRight),
            "[CLS] a b [SEP]");
  EXPECT_EQ(Truncate("a b c d", {}, 4, TruncationSide::kLeft),
            "[CLS] c d [SEP]");
  EXPECT_EQ(Truncate("a unaffable", {}, 4, TruncationSide::kRight),
            "[CLS] a un [SEP]");
}

TEST_F(BertTokenizerTest, TruncatesTheLongerOfAPairFirst) {
  EXPECT_EQ(Truncate("a", "a b c d e", 6, TruncationSide::kRight),
            "[CLS] a [SEP] a b [SEP]");
  EXPECT_EQ(Truncate("a b c d e", "a", 6, TruncationSide::kLeft),
            "[CLS] d e [SEP] a [SEP]");
  EXPECT_EQ(Truncate("a b c d e", "a b c d", 6, TruncationSide::kRight),
            "[CLS] a b [SEP] a [SEP]");  // the longer one has the odd token
  EXPECT_EQ(Truncate("a b c d", "a b c d e", 6, TruncationSide::kRight),
            "[CLS] a [SEP] a b [SEP]");
  EXPECT_EQ(Truncate("a b c", "a b c", 3, TruncationSide::kRight),
            "[CLS] [SEP] [SEP]");
}

TEST_F(BertTokenizerTest, ReturnsTooLongTextsWholeUnlessAskedToTruncate) {
  EncodeOptions options;
  options.max_tokens = 3;
  EXPECT_EQ(Encode(*uncased_, "a b c", std::nullopt, options).ids.size(), 5);
}

TEST_F(BertTokenizerTest, RefusesALimitThatSpecialTokensAloneExceed) {
  EncodeOptions options;
  options.truncate = true;
  options.max_tokens = 1;
  Encoding encoding;
  const absl::Status status =
      uncased_->Encode("a", std::nullopt, options, &encoding);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("max_tokens is 1, but the special tokens alone are 2"));
  options.max_tokens = -1;
  EXPECT_FALSE(uncased_->Encode("a", std::nullopt, options, &encoding).ok());
}

TEST_F(BertTokenizerTest, KnowsTokensByNameAndById) {
  EXPECT_EQ(uncased_->TokenToId("un"), 5);
  EXPECT_EQ(uncased_->TokenToId("nothing"), -1);
  EXPECT_EQ(uncased_->IdToToken(2), "[CLS]");
  EXPECT_EQ(uncased_->IdToToken(-1), "");
  EXPECT_EQ(uncased_->IdToToken(1000), "");
  EXPECT_EQ(uncased_->vocab_size(), 5 + static_cast<int>(Words().size()));
}

class AddedTokenTest : public testing::Test {
 protected:
  std::string Split(AddedToken token, std::string_view text) {
    TokenizerSpec spec = TinySpec(Words());
    spec.added_tokens.push_back(std::move(token));
    return Tokens(*MakeTokenizer(std::move(spec)), text);
  }
};

TEST_F(AddedTokenTest, AreFoundInsideWordsAndGetTheNextId) {
  EXPECT_EQ(Split({.content = "<t>"}, "a<t>b"), "a <t> b");
  EXPECT_EQ(Split({.content = "<t>"}, "a<T>b"), "a [UNK] [UNK] [UNK] b");
  TokenizerSpec spec = TinySpec(Words());
  spec.added_tokens.push_back({.content = "<t>"});
  EXPECT_EQ(MakeTokenizer(std::move(spec))->TokenToId("<t>"),
            5 + static_cast<int>(Words().size()));
}

TEST_F(AddedTokenTest, MaySpeakOnlyForWholeWords) {
  const AddedToken token = {.content = "york", .single_word = true};
  EXPECT_EQ(Split(token, "york"), "york");
  EXPECT_EQ(Split(token, "ayork"), "[UNK]");
}

TEST_F(AddedTokenTest, TakeSpaceAlong) {
  TokenizerSpec spec = TinySpec(Words());
  spec.added_tokens.push_back(
      {.content = "<t>", .lstrip = true, .rstrip = true});
  const auto tokenizer = MakeTokenizer(std::move(spec));
  EncodeOptions options = TextOnly();
  options.with_offsets = true;
  const Encoding encoding =
      Encode(*tokenizer, "a \u3000<t>  b", std::nullopt, options);
  ASSERT_EQ(Join(*tokenizer, encoding), "a <t> b");
  EXPECT_EQ(encoding.offsets[1].begin, 1);
  EXPECT_EQ(encoding.offsets[1].end, 8);
}

TEST_F(AddedTokenTest, AreComparedAfterNormalizationIfNormalized) {
  const AddedToken token = {.content = "New York", .normalized = true};
  EXPECT_EQ(Split(token, "the NEW YÓRK!"), "the New York !");
}

TEST_F(AddedTokenTest, MustDifferAfterNormalization) {
  TokenizerSpec spec = TinySpec(Words());
  spec.added_tokens.push_back({.content = "Day", .normalized = true});
  spec.added_tokens.push_back({.content = "day", .normalized = true});
  const auto tokenizer = CreateTokenizer(std::move(spec));
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_THAT(std::string(tokenizer.status().message()),
              HasSubstr("both matched as 'day'"));
}

TEST_F(BertTokenizerTest, ServesManyThreadsAtOnce) {
  const std::string text = "unaffable CAFÉ 中国, zzz the\u00a0e\u0301 ";
  std::string longer;
  for (int i = 0; i < 50; ++i) longer += text;
  const std::string expected = Split(longer);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) wrong[t] += Split(longer) != expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, ElementsAre(0, 0, 0, 0));
}

}  // namespace
}  // namespace svdserve
