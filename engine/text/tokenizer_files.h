// Reads the tokenizer files of a Hugging Face directory into one plain value.
//
// The only place that sees JSON. Errors name the file and what is wrong.
//
//   absl::StatusOr<TokenizerSpec> spec = ReadTokenizerFiles("models/bert");
#ifndef SVDSERVE_ENGINE_TEXT_TOKENIZER_FILES_H_
#define SVDSERVE_ENGINE_TEXT_TOKENIZER_FILES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/added_tokens.h"
#include "engine/text/char_map.h"

namespace svdserve {

// One step of a post-processor's template: special tokens, or a text.
struct TemplatePiece {
  enum Kind { kSpecial, kFirst, kSecond };
  Kind kind = kSpecial;
  uint8_t type_id = 0;
  std::vector<int32_t> ids;  // of kSpecial
};
using Template = std::vector<TemplatePiece>;

struct TokenizerSpec {
  struct Entry {
    std::string token;
    int32_t id;
  };
  std::vector<Entry> vocab;  // tokens are unique
  std::string unk_token = "[UNK]";
  std::string continuing_subword_prefix = "##";
  size_t max_input_chars_per_word = 100;
  NormalizerOptions normalizer;
  std::vector<AddedToken> added_tokens;  // ids are not set yet
  Template single;
  Template pair;
};

// tokenizer.json, or else vocab.txt with tokenizer_config.json and
// special_tokens_map.json, which may be absent.
absl::StatusOr<TokenizerSpec> ReadTokenizerFiles(const std::string& directory);

// The same from contents. `name` is for messages.
absl::StatusOr<TokenizerSpec> ParseTokenizerJson(std::string_view name,
                                                 std::string_view contents);
// `config` and `special_tokens` may be empty: all defaults.
absl::StatusOr<TokenizerSpec> ParseVocabText(std::string_view name,
                                             std::string_view vocab,
                                             std::string_view config,
                                             std::string_view special_tokens);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_TOKENIZER_FILES_H_
