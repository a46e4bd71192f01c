// SentencePiece's compiled normalizer ("precompiled_charsmap"), as Hugging Face
// `tokenizers` applies it.
//
// The map is a darts-clone double array from strings to replacements. A text is
// taken by grapheme clusters: a cluster of less than six bytes is looked up as
// a whole, and the shortest key that it begins with replaces all of it; any
// other is looked up by code points. What single code points become, and their
// grapheme classes, are looked up once, at load.
//
// Immutable after Build and thread-safe.
//
//   absl::StatusOr<Charsmap> map = Charsmap::Build(blob);
//   map->Normalize<false>("Ⅳ", 0, nullptr, &out);  // "IV"
#ifndef SVDSERVE_ENGINE_TEXT_CHARSMAP_H_
#define SVDSERVE_ENGINE_TEXT_CHARSMAP_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/code_point_table.h"
#include "engine/text/text_scratch.h"
#include "engine/text/unicode.h"

namespace svdserve {

class Charsmap {
 public:
  Charsmap() = default;
  // `blob`: the size of the double array in bytes, the array, and the
  // replacements, each ended by a zero byte.
  static absl::StatusOr<Charsmap> Build(std::string_view blob);

  // Replaces the contents of *out. With kSources also the sources: those of
  // `sources`, one for each code point of `text`, or, without, counted from
  // `position`.
  template <bool kSources>
  void Normalize(std::string_view text, uint32_t position,
                 const uint32_t* sources, NormalizedText* out) const;

 private:
  // Of a code point: its replacement, if any, and its grapheme class.
  class Entry {
   public:
    Entry() = default;
    Entry(uint32_t replacement, unicode::GraphemeClass of)
        : bits_(replacement << 5 | static_cast<uint32_t>(of)) {}
    bool operator==(const Entry& other) const { return bits_ == other.bits_; }
    unicode::GraphemeClass of() const {
      return static_cast<unicode::GraphemeClass>(bits_ & 31);
    }
    uint32_t replacement() const { return bits_ >> 5; }  // 0: none

   private:
    uint32_t bits_ = 0;
  };
  // A character, or a cluster of several.
  struct Unit {
    const char* end;
    uint32_t chars;
    Entry entry;  // of the first character
  };

  absl::Status Parse(std::string_view blob);
  // Where the replacement of the shortest key that `text` begins with starts,
  // plus one; 0 if there is none.
  uint32_t Find(std::string_view text) const;
  std::string_view Replacement(uint32_t start) const;

  // The end of the bytes from `p` on that are units of their own and stay.
  const char* PlainEnd(const char* p, const char* end) const;
  Unit NextUnit(const char* p, const char* end) const;

  std::vector<uint32_t> array_;
  std::string replacements_;
  std::array<bool, 256> plain_{};  // ASCII that nothing happens to
  CodePointTable<Entry> entries_;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_CHARSMAP_H_
