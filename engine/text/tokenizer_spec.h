// Everything that tokenizer files say, as one plain value.
//
// tokenizer_files.h reads it; CreateTokenizer (tokenizer_base.h) builds the
// tokenizer that it describes.
#ifndef SVDSERVE_ENGINE_TEXT_TOKENIZER_SPEC_H_
#define SVDSERVE_ENGINE_TEXT_TOKENIZER_SPEC_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

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

// A BERT tokenizer's model and its normalizer.
struct WordPieceOptions {
  std::string unk_token = "[UNK]";
  std::string continuing_subword_prefix = "##";
  size_t max_input_chars_per_word = 100;
  NormalizerOptions normalizer;
};

// A RoBERTa tokenizer: BPE over the bytes of the pieces that the ByteLevel
// pre-tokenizer splits a text into.
struct BpeOptions {
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  std::optional<std::string> unk_token;
  bool fuse_unk = false;
  bool ignore_merges = false;  // a piece that is a token is that token
  bool add_prefix_space = false;
  bool use_regex = true;  // split as GPT-2 does; else not at all
  // The post-processor's: leave spaces out of offsets, but for one space at
  // the very beginning if it may have been added.
  bool trim_offsets = false;
  bool keep_prefix_space = false;
};

// One step of an XLM-R tokenizer's normalizer.
struct NormalizerStep {
  enum Kind {
    kCharsmap,      // content: SentencePiece's compiled map
    kStrip,         // whitespace off the ends
    kReplace,       // every `pattern` by content
    kReplaceSpaces  // every run of two or more spaces by content
  };
  Kind kind = kCharsmap;
  std::string pattern = {};
  std::string content = {};
  bool left = false;  // of kStrip
  bool right = false;
};

// An XLM-R tokenizer: Unigram over the words that the Metaspace pre-tokenizer
// makes, each with a replacement for the space before it.
struct UnigramOptions {
  enum class Prepend { kAlways, kFirst, kNever };
  std::vector<double> scores;  // of each token, by id
  int32_t unk_id = 0;
  bool byte_fallback = false;
  std::vector<NormalizerStep> normalizer;
  bool whitespace_split = false;  // first, at any whitespace, which is dropped
  std::string replacement = "\u2581";
  Prepend prepend = Prepend::kAlways;
  bool split = true;
};

struct TokenizerSpec {
  enum class Model { kWordPiece, kBpe, kUnigram };
  struct Entry {
    std::string token;
    int32_t id;
  };

  Model model = Model::kWordPiece;
  std::vector<Entry> vocab;              // tokens are unique
  std::vector<AddedToken> added_tokens;  // ids are not set yet
  Template single;
  Template pair;
  WordPieceOptions word_piece;  // this one,
  BpeOptions bpe;               // this one
  UnigramOptions unigram;       // or this one, by `model`
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_TOKENIZER_SPEC_H_
