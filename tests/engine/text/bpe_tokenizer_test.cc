#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/byte_level_split.h"
#include "tests/engine/text/tiny_subwords.h"
#include "tests/engine/text/tiny_tokenizer.h"

namespace svdserve {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Merges = std::vector<std::pair<std::string, std::string>>;

std::vector<std::string> Pieces(std::string_view text) {
  std::vector<std::string> out;
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p < end;) {
    const char* next = ByteLevelSplit::Get().Next(p, end);
    out.emplace_back(p, next);
    p = next;
  }
  return out;
}

TEST(ByteLevelSplitTest, SplitsLettersNumbersAndTheRest) {
  EXPECT_THAT(Pieces("In 2024,été中Ⅳ½ !? x"),
              ElementsAre("In", " 2024", ",", "été中", "Ⅳ½", " !?", " x"));
}

TEST(ByteLevelSplitTest, CutsOffContractions) {
  EXPECT_THAT(Pieces("I'll we've're's'dd'T 's"),
              ElementsAre("I", "'ll", " we", "'ve", "'re", "'s", "'d", "d", "'",
                          "T", " '", "s"));
  EXPECT_THAT(Pieces("'"), ElementsAre("'"));
  EXPECT_THAT(Pieces("'l"), ElementsAre("'", "l"));
  EXPECT_THAT(Pieces("!'s"), ElementsAre("!'", "s"));
}

TEST(ByteLevelSplitTest, LeavesTheLastSpaceToWhatFollows) {
  EXPECT_THAT(Pieces("a   b"), ElementsAre("a", "  ", " b"));
  EXPECT_THAT(Pieces("a\n\nb"), ElementsAre("a", "\n", "\n", "b"));
  EXPECT_THAT(Pieces("a \u3000 \n"), ElementsAre("a", " \u3000 \n"));
  EXPECT_THAT(Pieces(" \u00a0b"), ElementsAre(" ", "\u00a0", "b"));
}

TEST(BpeTokenizerTest, MergesTheBestRankFirst) {
  const auto tokenizer = MakeTokenizer(BpeSpec({{"b", "c"}, {"a", "b"}}));
  EXPECT_EQ(Tokens(*tokenizer, "abc"), "a bc");
  EXPECT_EQ(Tokens(*tokenizer, "abab"), "ab ab");
}

TEST(BpeTokenizerTest, MergesTheLeftmostOfEqualPairs) {
  const auto tokenizer = MakeTokenizer(BpeSpec({{"a", "a"}}));
  EXPECT_EQ(Tokens(*tokenizer, "aaa"), "aa a");
  EXPECT_EQ(Tokens(*tokenizer, std::string(101, 'a')).substr(0, 6), "aa aa ");
}

TEST(BpeTokenizerTest, TakesATokenOnlyIfItsBytesMergeToIt) {
  TokenizerSpec spec = BpeSpec({{"a", "b"}}, {"abc"});
  EXPECT_EQ(Tokens(*MakeTokenizer(spec), "abc ab"), "ab c Ġ ab");
  spec.bpe.ignore_merges = true;
  EXPECT_EQ(Tokens(*MakeTokenizer(spec), "abc ab"), "abc Ġ ab");
}

// What BPE is, said slowly.
std::string MergeSlowly(const Merges& merges, std::string_view word) {
  std::vector<std::string> symbols;
  for (const char c : word) symbols.emplace_back(1, c);
  while (true) {
    size_t best_rank = merges.size(), best = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = std::find(merges.begin(), merges.end(),
                                   std::pair(symbols[i], symbols[i + 1]));
      const size_t rank = found - merges.begin();
      if (rank < best_rank) best_rank = rank, best = i;
    }
    if (best_rank == merges.size()) break;
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + best + 1);
  }
  std::string out;
  for (const std::string& s : symbols) out += (out.empty() ? "" : " ") + s;
  return out;
}

TEST(BpeTokenizerTest, AgreesWithTheDefinitionOnShortAndLongWords) {
  std::mt19937 random(1);
  for (int round = 0; round < 20; ++round) {
    std::vector<std::string> tokens = {"a", "b", "c"};
    Merges merges;
    while (merges.size() < 25) {
      const std::pair<std::string, std::string> merge = {
          tokens[random() % tokens.size()], tokens[random() % tokens.size()]};
      const std::string made = merge.first + merge.second;
      if (std::find(tokens.begin(), tokens.end(), made) != tokens.end()) {
        continue;
      }
      tokens.push_back(made);
      merges.push_back(merge);
    }
    const auto tokenizer = MakeTokenizer(BpeSpec(merges));
    for (const size_t size : {1, 2, 5, 39, 40, 41, 42, 90, 300}) {
      std::string word;
      while (word.size() < size) word += static_cast<char>('a' + random() % 3);
      EXPECT_EQ(Tokens(*tokenizer, word), MergeSlowly(merges, word)) << word;
    }
  }
}

class BpeOffsetsTest : public testing::Test {
 protected:
  std::vector<std::pair<uint32_t, uint32_t>> Offsets(std::string_view text,
                                                     int max_tokens = 0) {
    EncodeOptions options = TextOnly();
    options.with_offsets = true;
    options.truncate = max_tokens > 0;
    options.max_tokens = max_tokens;
    options.side = TruncationSide::kLeft;
    std::vector<std::pair<uint32_t, uint32_t>> out;
    const auto tokenizer = MakeTokenizer(spec_);
    for (const TokenOffset& o :
         Encode(*tokenizer, text, std::nullopt, options).offsets) {
      out.push_back({o.begin, o.end});
    }
    return out;
  }
  TokenizerSpec spec_ = BpeSpec({{"Ġ", "a"}, {"b", "c"}, {"Ã", "©"}});
};

TEST_F(BpeOffsetsTest, CountCodePointsThatATokenTouches) {
  EXPECT_THAT(Offsets("bc ébc"), ElementsAre(std::pair(0, 2), std::pair(2, 3),
                                             std::pair(3, 4), std::pair(4, 6)));
  EXPECT_THAT(Offsets("中"),
              ElementsAre(std::pair(0, 1), std::pair(0, 1), std::pair(0, 1)));
}

TEST_F(BpeOffsetsTest, GiveAnAddedSpaceTheFirstCharacter) {
  spec_.bpe.add_prefix_space = true;
  EXPECT_EQ(Tokens(*MakeTokenizer(spec_), "a a"), "Ġa Ġa");
  EXPECT_THAT(Offsets("a a"), ElementsAre(std::pair(0, 1), std::pair(1, 3)));
  EXPECT_THAT(Offsets(" a"), ElementsAre(std::pair(0, 2)));
  EXPECT_THAT(Offsets("bc"), ElementsAre(std::pair(0, 1), std::pair(0, 2)));
}

TEST_F(BpeOffsetsTest, LeaveSpacesOutIfAskedTo) {
  spec_.bpe.trim_offsets = true;
  EXPECT_THAT(Offsets("a a"), ElementsAre(std::pair(0, 1), std::pair(2, 3)));
  EXPECT_THAT(Offsets("a  "),
              ElementsAre(std::pair(0, 1), std::pair(2, 2), std::pair(3, 3)));
  spec_.bpe.add_prefix_space = spec_.bpe.keep_prefix_space = true;
  EXPECT_THAT(Offsets("a a"), ElementsAre(std::pair(0, 1), std::pair(2, 3)));
  // The first token that is kept may begin with the space that was added.
  EXPECT_THAT(Offsets("a a", 1), ElementsAre(std::pair(1, 3)));
}

TEST_F(BpeOffsetsTest, LeaveSpacesOutOfAddedTokens) {
  spec_.bpe.trim_offsets = true;
  spec_.added_tokens.push_back({.content = "<m>", .lstrip = true});
  EXPECT_EQ(Tokens(*MakeTokenizer(spec_), "bc  <m>bc"), "bc <m> bc");
  EXPECT_THAT(Offsets("bc  <m>bc"),
              ElementsAre(std::pair(0, 2), std::pair(4, 7), std::pair(7, 9)));
}

TEST(BpeTokenizerTest, PutsSpecialTokensAroundTextAndPair) {
  const auto tokenizer = MakeTokenizer(BpeSpec({}));
  const Encoding encoding = Encode(*tokenizer, "a", "b", {});
  EXPECT_EQ(Join(*tokenizer, encoding), "<s> a </s> </s> b </s>");
  EXPECT_THAT(encoding.type_ids, testing::Each(0));
}

TEST(BpeTokenizerTest, ReadsIllFormedBytesAsReplacements) {
  const auto tokenizer = MakeTokenizer(BpeSpec({}));
  EXPECT_EQ(Tokens(*tokenizer, "a\xff"), Tokens(*tokenizer, "a\ufffd"));
}

TEST(BpeTokenizerTest, NeedsEveryByteOrAnUnknownToken) {
  TokenizerSpec spec = BpeSpec({{"a", "b"}});
  std::erase_if(spec.vocab, [](const auto& e) { return e.token == "x"; });
  std::erase_if(spec.vocab, [](const auto& e) { return e.token == "y"; });
  const auto refused = CreateTokenizer(spec);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("lacks the byte 0x78, 'x', and there is no unk_token"));
  spec.bpe.unk_token = "<unk>";
  EXPECT_EQ(Tokens(*MakeTokenizer(spec), "axyab"), "a <unk> <unk> ab");
  spec.bpe.fuse_unk = true;
  EXPECT_EQ(Tokens(*MakeTokenizer(spec), "axyab"), "a <unk> ab");
}

TEST(BpeTokenizerTest, NamesAMergeOfNoTokens) {
  TokenizerSpec spec = BpeSpec({{"a", "b"}});
  spec.bpe.merges.push_back({"ab", "c"});
  const auto refused = CreateTokenizer(spec);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("merge 1, 'ab c', needs 'abc', which is not in"));
}

}  // namespace
}  // namespace svdserve
