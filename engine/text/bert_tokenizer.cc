#include "engine/text/bert_tokenizer.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/text/text_encoder.h"

namespace svdserve {

BertTokenizer::BertTokenizer(TokenizerSpec spec)
    : TokenizerBase(std::move(spec)),
      map_(this->spec().word_piece.normalizer),
      plain_map_({false, false, false, false}) {}

absl::Status BertTokenizer::BuildModel() {
  const WordPieceOptions& options = spec().word_piece;
  std::vector<WordPiece::Token> tokens;
  tokens.reserve(spec().vocab.size());
  for (const auto& [text, id] : spec().vocab) tokens.push_back({text, id});
  unk_id_ = TokenToId(options.unk_token);
  if (unk_id_ < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "unk_token '", options.unk_token, "' is not in the vocabulary"));
  }
  auto pieces = WordPiece::Build(tokens, options.continuing_subword_prefix,
                                 options.max_input_chars_per_word);
  if (!pieces.ok()) return pieces.status();
  pieces_ = *std::move(pieces);
  return absl::OkStatus();
}

std::string BertTokenizer::Normalize(std::string_view text) const {
  return NormalizeText(map_, text);
}

void BertTokenizer::EncodeText(std::string_view text, const Limits& limits,
                               TextScratch* scratch, TextTokens* out) const {
  const TextRules rules{map_, plain_map_, pieces_, raw_added(),
                        normalized_added()};
  const WordSinkOptions sink{
      unk_id_, spec().word_piece.max_input_chars_per_word, limits.max_tokens};
  svdserve::EncodeText(rules, sink, limits.with_offsets, text, scratch, out);
}

}  // namespace svdserve
