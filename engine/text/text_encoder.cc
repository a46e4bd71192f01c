#include "engine/text/text_encoder.h"

#include <cstdint>
#include <vector>

#include "engine/text/text_walker.h"
#include "engine/text/unicode.h"

namespace svdserve {
namespace {

// A TextWalker's sink that writes the text and where it came from.
class NormalizedSink {
 public:
  NormalizedSink(const CharMap& map, std::string* text,
                 std::vector<uint32_t>* sources)
      : map_(map), text_(*text), sources_(*sources) {
    text_.clear();
    sources_.clear();
  }

  const char* Ascii(const char* p, const char* end, uint32_t position) {
    for (; p < end; ++p, ++position) {
      const CharMap::Ascii a = map_.FindByte(static_cast<uint8_t>(*p));
      if (a.action == CharMap::kNotAscii) break;
      if (a.action == CharMap::kRemove) continue;
      text_.push_back(static_cast<char>(a.byte));
      sources_.push_back(position);
    }
    return p;
  }
  void Letter(const char* bytes, uint32_t size, uint32_t position) {
    text_.append(bytes, size);
    sources_.push_back(position);
  }
  void Space(const char* bytes, uint32_t size, uint32_t position) {
    Letter(bytes, size, position);
  }
  void Isolated(const char* bytes, uint32_t size, uint32_t position) {
    Letter(bytes, size, position);
  }
  bool done() const { return false; }

 private:
  const CharMap& map_;
  std::string& text_;
  std::vector<uint32_t>& sources_;
};

template <bool kOffsets>
class TextEncoder {
 public:
  TextEncoder(const TextRules& rules, const WordSinkOptions& options,
              TextScratch* scratch, TextTokens* out)
      : rules_(rules),
        scratch_(*scratch),
        sink_(rules.pieces, options, &scratch->word, out) {}

  void Encode(std::string_view text) {
    uint32_t position = 0;
    Split(
        rules_.raw_added, text,
        [&](std::string_view piece) {
          position = rules_.normalized_added.empty()
                         ? EncodeRaw(piece, position)
                         : EncodeNormalized(piece, position);
        },
        [&](std::string_view piece, int32_t id) {
          const auto size =
              static_cast<uint32_t>(unicode::CountCodePoints(piece));
          sink_.Added(id, {position, position + size});
          position += size;
        });
  }

 private:
  template <typename OnText, typename OnToken>
  void Split(const AddedTokens& added, std::string_view text, OnText on_text,
             OnToken on_token) {
    added.Split(
        text, [this] { return sink_.done(); }, on_text, on_token);
  }

  uint32_t EncodeRaw(std::string_view text, uint32_t position) {
    sink_.set_map(&rules_.map);
    TextWalker<WordSink<kOffsets>> walker(rules_.map, &scratch_.run, &sink_);
    position = walker.Walk(text, position);
    sink_.EndWord();
    return position;
  }

  uint32_t EncodeNormalized(std::string_view text, uint32_t position) {
    NormalizedText& normalized = scratch_.normalized;
    NormalizedSink writer(rules_.map, &normalized.text, &normalized.sources);
    TextWalker<NormalizedSink> walker(rules_.map, &scratch_.run, &writer);
    const uint32_t end = walker.Walk(text, position);
    const uint32_t* sources = normalized.sources.data();
    uint32_t at = 0;  // in code points of the normalized text
    Split(
        rules_.normalized_added, normalized.text,
        [&](std::string_view piece) { at = EncodePlain(piece, at); },
        [&](std::string_view piece, int32_t id) {
          const auto size =
              static_cast<uint32_t>(unicode::CountCodePoints(piece));
          sink_.Added(id, {sources[at], sources[at + size - 1] + 1});
          at += size;
        });
    return end;
  }

  uint32_t EncodePlain(std::string_view text, uint32_t at) {
    sink_.set_map(&rules_.plain_map);
    sink_.set_sources(scratch_.normalized.sources.data());
    TextWalker<PlainSink> walker(rules_.plain_map, &scratch_.run, &sink_);
    at = walker.Walk(text, at);
    sink_.EndWord();
    return at;
  }

  using PlainSink = WordSink<kOffsets>;

  const TextRules& rules_;
  TextScratch& scratch_;
  WordSink<kOffsets> sink_;
};

}  // namespace

void EncodeText(const TextRules& rules, const WordSinkOptions& options,
                bool with_offsets, std::string_view text, TextScratch* scratch,
                TextTokens* out) {
  if (with_offsets) {
    TextEncoder<true>(rules, options, scratch, out).Encode(text);
  } else {
    TextEncoder<false>(rules, options, scratch, out).Encode(text);
  }
}

std::string NormalizeText(const CharMap& map, std::string_view text) {
  std::string out;
  std::vector<uint32_t> sources;
  CombiningRun run;
  NormalizedSink sink(map, &out, &sources);
  TextWalker<NormalizedSink>(map, &run, &sink).Walk(text, 0);
  return out;
}

}  // namespace svdserve
