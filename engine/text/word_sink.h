// A TextWalker's sink that splits words into tokens.
//
// Offsets cost something, so they are a template parameter. A word that cannot
// be made of tokens, or is too long, becomes the unknown token.
#ifndef SVDSERVE_ENGINE_TEXT_WORD_SINK_H_
#define SVDSERVE_ENGINE_TEXT_WORD_SINK_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/text/char_map.h"
#include "engine/text/text_scratch.h"
#include "engine/text/tokenizer.h"
#include "engine/text/word_piece.h"

namespace svdserve {

struct WordSinkOptions {
  int32_t unk_id = 0;
  size_t max_chars = 0;
  size_t max_tokens = 0;  // done after the word that reaches it
};

template <bool kOffsets>
class WordSink {
 public:
  WordSink(const WordPiece& pieces, const WordSinkOptions& options,
           std::vector<uint32_t>* word_sources, TextTokens* out)
      : pieces_(pieces), options_(options), word_(*word_sources), out_(*out) {
    word_.clear();
  }

  // For text that was normalized before: the source of each code point.
  // nullptr: it is its own source.
  void set_sources(const uint32_t* sources) { sources_ = sources; }
  void set_map(const CharMap* map) { map_ = map; }
  bool done() const { return done_; }

  const char* Ascii(const char* p, const char* end, uint32_t position) {
    const char* const begin = p;
    while (p < end && !done_) {
      const CharMap::Ascii a = map_->FindByte(static_cast<uint8_t>(*p));
      if (a.action == CharMap::kLetter) {
        p = Letters(p, end, position + static_cast<uint32_t>(p - begin));
        continue;
      }
      if (a.action == CharMap::kNotAscii) return p;
      if (a.action != CharMap::kRemove) {
        EndWord();
        if (a.action == CharMap::kIsolated) {
          const char byte = static_cast<char>(a.byte);
          Isolated(&byte, 1, position + static_cast<uint32_t>(p - begin));
        }
      }
      ++p;
    }
    return p;
  }

  void Letter(const char* bytes, uint32_t size, uint32_t position) {
    if (done_) return;
    for (uint32_t i = 0; i < size && !failed_; ++i) {
      failed_ = !pieces_.Step(static_cast<uint8_t>(bytes[i]), &state_, emit());
    }
    AddSources(position, 1);
  }

  void Space(const char*, uint32_t, uint32_t) { EndWord(); }

  void Isolated(const char* bytes, uint32_t size, uint32_t position) {
    EndWord();
    Letter(bytes, size, position);
    EndWord();
  }

  void EndWord() {
    if (chars_ == 0) return;
    const int32_t whole = failed_ ? -1 : pieces_.WholeWord(state_);
    if (whole >= 0) {
      Push({whole, chars_});
    } else if (failed_ || !pieces_.Finish(state_, emit())) {
      PushUnknown();
    }
    if constexpr (kOffsets) PlaceOffsets();
    Reset();
    done_ = word_begin_ >= options_.max_tokens;
  }

  // A token that was found in the text as it is, between words.
  void Added(int32_t id, TokenOffset offset) {
    out_.ids.push_back(id);
    if constexpr (kOffsets) out_.offsets.push_back(offset);
    word_begin_ = out_.ids.size();
  }

 private:
  auto emit() {
    return [this](const WordPiece::Piece& piece) { Push(piece); };
  }

  // Offsets count a word's characters until PlaceOffsets.
  void Push(const WordPiece::Piece& piece) {
    out_.ids.push_back(piece.id);
    if constexpr (kOffsets) {
      out_.offsets.push_back({emitted_, emitted_ + piece.chars});
      emitted_ += piece.chars;
    }
  }

  void PushUnknown() {
    out_.ids.resize(word_begin_);
    out_.ids.push_back(options_.unk_id);
    if constexpr (kOffsets) {
      out_.offsets.resize(word_begin_);
      out_.offsets.push_back({0, chars_});
    }
  }

  void PlaceOffsets() {
    for (size_t i = word_begin_; i < out_.offsets.size(); ++i) {
      TokenOffset& offset = out_.offsets[i];
      const uint32_t last =
          offset.end == chars_ ? last_source_ : word_[offset.end - 1];
      offset = {word_[offset.begin], last + 1};
    }
  }

  void Reset() {
    word_.clear();
    state_ = WordPiece::Start();
    chars_ = 0;
    emitted_ = 0;
    failed_ = false;
    word_begin_ = out_.ids.size();
  }

  // A run of ASCII letters; no more of them are matched than a word may have.
  const char* Letters(const char* p, const char* end, uint32_t position) {
    const char* const begin = p;
    const char* stop = p;
    if (!failed_) {
      stop += std::min<size_t>(end - p, options_.max_chars - chars_);
    }
    WordPiece::State state = state_;
    for (; p < stop; ++p) {
      const CharMap::Ascii a = map_->FindByte(static_cast<uint8_t>(*p));
      if (a.action != CharMap::kLetter) break;
      if (!pieces_.Step(a.byte, &state, emit())) {
        failed_ = true;
        break;
      }
    }
    state_ = state;
    if (failed_ || p == stop) {
      while (p < end && map_->FindByte(static_cast<uint8_t>(*p)).action ==
                            CharMap::kLetter) {
        ++p;
      }
    }
    AddSources(position, static_cast<uint32_t>(p - begin));
    return p;
  }

  // Counts `n` characters of the word, from code points from `position` on.
  void AddSources(uint32_t position, uint32_t n) {
    chars_ += n;
    failed_ |= chars_ > options_.max_chars;
    if constexpr (kOffsets) {
      last_source_ = Source(position + n - 1);
      if (failed_) {  // only the first one counts now
        if (word_.empty()) word_.push_back(Source(position));
        return;
      }
      for (uint32_t i = 0; i < n; ++i) word_.push_back(Source(position + i));
    }
  }

  uint32_t Source(uint32_t position) const {
    return sources_ == nullptr ? position : sources_[position];
  }

  const WordPiece& pieces_;
  const WordSinkOptions options_;
  const CharMap* map_ = nullptr;
  const uint32_t* sources_ = nullptr;
  std::vector<uint32_t>& word_;  // source of each character of the word
  TextTokens& out_;

  WordPiece::State state_ = WordPiece::Start();
  uint32_t chars_ = 0;
  uint32_t emitted_ = 0;  // characters that are in tokens already
  uint32_t last_source_ = 0;
  size_t word_begin_ = 0;  // in out_.ids
  bool failed_ = false;
  bool done_ = false;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_WORD_SINK_H_
