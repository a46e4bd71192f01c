// BERT's tokenizer: normalizer, word split and WordPiece in one pass.
//
// Identical ids and offsets to Hugging Face `tokenizers`; see README.md.
// Immutable after Create and thread-safe. Scratch memory is thread-local.
//
//   auto spec = ReadTokenizerFiles(directory);
//   auto tokenizer = BertTokenizer::Create(*std::move(spec));
#ifndef SVDSERVE_ENGINE_TEXT_BERT_TOKENIZER_H_
#define SVDSERVE_ENGINE_TEXT_BERT_TOKENIZER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/added_tokens.h"
#include "engine/text/char_map.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_files.h"
#include "engine/text/word_piece.h"

namespace svdserve {

class BertTokenizer : public Tokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> Create(
      TokenizerSpec spec);

  absl::Status Encode(std::string_view text,
                      std::optional<std::string_view> pair,
                      const EncodeOptions& options,
                      Encoding* out) const override;
  int vocab_size() const override { return vocab_size_; }
  int32_t TokenToId(std::string_view token) const override;
  std::string_view IdToToken(int32_t id) const override;

 private:
  explicit BertTokenizer(TokenizerSpec spec);
  absl::Status Build();
  absl::Status BuildAddedTokens();
  void BuildNames();

  TokenizerSpec spec_;  // owns the tokens' text
  CharMap map_;
  CharMap plain_map_;  // splits what is normalized already
  WordPiece pieces_;
  AddedTokens raw_added_;
  AddedTokens normalized_added_;
  int32_t unk_id_ = -1;
  int vocab_size_ = 0;
  absl::flat_hash_map<std::string_view, int32_t> ids_;
  std::vector<std::pair<int32_t, std::string_view>> names_;  // by id
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_BERT_TOKENIZER_H_
