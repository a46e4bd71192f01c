// One text -> its WordPiece tokens, before truncation and special tokens.
//
// Splits off added tokens, walks what is between them, and normalizes it first
// where added tokens must be looked for in normalized text.
#ifndef SVDSERVE_ENGINE_TEXT_TEXT_ENCODER_H_
#define SVDSERVE_ENGINE_TEXT_TEXT_ENCODER_H_

#include <string>
#include <string_view>

#include "engine/text/added_tokens.h"
#include "engine/text/char_map.h"
#include "engine/text/text_scratch.h"
#include "engine/text/word_piece.h"
#include "engine/text/word_sink.h"

namespace svdserve {

// What texts are encoded with; outlives the call.
struct TextRules {
  const CharMap& map;
  const CharMap& plain_map;  // for text that is normalized already
  const WordPiece& pieces;
  const AddedTokens& raw_added;
  const AddedTokens& normalized_added;
};

// Fills the empty *out with the tokens of well-formed UTF-8.
void EncodeText(const TextRules& rules, const WordSinkOptions& options,
                bool with_offsets, std::string_view text, TextScratch* scratch,
                TextTokens* out);

// The normalized text, as added tokens that are `normalized` are compared.
std::string NormalizeText(const CharMap& map, std::string_view text);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_TEXT_ENCODER_H_
