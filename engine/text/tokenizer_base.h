// What all tokenizers share: names and ids, added tokens, truncation and the
// special tokens around a text. A class for each model does the rest.
//
// Immutable after Create and thread-safe. Scratch memory is thread-local.
//
//   auto spec = ReadTokenizerFiles(directory);
//   auto tokenizer = CreateTokenizer(*std::move(spec));
#ifndef SVDSERVE_ENGINE_TEXT_TOKENIZER_BASE_H_
#define SVDSERVE_ENGINE_TEXT_TOKENIZER_BASE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/added_tokens.h"
#include "engine/text/text_scratch.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_spec.h"

namespace svdserve {

// The tokenizer that `spec` describes.
absl::StatusOr<std::unique_ptr<const Tokenizer>> CreateTokenizer(
    TokenizerSpec spec);

class TokenizerBase : public Tokenizer {
 public:
  absl::Status Encode(std::string_view text,
                      std::optional<std::string_view> pair,
                      const EncodeOptions& options,
                      Encoding* out) const override;
  int vocab_size() const override { return vocab_size_; }
  int32_t TokenToId(std::string_view token) const override;
  std::string_view IdToToken(int32_t id) const override;

  // Called once, before anything else.
  absl::Status Build();

 protected:
  struct Limits {
    size_t max_tokens;  // what comes after as many may be left out
    bool with_offsets;
  };

  explicit TokenizerBase(TokenizerSpec spec) : spec_(std::move(spec)) {}

  // Builds the model from spec(); the vocabulary's ids are known.
  virtual absl::Status BuildModel() = 0;
  // The normalizer alone, for added tokens that are `normalized`.
  virtual std::string Normalize(std::string_view text) const = 0;
  // Fills the empty *out with the tokens of well-formed UTF-8.
  virtual void EncodeText(std::string_view text, const Limits& limits,
                          TextScratch* scratch, TextTokens* out) const = 0;
  // A last change of offsets[0, count), those of tokens [first, first + count)
  // that truncation left.
  virtual void FinishOffsets(const TextTokens& /*tokens*/, size_t /*first*/,
                             size_t /*count*/, TokenOffset* /*offsets*/) const {
  }

  const TokenizerSpec& spec() const { return spec_; }
  // Tokens that are compared with the text, and with the normalized text.
  const AddedTokens& raw_added() const { return raw_added_; }
  const AddedTokens& normalized_added() const { return normalized_added_; }

 private:
  struct Range {
    size_t begin;
    size_t end;
  };
  absl::Status BuildAddedTokens();
  void BuildNames();
  void EncodeOne(std::string_view text, const Limits& limits,
                 TextScratch* scratch, TextTokens* out) const;
  void AppendText(const TextTokens& tokens, Range range, uint8_t type_id,
                  bool with_offsets, Encoding* out) const;

  const TokenizerSpec spec_;  // owns the tokens' text
  AddedTokens raw_added_;
  AddedTokens normalized_added_;
  int vocab_size_ = 0;
  absl::flat_hash_map<std::string_view, int32_t> ids_;
  std::vector<std::pair<int32_t, std::string_view>> names_;  // by id
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_TOKENIZER_BASE_H_
