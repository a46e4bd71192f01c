// Small BPE and Unigram tokenizers for tests.
#ifndef SVDSERVE_TESTS_ENGINE_TEXT_TINY_SUBWORDS_H_
#define SVDSERVE_TESTS_ENGINE_TEXT_TINY_SUBWORDS_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/byte_level_bpe.h"
#include "engine/text/tokenizer_spec.h"
#include "engine/text/unicode.h"

namespace svdserve {

inline TemplatePiece Special(int32_t id) {
  return {TemplatePiece::kSpecial, 0, {id}};
}

// <s> 0, </s> 1, <unk> 2, then `tokens`; <s> A </s> and <s> A </s> </s> B </s>.
inline TokenizerSpec SubwordSpec(const std::vector<std::string>& tokens) {
  TokenizerSpec spec;
  spec.vocab = {{"<s>", 0}, {"</s>", 1}, {"<unk>", 2}};
  for (const std::string& token : tokens) {
    spec.vocab.push_back({token, static_cast<int32_t>(spec.vocab.size())});
  }
  const TemplatePiece first{TemplatePiece::kFirst, 0, {}};
  const TemplatePiece second{TemplatePiece::kSecond, 0, {}};
  spec.single = {Special(0), first, Special(1)};
  spec.pair = {Special(0), first, Special(1), Special(1), second, Special(1)};
  return spec;
}

// Every byte, what merges make ("a b" makes "ab"; Ġ is a space), and `more`.
inline TokenizerSpec BpeSpec(
    const std::vector<std::pair<std::string, std::string>>& merges,
    const std::vector<std::string>& more = {}) {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) {
    char bytes[4];
    const char32_t c = ByteLevelBpe::CharOfByte(static_cast<uint8_t>(byte));
    tokens.emplace_back(bytes, unicode::EncodeUtf8(c, bytes));
  }
  for (const auto& [left, right] : merges) tokens.push_back(left + right);
  tokens.insert(tokens.end(), more.begin(), more.end());
  TokenizerSpec spec = SubwordSpec(tokens);
  spec.model = TokenizerSpec::Model::kBpe;
  spec.bpe.merges = merges;
  return spec;
}

inline TokenizerSpec UnigramSpec(
    const std::vector<std::pair<std::string, double>>& pieces) {
  std::vector<std::string> tokens;
  std::vector<double> scores = {0, 0, 0};
  for (const auto& [piece, score] : pieces) {
    tokens.push_back(piece);
    scores.push_back(score);
  }
  TokenizerSpec spec = SubwordSpec(tokens);
  spec.model = TokenizerSpec::Model::kUnigram;
  spec.unigram.scores = scores;
  spec.unigram.unk_id = 2;
  return spec;
}

// A precompiled_charsmap. Each node of its double array has a block of 256
// units for its children, which is simple and not small.
inline std::string MakeCharsmap(const std::map<std::string, std::string>& map) {
  std::vector<uint32_t> units(256);
  std::map<std::string, uint32_t> blocks;  // of each prefix of a key
  const auto block_of = [&](const std::string& prefix, uint32_t node) {
    const auto [it, is_new] =
        blocks.emplace(prefix, static_cast<uint32_t>(units.size()));
    if (is_new) {
      units.resize(units.size() + 256);
      const uint32_t label =
          prefix.empty() ? 0 : static_cast<uint8_t>(prefix.back());
      units[node] |= label | (node ^ it->second) << 10;
    }
    return it->second;
  };
  std::string replacements;
  for (const auto& [key, replacement] : map) {
    uint32_t node = 0;
    uint32_t block = block_of("", node);
    for (size_t i = 0; i < key.size(); ++i) {
      node = block + static_cast<uint8_t>(key[i]);
      block = block_of(key.substr(0, i + 1), node);
    }
    units[node] |= 1 << 8;
    units[block] =
        UINT32_C(1) << 31 | static_cast<uint32_t>(replacements.size());
    replacements += replacement + '\0';
  }
  std::string out;
  const auto put = [&](uint32_t value) {
    for (int shift = 0; shift < 32; shift += 8) {
      out.push_back(static_cast<char>(value >> shift));
    }
  };
  put(static_cast<uint32_t>(4 * units.size()));
  for (const uint32_t unit : units) put(unit);
  return out + replacements;
}

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_ENGINE_TEXT_TINY_SUBWORDS_H_
