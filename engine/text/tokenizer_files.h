// Reads the tokenizer files of a Hugging Face directory into one plain value.
//
// The readers (tokenizer_json.cc, vocab_files.cc) are the only ones who see
// JSON. Errors name the file and what is wrong.
//
//   absl::StatusOr<TokenizerSpec> spec = ReadTokenizerFiles("models/bert");
#ifndef SVDSERVE_ENGINE_TEXT_TOKENIZER_FILES_H_
#define SVDSERVE_ENGINE_TEXT_TOKENIZER_FILES_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/text/tokenizer_spec.h"

namespace svdserve {

// tokenizer.json, or else vocab.txt (BERT), or else vocab.json and merges.txt
// (RoBERTa); the latter two with tokenizer_config.json and
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
// `name` is the vocabulary's.
struct BpeFiles {
  std::string_view vocab;   // JSON
  std::string_view merges;  // text
  std::string_view config;  // this and the next may be empty
  std::string_view special_tokens;
};
absl::StatusOr<TokenizerSpec> ParseBpeFiles(std::string_view name,
                                            const BpeFiles& files);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_TOKENIZER_FILES_H_
