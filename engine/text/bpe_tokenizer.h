// RoBERTa's tokenizer: the GPT-2 split and byte-level BPE.
//
// Identical ids and offsets to Hugging Face `tokenizers`; see README.md.
#ifndef SVDSERVE_ENGINE_TEXT_BPE_TOKENIZER_H_
#define SVDSERVE_ENGINE_TEXT_BPE_TOKENIZER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/byte_level_bpe.h"
#include "engine/text/tokenizer_base.h"

namespace svdserve {

class BpeTokenizer : public TokenizerBase {
 public:
  explicit BpeTokenizer(TokenizerSpec spec) : TokenizerBase(std::move(spec)) {}

 protected:
  absl::Status BuildModel() override;
  std::string Normalize(std::string_view text) const override {
    return std::string(text);
  }
  void EncodeText(std::string_view text, const Limits& limits,
                  TextScratch* scratch, TextTokens* out) const override;
  void FinishOffsets(const TextTokens& tokens, size_t first, size_t count,
                     TokenOffset* offsets) const override;

 private:
  // Spaces that a token's name begins and ends with.
  struct Spaces {
    uint32_t leading = 0;
    uint32_t trailing = 0;
  };
  static Spaces CountSpaces(std::string_view name);
  void TrimOffset(Spaces spaces, bool is_first, TokenOffset* offset) const;

  ByteLevelBpe bpe_;
  std::vector<Spaces> spaces_;  // by id; only if offsets are trimmed
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_BPE_TOKENIZER_H_
