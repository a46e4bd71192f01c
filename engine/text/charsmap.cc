#include "engine/text/charsmap.h"

#include <algorithm>
#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/text/grapheme.h"

namespace svdserve {
namespace {

constexpr size_t kMaxReplacements = size_t{1} << 27;  // Entry has 27 bits
// Clusters of as many bytes are looked up as a whole.
constexpr ptrdiff_t kMaxCluster = 5;

// A unit of darts-clone's double array.
struct DartsUnit {
  uint32_t bits;
  bool has_leaf() const { return bits >> 8 & 1; }
  uint32_t value() const { return bits & 0x7FFFFFFF; }
  uint32_t label() const { return bits & 0x800000FF; }
  uint32_t offset() const { return bits >> 10 << ((bits & 1 << 9) >> 6); }
};

uint32_t ReadLittleEndian(const char* p) {
  uint32_t out = 0;
  for (int i = 3; i >= 0; --i) out = out << 8 | static_cast<uint8_t>(p[i]);
  return out;
}

// Writes a text and what it stands for. Hugging Face describes a replacement
// as changes: each character either takes the next one's place (0), and maybe
// that of some after it, which vanish (-n), or is inserted (1). Its changes
// for a removal go to the character before, whatever that one did, and are
// lost at the beginning, so that sources may be out of step with the text.
template <bool kSources>
class ChangeWriter {
 public:
  explicit ChangeWriter(NormalizedText* out) : out_(*out) { out_.Clear(); }

  void Keep(const char* p, const char* end) {
    out_.text.append(p, end);
    if constexpr (kSources) {
      const std::string_view kept(p, end - p);
      out_.sources.resize(out_.sources.size() + unicode::CountCodePoints(kept),
                          0);
    }
  }

  void Replace(uint32_t old_chars, std::string_view replacement) {
    out_.text.append(replacement);
    if constexpr (kSources) {
      const auto chars =
          static_cast<uint32_t>(unicode::CountCodePoints(replacement));
      out_.sources.resize(out_.sources.size() + chars, 0);
      if (chars > old_chars) {
        std::fill_n(out_.sources.rbegin(), chars - old_chars, 1);
      } else if (!out_.sources.empty()) {
        out_.sources.back() -= old_chars - chars;  // modulo 2^32
      }
    }
  }

  // Turns the changes into sources.
  void Finish(uint32_t position, const uint32_t* sources) {
    if constexpr (kSources) {
      uint32_t at = 0;
      for (uint32_t& source : out_.sources) {
        const auto change = static_cast<int32_t>(source);
        const uint32_t from = change > 0 ? at - 1 : at;
        source = sources == nullptr ? position + from : sources[from];
        if (change <= 0) at += 1 + static_cast<uint32_t>(-change);
      }
    }
  }

 private:
  NormalizedText& out_;
};

}  // namespace

absl::Status Charsmap::Parse(std::string_view blob) {
  if (blob.size() < 8) {
    return absl::InvalidArgumentError(absl::StrCat(
        "precompiled_charsmap has ", blob.size(), " bytes, not 8 or more"));
  }
  const size_t array_bytes = ReadLittleEndian(blob.data());
  blob.remove_prefix(4);
  if (array_bytes < 4 || array_bytes % 4 != 0 || array_bytes > blob.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("precompiled_charsmap announces a trie of ", array_bytes,
                     " bytes, but ", blob.size(), " follow"));
  }
  array_.reserve(array_bytes / 4);
  for (size_t at = 0; at < array_bytes; at += 4) {
    array_.push_back(ReadLittleEndian(blob.data() + at));
  }
  replacements_ = blob.substr(array_bytes);
  if (replacements_.size() >= kMaxReplacements ||
      unicode::ValidPrefix(replacements_) != replacements_.size()) {
    return absl::InvalidArgumentError(
        "precompiled_charsmap holds replacements that are not UTF-8, or more "
        "than 128 MiB of them");
  }
  return absl::OkStatus();
}

absl::StatusOr<Charsmap> Charsmap::Build(std::string_view blob) {
  Charsmap out;
  absl::Status status = out.Parse(blob);
  if (!status.ok()) return status;
  out.entries_ = CodePointTable<Entry>([&](char32_t c) {
    if (c >= 0xD800 && c <= 0xDFFF) return Entry();
    char bytes[4];
    const uint32_t size = unicode::EncodeUtf8(c, bytes);
    return Entry(out.Find({bytes, size}), unicode::GraphemeClassOf(c));
  });
  for (uint8_t c = 0; c < 0x80; ++c) {
    const Entry entry = out.entries_[c];
    out.plain_[c] = entry.replacement() == 0 &&
                    entry.of() == unicode::GraphemeClass::kOther;
  }
  return out;
}

uint32_t Charsmap::Find(std::string_view text) const {
  DartsUnit unit{array_[0]};
  size_t node = unit.offset();
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    node ^= byte;
    if (byte == 0 || node >= array_.size()) return 0;
    unit = {array_[node]};
    if (unit.label() != byte) return 0;
    node ^= unit.offset();
    if (!unit.has_leaf()) continue;
    if (node >= array_.size()) return 0;
    // Where no replacement can start there is none.
    const uint32_t start = DartsUnit{array_[node]}.value();
    const bool valid =
        start < replacements_.size() &&
        (static_cast<uint8_t>(replacements_[start]) & 0xC0) != 0x80;
    return valid ? start + 1 : 0;
  }
  return 0;
}

std::string_view Charsmap::Replacement(uint32_t start) const {
  const std::string_view rest =
      std::string_view(replacements_).substr(start - 1);
  return rest.substr(0, rest.find('\0'));
}

// The last one before a character that is not ASCII may be part of a cluster.
const char* Charsmap::PlainEnd(const char* p, const char* end) const {
  const char* const begin = p;
  while (p < end && plain_[static_cast<uint8_t>(*p)]) ++p;
  const bool may_combine =
      p > begin && p < end && static_cast<uint8_t>(*p) >= 0x80;
  return may_combine ? p - 1 : p;
}

Charsmap::Unit Charsmap::NextUnit(const char* p, const char* end) const {
  unicode::Decoded d = unicode::DecodeValid(p);
  Unit unit{p + d.size, 1, entries_[d.c]};
  GraphemeBreaker breaker(unit.entry.of());
  while (unit.end < end) {
    d = unicode::DecodeValid(unit.end);
    if (breaker.Breaks(entries_[d.c].of())) break;
    unit.end += d.size;
    ++unit.chars;
  }
  return unit;
}

template <bool kSources>
void Charsmap::Normalize(std::string_view text, uint32_t position,
                         const uint32_t* sources, NormalizedText* out) const {
  ChangeWriter<kSources> writer(out);
  const auto by_entry = [&](const char* p, const char* end, Entry entry) {
    if (entry.replacement() == 0) {
      writer.Keep(p, end);
    } else {
      writer.Replace(1, Replacement(entry.replacement()));
    }
  };
  const char* p = text.data();
  const char* const end = p + text.size();
  while (p < end) {
    const char* plain = PlainEnd(p, end);
    if (plain > p) writer.Keep(p, plain);
    p = plain;
    if (p == end) break;
    const Unit unit = NextUnit(p, end);
    const uint32_t whole = unit.chars > 1 && unit.end - p <= kMaxCluster
                               ? Find({p, static_cast<size_t>(unit.end - p)})
                               : 0;
    if (whole != 0) {
      writer.Replace(unit.chars, Replacement(whole));
      p = unit.end;
    }
    while (p < unit.end) {
      const unicode::Decoded d = unicode::DecodeValid(p);
      by_entry(p, p + d.size, entries_[d.c]);
      p += d.size;
    }
  }
  writer.Finish(position, sources);
}

template void Charsmap::Normalize<true>(std::string_view, uint32_t,
                                        const uint32_t*, NormalizedText*) const;
template void Charsmap::Normalize<false>(std::string_view, uint32_t,
                                         const uint32_t*,
                                         NormalizedText*) const;

}  // namespace svdserve
