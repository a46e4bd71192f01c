// GPT-2's split of a text into the pieces that byte-level BPE works on:
//
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//
// by hand, over a table of the regular expression's own classes. The pieces
// cover the text. Immutable after construction.
//
//   const ByteLevelSplit& split = ByteLevelSplit::Get();
//   while (p < end) { const char* next = split.Next(p, end); ...; p = next; }
#ifndef SVDSERVE_ENGINE_TEXT_BYTE_LEVEL_SPLIT_H_
#define SVDSERVE_ENGINE_TEXT_BYTE_LEVEL_SPLIT_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "engine/text/code_point_table.h"
#include "engine/text/unicode.h"

namespace svdserve {

class ByteLevelSplit {
 public:
  enum Class : uint8_t { kLetter, kNumber, kSpace, kOther };

  static const ByteLevelSplit& Get() {
    static const ByteLevelSplit* split = new ByteLevelSplit();
    return *split;
  }

  // The end of the piece at `p`, in well-formed UTF-8 that ends at `end`.
  const char* Next(const char* p, const char* end) const {
    if (*p == '\'') {
      if (const size_t size = ContractionSize(p, end)) return p + size;
    }
    Char first = At(p);
    const char* next = p + first.size;
    if (*p == ' ' && next < end) {
      const Char second = At(next);
      if (second.of != kSpace) {
        first = second;
        next += second.size;
      }
    }
    return first.of == kSpace ? SpaceEnd(p, next, end)
                              : RunEnd(next, end, first.of);
  }

 private:
  struct Char {
    Class of;
    uint32_t size;  // in bytes
  };
  static constexpr Class kNotAscii = static_cast<Class>(0xFF);

  ByteLevelSplit();

  Char At(const char* p) const {
    const Class ascii = ascii_[static_cast<uint8_t>(*p)];
    if (ascii != kNotAscii) return {ascii, 1};
    const unicode::Decoded d = unicode::DecodeValid(p);
    return {static_cast<Class>(classes_[d.c]), d.size};
  }

  // The size of 's and the like, or 0.
  static size_t ContractionSize(const char* p, const char* end) {
    const auto at = [&](size_t i) { return p + i < end ? p[i] : '\0'; };
    switch (at(1)) {
      case 's':
      case 't':
      case 'm':
      case 'd':
        return 2;
      case 'r':
      case 'v':
        return at(2) == 'e' ? 3 : 0;
      case 'l':
        return at(2) == 'l' ? 3 : 0;
      default:
        return 0;
    }
  }

  const char* RunEnd(const char* p, const char* end, Class of) const {
    while (p < end) {
      const Char c = At(p);
      if (c.of != of) break;
      p += c.size;
    }
    return p;
  }

  // Whitespace from `p` on, whose first character ends at `next`. The last
  // one before something else is left to it, unless it is the only one.
  const char* SpaceEnd(const char* p, const char* next, const char* end) const {
    const char* last = p;
    while (next < end) {
      const Char c = At(next);
      if (c.of != kSpace) return last == p ? next : last;
      last = next;
      next += c.size;
    }
    return next;
  }

  std::array<Class, 256> ascii_;
  CodePointTable<uint8_t> classes_;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_BYTE_LEVEL_SPLIT_H_
