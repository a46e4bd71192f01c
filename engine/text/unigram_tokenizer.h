// XLM-R's tokenizer: SentencePiece's normalizer, words with a mark for the
// space before them, and Unigram.
//
// Identical ids and offsets to Hugging Face `tokenizers`; see README.md.
#ifndef SVDSERVE_ENGINE_TEXT_UNIGRAM_TOKENIZER_H_
#define SVDSERVE_ENGINE_TEXT_UNIGRAM_TOKENIZER_H_

#include <string>
#include <string_view>
#include <utility>

#include "engine/text/text_normalizer.h"
#include "engine/text/tokenizer_base.h"
#include "engine/text/unigram.h"

namespace svdserve {

class UnigramTokenizer : public TokenizerBase {
 public:
  explicit UnigramTokenizer(TokenizerSpec spec)
      : TokenizerBase(std::move(spec)) {}

 protected:
  absl::Status BuildModel() override;
  std::string Normalize(std::string_view text) const override;
  void EncodeText(std::string_view text, const Limits& limits,
                  TextScratch* scratch, TextTokens* out) const override;

 private:
  TextNormalizer normalizer_;
  Unigram unigram_;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_UNIGRAM_TOKENIZER_H_
