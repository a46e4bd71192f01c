#include "engine/text/word_piece.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "engine/text/unicode.h"

namespace svdserve {
namespace {

using Ids = std::vector<int32_t>;
constexpr int32_t kUnknown = -1;

// Greedy matching as it is defined: the longest token that fits, again and
// again. Quadratic, obvious.
Ids Greedy(const std::map<std::string, int32_t>& vocab,
           const std::string& prefix, const std::string& word) {
  Ids out;
  for (size_t begin = 0; begin < word.size();) {
    size_t end = word.size();
    for (; end > begin; --end) {
      const auto it = vocab.find((begin > 0 ? prefix : "") +
                                 word.substr(begin, end - begin));
      if (it == vocab.end()) continue;
      out.push_back(it->second);
      break;
    }
    if (end == begin) return {kUnknown};
    begin = end;
  }
  return out;
}

Ids LinMaxMatch(const WordPiece& pieces, const std::string& word) {
  Ids out;
  size_t chars = 0;
  const auto emit = [&](const WordPiece::Piece& piece) {
    out.push_back(piece.id);
    chars += piece.chars;
  };
  WordPiece::State state = WordPiece::Start();
  for (const char byte : word) {
    if (!pieces.Step(static_cast<uint8_t>(byte), &state, emit)) {
      return {kUnknown};
    }
  }
  const int32_t whole = pieces.WholeWord(state);
  const bool emitted_before = !out.empty();
  if (!pieces.Finish(state, emit)) return {kUnknown};
  EXPECT_EQ(chars, unicode::CountCodePoints(word));
  if (whole >= 0) {
    EXPECT_FALSE(emitted_before);
    EXPECT_EQ(out, Ids{whole});
  }
  return out;
}

std::string RandomWord(std::mt19937* rng, size_t longest) {
  static const char* kLetters[] = {"a", "b", "c", "é", "中"};
  std::string out;
  for (size_t n = 1 + (*rng)() % longest; n > 0; --n) {
    out += kLetters[(*rng)() % 5];
  }
  return out;
}

// Few letters and many short tokens: words break in every possible way.
TEST(WordPieceTest, AgreesWithGreedyMatchingOnRandomVocabularies) {
  std::mt19937 rng(20);
  for (int round = 0; round < 300; ++round) {
    const std::string prefix = round % 3 == 0   ? ""
                               : round % 3 == 1 ? "##"
                                                : "b";
    std::map<std::string, int32_t> vocab;
    for (int i = 0; i < 3 + round / 4; ++i) {
      std::string token = RandomWord(&rng, 1 + rng() % 6);
      if (rng() % 2 == 0) token = prefix + token;
      vocab.emplace(token, static_cast<int32_t>(vocab.size()));
    }
    std::vector<WordPiece::Token> tokens;
    for (const auto& [text, id] : vocab) tokens.push_back({text, id});
    const auto pieces = WordPiece::Build(tokens, prefix, 100);
    ASSERT_TRUE(pieces.ok()) << pieces.status();
    for (int i = 0; i < 200; ++i) {
      const std::string word = RandomWord(&rng, 12);
      ASSERT_EQ(LinMaxMatch(*pieces, word), Greedy(vocab, prefix, word))
          << word << " in round " << round;
    }
  }
}

TEST(WordPieceTest, WorksWithAnEmptyVocabulary) {
  const auto pieces = WordPiece::Build({}, "##", 100);
  ASSERT_TRUE(pieces.ok());
  EXPECT_EQ(LinMaxMatch(*pieces, "a"), Ids{kUnknown});
}

TEST(WordPieceTest, LeavesOutTokensLongerThanAWord) {
  const std::string text(5000, 'a');
  const auto pieces = WordPiece::Build({{text, 0}, {"a", 1}}, "##", 100);
  ASSERT_TRUE(pieces.ok());
  EXPECT_EQ(LinMaxMatch(*pieces, "a"), Ids{1});
}

TEST(WordPieceTest, RefusesTokensThatAreTooLongToSupport) {
  const std::string text(5000, 'a');
  const auto pieces = WordPiece::Build({{text, 7}}, "##", 100000);
  ASSERT_FALSE(pieces.ok());
  EXPECT_EQ(pieces.status().message(),
            "token 7 has 5000 bytes; at most 1024 are supported");
}

}  // namespace
}  // namespace svdserve
