// BERT's tokenizer: normalizer, word split and WordPiece in one pass.
//
// Identical ids and offsets to Hugging Face `tokenizers`; see README.md.
#ifndef SVDSERVE_ENGINE_TEXT_BERT_TOKENIZER_H_
#define SVDSERVE_ENGINE_TEXT_BERT_TOKENIZER_H_

#include <string>
#include <string_view>

#include "engine/text/char_map.h"
#include "engine/text/tokenizer_base.h"
#include "engine/text/word_piece.h"

namespace svdserve {

class BertTokenizer : public TokenizerBase {
 public:
  explicit BertTokenizer(TokenizerSpec spec);

 protected:
  absl::Status BuildModel() override;
  std::string Normalize(std::string_view text) const override;
  void EncodeText(std::string_view text, const Limits& limits,
                  TextScratch* scratch, TextTokens* out) const override;

 private:
  CharMap map_;
  CharMap plain_map_;  // splits what is normalized already
  WordPiece pieces_;
  int32_t unk_id_ = -1;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_BERT_TOKENIZER_H_
