// A small tokenizer for tests, and words to describe what it does.
#ifndef SVDSERVE_TESTS_ENGINE_TEXT_TINY_TOKENIZER_H_
#define SVDSERVE_TESTS_ENGINE_TEXT_TINY_TOKENIZER_H_

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/tokenizer_base.h"
#include "engine/text/tokenizer_files.h"

namespace svdserve {

// [PAD] [UNK] [CLS] [SEP] [MASK], then the given tokens.
inline TokenizerSpec TinySpec(const std::vector<std::string>& tokens) {
  std::string vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
  for (const std::string& token : tokens) vocab += token + "\n";
  auto spec = ParseVocabText("vocab.txt", vocab, "", "");
  EXPECT_TRUE(spec.ok()) << spec.status();
  return *std::move(spec);
}

inline std::unique_ptr<const Tokenizer> MakeTokenizer(TokenizerSpec spec) {
  auto tokenizer = CreateTokenizer(std::move(spec));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

// The tokens' names, with one space between them.
inline std::string Join(const Tokenizer& tokenizer, const Encoding& encoding) {
  std::string out;
  for (const int32_t id : encoding.ids) {
    if (!out.empty()) out += ' ';
    out += tokenizer.IdToToken(id);
  }
  return out;
}

inline EncodeOptions TextOnly() {
  EncodeOptions options;
  options.add_special_tokens = false;
  return options;
}

inline Encoding Encode(const Tokenizer& tokenizer, std::string_view text,
                       std::optional<std::string_view> pair,
                       const EncodeOptions& options) {
  Encoding encoding;
  const absl::Status status = tokenizer.Encode(text, pair, options, &encoding);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(encoding.type_ids.size(), encoding.ids.size());
  EXPECT_EQ(encoding.offsets.size(),
            options.with_offsets ? encoding.ids.size() : 0);
  return encoding;
}

inline std::string Tokens(const Tokenizer& tokenizer, std::string_view text) {
  return Join(tokenizer, Encode(tokenizer, text, std::nullopt, TextOnly()));
}

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_ENGINE_TEXT_TINY_TOKENIZER_H_
