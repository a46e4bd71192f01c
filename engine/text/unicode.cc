#include "engine/text/unicode.h"

#include <algorithm>
#include <cstring>

#include "engine/text/unicode_tables.h"

namespace svdserve::unicode {
namespace {

uint16_t FindRange(const FlagRange* ranges, size_t size, char32_t c) {
  const FlagRange* end = ranges + size;
  const FlagRange* it = std::upper_bound(
      ranges, end, c,
      [](char32_t value, const FlagRange& r) { return value < r.first; });
  return it != ranges && c <= (it - 1)->last ? (it - 1)->value : 0;
}

bool FindMapping(const Mapping* table, size_t size, char32_t c,
                 CodePoints* out) {
  const Mapping* end = table + size;
  const Mapping* it = std::lower_bound(
      table, end, c,
      [](const Mapping& m, char32_t value) { return m.from < value; });
  if (it == end || it->from != c) return false;
  std::copy_n(kMappingPool + it->start, it->size, out->data.begin());
  out->size = it->size;
  return true;
}

// True if no entry of a table sorted by `first` lies in or reaches into it.
template <typename Range, typename First, typename Last>
bool IsOutside(const Range* ranges, size_t size, char32_t first, char32_t last,
               First first_of, Last last_of) {
  const Range* end = ranges + size;
  const Range* it = std::upper_bound(
      ranges, end, last,
      [&](char32_t v, const Range& r) { return v < first_of(r); });
  return it == ranges || last_of(*(it - 1)) < first;
}

template <typename Range>
bool IsOutsideRanges(const Range* ranges, size_t size, char32_t first,
                     char32_t last) {
  return IsOutside(
      ranges, size, first, last, [](const Range& r) { return r.first; },
      [](const Range& r) { return r.last; });
}

// Hangul syllables decompose by arithmetic (Unicode, section 3.12).
CodePoints DecomposeHangul(char32_t c) {
  constexpr char32_t kFirst = 0xAC00, kL = 0x1100, kV = 0x1161, kT = 0x11A7;
  constexpr char32_t kTCount = 28, kVCount = 21;
  const char32_t index = c - kFirst;
  CodePoints out;
  out.data = {kL + index / (kVCount * kTCount),
              kV + index % (kVCount * kTCount) / kTCount, kT + index % kTCount};
  out.size = index % kTCount == 0 ? 2 : 3;
  return out;
}

// The size of the well-formed sequence at `p`, or 0. Unless well-formed,
// `*ill_formed` is the size of the maximal ill-formed subpart.
size_t SequenceSize(const uint8_t* p, const uint8_t* end, size_t* ill_formed) {
  *ill_formed = 1;
  if (*p < 0x80) return 1;
  size_t size;
  uint8_t low = 0x80, high = 0xBF;  // range of the second byte
  if (*p >= 0xC2 && *p <= 0xDF) {
    size = 2;
  } else if (*p >= 0xE0 && *p <= 0xEF) {
    size = 3;
    if (*p == 0xE0) low = 0xA0;
    if (*p == 0xED) high = 0x9F;
  } else if (*p >= 0xF0 && *p <= 0xF4) {
    size = 4;
    if (*p == 0xF0) low = 0x90;
    if (*p == 0xF4) high = 0x8F;
  } else {
    return 0;
  }
  for (size_t i = 1; i < size; ++i) {
    *ill_formed = i;
    if (p + i == end || p[i] < low || p[i] > high) return 0;
    low = 0x80;
    high = 0xBF;
  }
  return size;
}

}  // namespace

uint16_t Properties(char32_t c) {
  return FindRange(kFlagRanges, kFlagRangesSize, c);
}

uint8_t CombiningRank(char32_t c) {
  return static_cast<uint8_t>(
      FindRange(kCombiningRanges, kCombiningRangesSize, c));
}

GraphemeClass GraphemeClassOf(char32_t c) {
  if (c >= 0xAC00 && c <= 0xD7A3) {
    return (c - 0xAC00) % 28 == 0 ? GraphemeClass::kHangulLv
                                  : GraphemeClass::kHangulLvt;
  }
  return static_cast<GraphemeClass>(
      FindRange(kGraphemeRanges, kGraphemeRangesSize, c));
}

bool IsUniform(char32_t first, char32_t last) {
  constexpr char32_t kFirstHangul = 0xAC00, kLastHangul = 0xD7A3;
  if (first <= kLastHangul && last >= kFirstHangul) return false;
  const FlagRange* end = kFlagRanges + kFlagRangesSize;
  const FlagRange* it = std::lower_bound(
      kFlagRanges, end, first,
      [](const FlagRange& r, char32_t value) { return r.last < value; });
  const bool same_flags =
      it == end || it->first > last || (it->first <= first && it->last >= last);
  const auto from = [](const Mapping& m) { return m.from; };
  return same_flags &&
         IsOutsideRanges(kCombiningRanges, kCombiningRangesSize, first, last) &&
         IsOutsideRanges(kLowercaseRanges, kLowercaseRangesSize, first, last) &&
         IsOutside(kLongLowercase, kLongLowercaseSize, first, last, from,
                   from) &&
         IsOutside(kDecompositions, kDecompositionsSize, first, last, from,
                   from);
}

CodePoints Decompose(char32_t c) {
  if (c >= 0xAC00 && c <= 0xD7A3) return DecomposeHangul(c);
  CodePoints out;
  if (!FindMapping(kDecompositions, kDecompositionsSize, c, &out)) {
    out.data[0] = c;
    out.size = 1;
  }
  return out;
}

CodePoints Lowercase(char32_t c) {
  CodePoints out;
  if (FindMapping(kLongLowercase, kLongLowercaseSize, c, &out)) return out;
  out.data[0] = c;
  out.size = 1;
  const LowercaseRange* end = kLowercaseRanges + kLowercaseRangesSize;
  const LowercaseRange* it = std::upper_bound(
      kLowercaseRanges, end, c,
      [](char32_t value, const LowercaseRange& r) { return value < r.first; });
  if (it == kLowercaseRanges) return out;
  --it;
  if (c <= it->last && (c - it->first) % it->step == 0) {
    out.data[0] = c + it->delta;
  }
  return out;
}

Decoded DecodeLastValid(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
  return DecodeValid(text.data() + at);
}

size_t CountCodePoints(std::string_view valid_text) {
  return std::count_if(valid_text.begin(), valid_text.end(), [](char b) {
    return (static_cast<uint8_t>(b) & 0xC0) != 0x80;
  });
}

size_t ValidPrefix(std::string_view text) {
  const auto* begin = reinterpret_cast<const uint8_t*>(text.data());
  const uint8_t* end = begin + text.size();
  const uint8_t* p = begin;
  while (p < end) {
    uint64_t word;
    if (end - p >= 8 && (std::memcpy(&word, p, 8),
                         (word & UINT64_C(0x8080808080808080)) == 0)) {
      p += 8;
      continue;
    }
    size_t ill_formed;
    const size_t size = SequenceSize(p, end, &ill_formed);
    if (size == 0) break;
    p += size;
  }
  return p - begin;
}

void AppendSanitized(std::string_view text, std::string* out) {
  while (true) {
    const size_t valid = ValidPrefix(text);
    out->append(text.substr(0, valid));
    text.remove_prefix(valid);
    if (text.empty()) return;
    const auto* p = reinterpret_cast<const uint8_t*>(text.data());
    size_t ill_formed;
    SequenceSize(p, p + text.size(), &ill_formed);
    out->append("\uFFFD");
    text.remove_prefix(ill_formed);
  }
}

}  // namespace svdserve::unicode
