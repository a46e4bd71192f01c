#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/engine/text/tiny_subwords.h"
#include "tests/engine/text/tiny_tokenizer.h"

namespace svdserve {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Prepend = UnigramOptions::Prepend;

TokenizerSpec Words() {
  return UnigramSpec({{"▁", -3},
                      {"a", -2},
                      {"b", -2},
                      {"ab", -3},
                      {"▁a", -2.5},
                      {"▁ab", -9},
                      {"é", -4},
                      {"<0x63>", -30},
                      {"<0xC3>", -30}});
}

std::vector<std::pair<uint32_t, uint32_t>> Offsets(const TokenizerSpec& spec,
                                                   std::string_view text) {
  EncodeOptions options = TextOnly();
  options.with_offsets = true;
  std::vector<std::pair<uint32_t, uint32_t>> out;
  for (const TokenOffset& o :
       Encode(*MakeTokenizer(spec), text, std::nullopt, options).offsets) {
    out.push_back({o.begin, o.end});
  }
  return out;
}

TEST(UnigramTokenizerTest, TakesThePathOfTheBestSum) {
  const auto tokenizer = MakeTokenizer(Words());
  EXPECT_EQ(Tokens(*tokenizer, "ab"), "▁a b");  // -4.5; ▁ ab -6; ▁ab -9
  EXPECT_EQ(Tokens(*tokenizer, "ba"), "▁ b a");
  EXPECT_EQ(Tokens(*tokenizer, "aab"), "▁a ab");
}

TEST(UnigramTokenizerTest, TakesTheFirstOfEqualSums) {
  // Paths to the end: from "a" (1 + 2) comes after from the start (3).
  const TokenizerSpec spec =
      UnigramSpec({{"▁x", -1}, {"▁", -1}, {"x", -1}, {"xy", -2}, {"y", -1}});
  EXPECT_EQ(Tokens(*MakeTokenizer(spec), "xy"), "▁x y");
  const TokenizerSpec equal = UnigramSpec(
      {{"▁", -1}, {"x", -1}, {"y", -1}, {"▁x", -2}, {"xy", -2}, {"▁xy", -3}});
  EXPECT_EQ(Tokens(*MakeTokenizer(equal), "xy"), "▁xy");
}

// The best sum of all ways to take `word` apart.
double BestSum(const std::vector<std::pair<std::string, double>>& pieces,
               std::string_view word) {
  if (word.empty()) return 0;
  double best = -1e300;
  for (const auto& [piece, score] : pieces) {
    if (word.substr(0, piece.size()) != piece) continue;
    best = std::max(best, score + BestSum(pieces, word.substr(piece.size())));
  }
  return best;
}

TEST(UnigramTokenizerTest, FindsTheBestOfAllPaths) {
  std::mt19937 random(3);
  const auto score = [&] { return -1.0 - static_cast<double>(random() % 64); };
  for (int round = 0; round < 50; ++round) {
    std::vector<std::pair<std::string, double>> pieces = {
        {"▁", score()}, {"a", score()}, {"b", score()}};
    for (const char* piece : {"ab", "ba", "aa", "▁a", "▁ab", "aba", "bab"}) {
      if (random() % 2 == 0) pieces.push_back({piece, score()});
    }
    const TokenizerSpec spec = UnigramSpec(pieces);
    const auto tokenizer = MakeTokenizer(spec);
    std::string word;
    while (word.size() < 10) word += random() % 2 == 0 ? 'a' : 'b';
    double sum = 0;
    std::string joined;
    for (const int32_t id :
         Encode(*tokenizer, word, std::nullopt, TextOnly()).ids) {
      sum += spec.unigram.scores[id];
      joined += tokenizer->IdToToken(id);
    }
    EXPECT_EQ(joined, "▁" + word);
    EXPECT_EQ(sum, BestSum(pieces, "▁" + word)) << word;
  }
}

TEST(UnigramTokenizerTest, JoinsUnknownNeighbours) {
  const TokenizerSpec spec = Words();
  EXPECT_EQ(Tokens(*MakeTokenizer(spec), "axyzb"), "▁a <unk> b");
  EXPECT_THAT(Offsets(spec, "axyzb"),
              ElementsAre(std::pair(0, 1), std::pair(1, 4), std::pair(4, 5)));
}

TEST(UnigramTokenizerTest, FallsBackToBytesIfAllOfThemAreTokens) {
  TokenizerSpec spec = Words();
  spec.unigram.byte_fallback = true;
  EXPECT_EQ(Tokens(*MakeTokenizer(spec), "acca"), "▁a <0x63> <0x63> a");
  EXPECT_THAT(Offsets(spec, "acca"),
              ElementsAre(std::pair(0, 1), std::pair(1, 3), std::pair(1, 3),
                          std::pair(3, 4)));
  EXPECT_EQ(Tokens(*MakeTokenizer(spec), "acÃ"), "▁a <unk>");
}

TEST(UnigramTokenizerTest, PutsASpaceBeforeAsTold) {
  TokenizerSpec spec = Words();
  spec.added_tokens.push_back({.content = "<t>"});
  EXPECT_EQ(Tokens(*MakeTokenizer(spec), "a<t>a a"), "▁a <t> ▁a ▁a");
  spec.unigram.prepend = Prepend::kFirst;
  EXPECT_EQ(Tokens(*MakeTokenizer(spec), "a<t>a a"), "▁a <t> a ▁a");
  spec.unigram.prepend = Prepend::kNever;
  EXPECT_EQ(Tokens(*MakeTokenizer(spec), "a<t>a a"), "a <t> a ▁a");
}

TEST(UnigramTokenizerTest, GivesASpaceThatWasAddedTheFirstCharacter) {
  const TokenizerSpec spec = Words();
  EXPECT_THAT(Offsets(spec, "b a"),
              ElementsAre(std::pair(0, 1), std::pair(0, 1), std::pair(1, 3)));
  EXPECT_EQ(Tokens(*MakeTokenizer(spec), " a  a"), "▁a ▁ ▁a");
  EXPECT_EQ(Tokens(*MakeTokenizer(spec), "▁a▁a"), "▁a ▁a");
}

TEST(UnigramTokenizerTest, DropsWhitespaceFirstIfTold) {
  TokenizerSpec spec = Words();
  spec.unigram.whitespace_split = true;
  EXPECT_EQ(Tokens(*MakeTokenizer(spec), " a \t\u3000 a "), "▁a ▁a");
  EXPECT_THAT(Offsets(spec, " a \t\u3000 a "),
              ElementsAre(std::pair(1, 2), std::pair(6, 7)));
}

TEST(UnigramTokenizerTest, MayTreatATextAsOneWord) {
  TokenizerSpec spec = Words();
  spec.unigram.split = false;
  spec.vocab.push_back({"a▁a", 12});
  spec.unigram.scores.push_back(-1);
  EXPECT_EQ(Tokens(*MakeTokenizer(spec), "a a"), "▁ a▁a");
}

TEST(UnigramTokenizerTest, NormalizesStepByStep) {
  TokenizerSpec spec = Words();
  spec.unigram.normalizer = {
      {.kind = NormalizerStep::kCharsmap,
       .content = MakeCharsmap({{"Ａ", "a"}, {"②", "ab"}, {"\x01", ""}})},
      {.kind = NormalizerStep::kStrip, .right = true},
      {.kind = NormalizerStep::kReplaceSpaces, .content = "▁"},
      {.kind = NormalizerStep::kReplace, .pattern = "e", .content = "é"}};
  EXPECT_EQ(Tokens(*MakeTokenizer(spec), "Ａ   e② \n"), "▁a ▁ é ab");
  EXPECT_THAT(Offsets(spec, "Ａ   e② \n"),
              ElementsAre(std::pair(0, 1), std::pair(3, 4), std::pair(4, 5),
                          std::pair(5, 6)));
  EXPECT_EQ(Tokens(*MakeTokenizer(spec), "a\x01 "), "▁a");
}

TEST(UnigramTokenizerTest, ComparesNormalizedTokensWithNormalizedText) {
  TokenizerSpec spec = Words();
  spec.unigram.normalizer = {
      {.kind = NormalizerStep::kReplace, .pattern = "Q", .content = "ab"}};
  spec.added_tokens.push_back({.content = "Qb", .normalized = true});
  EXPECT_EQ(Tokens(*MakeTokenizer(spec), "aabba"), "▁a Qb ▁a");
  EXPECT_THAT(Offsets(spec, "aQba"),
              ElementsAre(std::pair(0, 1), std::pair(1, 3), std::pair(3, 4)));
}

TEST(UnigramTokenizerTest, RefusesAnUnknownIdThatIsNone) {
  TokenizerSpec spec = Words();
  spec.unigram.unk_id = 12;
  const auto refused = CreateTokenizer(spec);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("unk_id is 12, but there are 12 tokens"));
}

}  // namespace
}  // namespace svdserve
