#include "engine/text/unigram_tokenizer.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "engine/text/unicode.h"

namespace svdserve {
namespace {

// Encodes one text, from added token to added token. Words are found in the
// normalized text; only one that is not a single piece is written out, with
// its spaces replaced.
template <bool kOffsets>
class UnigramEncoder {
 public:
  UnigramEncoder(const Unigram& unigram, const TextNormalizer& normalizer,
                 const UnigramOptions& options, size_t max_tokens,
                 TextScratch* scratch, TextTokens* out)
      : unigram_(unigram),
        normalizer_(normalizer),
        options_(options),
        space_(options.replacement),
        after_space_(unigram.Walk(space_, Unigram::kRoot)),
        max_tokens_(max_tokens),
        scratch_(*scratch),
        out_(*out) {}

  bool done() const { return out_.ids.size() >= max_tokens_; }

  // An added token of the text as it is.
  void RawToken(std::string_view text, int32_t id) {
    const auto size = static_cast<uint32_t>(unicode::CountCodePoints(text));
    Push(id, position_, position_ + size);
    position_ += size;
  }

  // Text between them, in which normalized added tokens may be.
  void RawText(std::string_view text, const AddedTokens& normalized_added) {
    if (text.empty()) return;
    const bool with_sources =
        kOffsets || options_.prepend == UnigramOptions::Prepend::kFirst;
    normalizer_.Normalize(text, position_, with_sources, &scratch_.normalized,
                          &scratch_.other);
    char_ = 0;
    normalized_added.Split(
        scratch_.normalized.text, [this] { return done(); },
        [this](std::string_view piece) { Text(piece); },
        [this](std::string_view piece, int32_t id) {
          const uint32_t begin = char_;
          Advance(piece);
          if constexpr (kOffsets) {
            Push(id, Source(begin), Source(char_ - 1) + 1);
          } else {
            Push(id, 0, 0);
          }
        });
    if (with_sources) {
      position_ += static_cast<uint32_t>(unicode::CountCodePoints(text));
    }
  }

 private:
  // Normalized text between added tokens.
  void Text(std::string_view text) {
    if (!options_.whitespace_split) {
      Words(text);
      return;
    }
    size_t begin = 0;
    for (size_t at = 0; at < text.size() && !done();) {
      const unicode::Decoded d = unicode::DecodeValid(text.data() + at);
      if (IsSpace(d.c)) {
        Words(text.substr(begin, at - begin));
        Advance(text.substr(at, d.size));
        begin = at + d.size;
      }
      at += d.size;
    }
    if (!done()) Words(text.substr(begin));
  }

  static bool IsSpace(char32_t c) {
    if (c < 0x80) return c == ' ' || (c >= 0x9 && c <= 0xD);
    return unicode::Properties(c) & unicode::kWhitespace;
  }

  // Splits before each space and each of the character that replaces spaces.
  void Words(std::string_view text) {
    if (text.empty()) return;
    bool prepend = !StartsWithSpace(text) && MayPrepend();
    while (!text.empty() && !done()) {
      const size_t size = options_.split ? WordSize(text) : text.size();
      Word(text.substr(0, size), prepend);
      text.remove_prefix(size);
      prepend = false;
    }
  }

  bool MayPrepend() const {
    switch (options_.prepend) {
      case UnigramOptions::Prepend::kAlways:
        return true;
      case UnigramOptions::Prepend::kFirst:
        return Source(char_) == 0;
      case UnigramOptions::Prepend::kNever:
        break;
    }
    return false;
  }

  bool StartsWithSpace(std::string_view text) const {
    return text[0] == ' ' || text.substr(0, space_.size()) == space_;
  }

  size_t WordSize(std::string_view text) const {
    size_t at = 1;
    while (
        at < text.size() && text[at] != ' ' &&
        (text[at] != space_[0] || text.substr(at, space_.size()) != space_)) {
      ++at;
    }
    return at;
  }

  void Word(std::string_view word, bool prepend) {
    const int32_t whole = WholeWord(word, prepend);
    if (whole >= 0) {
      const uint32_t begin = char_;
      if constexpr (kOffsets) {
        Advance(word);
        Push(whole, Source(begin), Source(char_ - 1) + 1);
      } else {
        Push(whole, 0, 0);
      }
      return;
    }
    std::string& text = scratch_.word_text;
    text.clear();
    if (prepend) text.append(space_);
    for (const char c : word) {
      if (c == ' ') {
        text.append(space_);
      } else {
        text.push_back(c);
      }
    }
    uint32_t chars = 0;  // of the word written out, before `counted`
    uint32_t counted = 0;
    unigram_.Encode(
        text, &scratch_.unigram, [&](int32_t id, uint32_t begin, uint32_t end) {
          if constexpr (kOffsets) {
            if (begin >= counted) {  // not another byte of the same piece
              first_ = chars;
              chars += static_cast<uint32_t>(unicode::CountCodePoints(
                  std::string_view(text).substr(begin, end - begin)));
              counted = end;
            }
            Push(id, WordSource(first_, prepend),
                 WordSource(chars - 1, prepend) + 1);
          } else {
            Push(id, 0, 0);
          }
        });
    Advance(word);
  }

  // The id of the piece that the whole word is, or -1.
  int32_t WholeWord(std::string_view word, bool prepend) const {
    if (!options_.split) return -1;  // there may be more spaces
    if (word[0] == ' ') {
      word.remove_prefix(1);
      prepend = true;
    }
    return unigram_.WholeWord(
        unigram_.Walk(word, prepend ? after_space_ : Unigram::kRoot));
  }

  // The source of a character of the word that starts at char_. The space that
  // was put before it stands for its first character.
  uint32_t WordSource(uint32_t index, bool prepend) const {
    return Source(char_ + (prepend && index > 0 ? index - 1 : index));
  }
  uint32_t Source(uint32_t index) const {
    return scratch_.normalized.sources[index];
  }

  // Moves char_ over `text`.
  void Advance(std::string_view text) {
    if (kOffsets || options_.prepend == UnigramOptions::Prepend::kFirst) {
      char_ += static_cast<uint32_t>(unicode::CountCodePoints(text));
    }
  }

  void Push(int32_t id, uint32_t begin, uint32_t end) {
    out_.ids.push_back(id);
    if constexpr (kOffsets) out_.offsets.push_back({begin, end});
  }

  const Unigram& unigram_;
  const TextNormalizer& normalizer_;
  const UnigramOptions& options_;
  const std::string_view space_;  // what replaces a space
  const Unigram::Node after_space_;
  const size_t max_tokens_;
  TextScratch& scratch_;
  TextTokens& out_;
  uint32_t position_ = 0;  // in code points of the text
  uint32_t char_ = 0;      // in those of the normalized text, if they count
  uint32_t first_ = 0;     // the first character of a piece, in its word
};

}  // namespace

absl::Status UnigramTokenizer::BuildModel() {
  auto normalizer = TextNormalizer::Build(spec().unigram.normalizer);
  if (!normalizer.ok()) return normalizer.status();
  normalizer_ = *std::move(normalizer);
  auto unigram = Unigram::Build(spec().vocab, spec().unigram);
  if (!unigram.ok()) return unigram.status();
  unigram_ = *std::move(unigram);
  return absl::OkStatus();
}

std::string UnigramTokenizer::Normalize(std::string_view text) const {
  NormalizedText out, other;
  normalizer_.Normalize(text, 0, false, &out, &other);
  return out.text;
}

void UnigramTokenizer::EncodeText(std::string_view text, const Limits& limits,
                                  TextScratch* scratch, TextTokens* out) const {
  const auto encode = [&](auto encoder) {
    raw_added().Split(
        text, [&] { return encoder.done(); },
        [&](std::string_view piece) {
          encoder.RawText(piece, normalized_added());
        },
        [&](std::string_view piece, int32_t id) {
          encoder.RawToken(piece, id);
        });
  };
  if (limits.with_offsets) {
    encode(UnigramEncoder<true>(unigram_, normalizer_, spec().unigram,
                                limits.max_tokens, scratch, out));
  } else {
    encode(UnigramEncoder<false>(unigram_, normalizer_, spec().unigram,
                                 limits.max_tokens, scratch, out));
  }
}

}  // namespace svdserve
