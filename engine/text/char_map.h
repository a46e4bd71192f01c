// What BERT's normalizer and pre-tokenizer together do to each code point.
//
// Cleaning, spacing of CJK, accent stripping, lower case and the split into
// words are composed, at load, into one two-stage table: one look-up per code
// point of a text says what becomes of it. Only runs of combining characters
// need their context (combining_run.h).
//
// Immutable after construction.
//
//   CharMap map(NormalizerOptions{});
//   CharMap::Entry e = map.Find(U'É');  // kMapped to one symbol, the letter e
#ifndef SVDSERVE_ENGINE_TEXT_CHAR_MAP_H_
#define SVDSERVE_ENGINE_TEXT_CHAR_MAP_H_

#include <array>
#include <cstdint>
#include <vector>

#include "engine/text/unicode.h"

namespace svdserve {

struct NormalizerOptions {
  bool clean_text = true;
  bool handle_chinese_chars = true;
  bool strip_accents = true;
  bool lowercase = true;
};

class CharMap {
 public:
  enum Action : uint32_t {
    kLetter,    // unchanged, part of a word
    kSpace,     // a word ends; the normalized character is a space
    kIsolated,  // unchanged, a word of its own
    kSpaced,    // as kIsolated, and with a space at both sides
    kRemove,    // as if it had never been there
    kDrop,      // removed, but ends a run of combining characters
    kMapped,    // becomes the symbols [start, start + size)
    kRun,       // combining: treat the whole run
  };

  class Entry {
   public:
    Entry() = default;
    explicit Entry(Action action) : bits_(action) {}
    static Entry Mapped(uint32_t start, uint32_t size) {
      return Entry(kMapped | size << 3 | start << 8);
    }
    static Entry Run(bool starts_combining, bool keeps) {
      return Entry(kRun | uint32_t{starts_combining} << 3 |
                   uint32_t{keeps} << 4);
    }
    Action action() const { return static_cast<Action>(bits_ & 7); }
    uint32_t size() const { return bits_ >> 3 & 31; }
    uint32_t start() const { return bits_ >> 8; }
    // kRun: its first code point combines with what is before it.
    bool starts_combining() const { return bits_ >> 3 & 1; }
    // kRun: something of it is left after accents are stripped.
    bool keeps() const { return bits_ >> 4 & 1; }

   private:
    explicit Entry(uint32_t bits) : bits_(bits) {}
    uint32_t bits_ = kLetter;
  };

  // A normalized code point; action is kLetter, kSpace or kIsolated.
  struct Symbol {
    char32_t c : 21;
    Action action : 3;
  };

  // ASCII in one look-up: action is kLetter, kSpace, kIsolated or kRemove.
  struct Ascii {
    uint8_t action;
    uint8_t byte;  // the normalized character
  };
  static constexpr uint8_t kNotAscii = 0xFF;  // action of bytes from 0x80

  explicit CharMap(const NormalizerOptions& options);

  Entry Find(char32_t c) const {
    return entries_[blocks_[c >> kBlockBits] + (c & (kBlockSize - 1))];
  }
  Ascii FindByte(uint8_t b) const { return ascii_[b]; }
  const Symbol* symbols(uint32_t start) const { return &symbols_[start]; }
  // The symbol of a code point that has passed all stages but the last two,
  // lower case and the split; at most two symbols. For combining runs.
  uint32_t Finish(char32_t c, Symbol* out) const;

 private:
  static constexpr int kBlockBits = 7;
  static constexpr uint32_t kBlockSize = 1 << kBlockBits;

  Entry Compile(char32_t c);
  bool Strip(char32_t c, std::vector<char32_t>* out, Entry* run) const;
  Entry Intern(char32_t c, const std::vector<char32_t>& normalized);
  void CompileBlocks();
  void CompileAscii();

  const NormalizerOptions options_;
  std::array<uint32_t, (unicode::kMaxCodePoint + 1) / kBlockSize> blocks_{};
  std::vector<Entry> entries_;
  std::vector<Symbol> symbols_;
  std::array<Ascii, 256> ascii_{};
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_CHAR_MAP_H_
