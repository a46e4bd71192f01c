// Unicode properties as Hugging Face `tokenizers` sees them, and UTF-8.
//
// Look-ups are binary searches: they serve to build a CharMap (char_map.h) and
// the rare paths, not the loop over a text. Everything here is a pure function.
//
//   bool punctuation = unicode::Properties(U'!') & unicode::kPunctuation;
#ifndef SVDSERVE_ENGINE_TEXT_UNICODE_H_
#define SVDSERVE_ENGINE_TEXT_UNICODE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace svdserve::unicode {

inline constexpr char32_t kMaxCodePoint = 0x10FFFF;

// Bits of Properties(), as in tools/unicode/generate.py.
enum Property : uint16_t {
  kControl = 1 << 0,      // removed by clean_text
  kWhitespace = 1 << 1,   // separates words
  kCjk = 1 << 2,          // a word of its own
  kPunctuation = 1 << 3,  // a word of its own
  kMark = 1 << 4,         // removed by strip_accents
  kWord = 1 << 5,         // \w of a regular expression
  kRegexSpace = 1 << 6,   // \s of a regular expression
  kLetter = 1 << 7,       // \p{L}
  kNumber = 1 << 8,       // \p{N}
};
uint16_t Properties(char32_t c);

// What a code point is to the rules of grapheme clusters (UAX 29), as in
// tools/unicode/generate.py. Regional indicators are kOther: see grapheme.h.
enum class GraphemeClass : uint8_t {
  kOther,
  kControl,
  kCr,
  kLf,
  kPrepend,
  kExtend,          // and no part of a conjunct
  kConjunctExtend,  // Extend that a conjunct may hold
  kLinker,          // Extend that links the consonants of a conjunct
  kZwj,
  kSpacingMark,
  kHangulL,
  kHangulV,
  kHangulT,
  kHangulLv,
  kHangulLvt,
  kPictograph,
  kConsonant,
};
GraphemeClass GraphemeClassOf(char32_t c);

// The order of canonical combining classes; 0 for starters.
uint8_t CombiningRank(char32_t c);

// The result of mapping one code point: at most four code points.
struct CodePoints {
  std::array<char32_t, 4> data{};
  size_t size = 0;
  const char32_t* begin() const { return data.data(); }
  const char32_t* end() const { return data.data() + size; }
};
// True if [first, last] share their properties and nothing of it is mapped,
// decomposed or combining. May be false without need, never true wrongly.
bool IsUniform(char32_t first, char32_t last);

// The full canonical decomposition, in canonical order.
CodePoints Decompose(char32_t c);
CodePoints Lowercase(char32_t c);

struct Decoded {
  char32_t c;
  uint32_t size;  // in bytes
};

// Decodes the first code point of text that is known to be well-formed.
inline Decoded DecodeValid(const char* p) {
  const auto b = [p](int i) {
    return static_cast<uint32_t>(static_cast<uint8_t>(p[i]));
  };
  if (b(0) < 0x80) return {b(0), 1};
  if (b(0) < 0xE0) return {(b(0) & 0x1F) << 6 | (b(1) & 0x3F), 2};
  if (b(0) < 0xF0) {
    return {(b(0) & 0x0F) << 12 | (b(1) & 0x3F) << 6 | (b(2) & 0x3F), 3};
  }
  return {(b(0) & 0x07) << 18 | (b(1) & 0x3F) << 12 | (b(2) & 0x3F) << 6 |
              (b(3) & 0x3F),
          4};
}

// The last code point of non-empty text that is known to be well-formed.
Decoded DecodeLastValid(std::string_view text);

// Writes `c` in UTF-8 and returns its size.
inline uint32_t EncodeUtf8(char32_t c, char* out) {
  const auto put = [out](int i, uint32_t v) { out[i] = static_cast<char>(v); };
  if (c < 0x80) {
    put(0, c);
    return 1;
  }
  if (c < 0x800) {
    put(0, 0xC0 | c >> 6);
    put(1, 0x80 | (c & 0x3F));
    return 2;
  }
  if (c < 0x10000) {
    put(0, 0xE0 | c >> 12);
    put(1, 0x80 | (c >> 6 & 0x3F));
    put(2, 0x80 | (c & 0x3F));
    return 3;
  }
  put(0, 0xF0 | c >> 18);
  put(1, 0x80 | (c >> 12 & 0x3F));
  put(2, 0x80 | (c >> 6 & 0x3F));
  put(3, 0x80 | (c & 0x3F));
  return 4;
}

size_t CountCodePoints(std::string_view valid_text);

// The length of the longest well-formed prefix.
size_t ValidPrefix(std::string_view text);

// Appends `text` with every maximal ill-formed subpart replaced by U+FFFD.
void AppendSanitized(std::string_view text, std::string* out);

}  // namespace svdserve::unicode

#endif  // SVDSERVE_ENGINE_TEXT_UNICODE_H_
