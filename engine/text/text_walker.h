// Walks a text and reports its normalized characters to a sink.
//
// The sink decides what to do with them: build words (word_sink.h) or write
// the normalized text. It has
//   const char* Ascii(const char* p, const char* end, uint32_t position);
//     takes one or more ASCII bytes and returns where it stopped: at `end`, at
//     a byte that is not ASCII, or anywhere once done
//   void Letter(const char* bytes, uint32_t size, uint32_t position);
//   void Space(...); void Isolated(...);  // likewise
//   bool done();  // nothing more is wanted
// where position is the index, in code points, that the character comes from.
#ifndef SVDSERVE_ENGINE_TEXT_TEXT_WALKER_H_
#define SVDSERVE_ENGINE_TEXT_TEXT_WALKER_H_

#include <cstdint>
#include <string_view>

#include "engine/text/char_map.h"
#include "engine/text/combining_run.h"
#include "engine/text/unicode.h"

namespace svdserve {

template <typename Sink>
class TextWalker {
 public:
  TextWalker(const CharMap& map, CombiningRun* run, Sink* sink)
      : map_(map), run_(run), sink_(*sink) {}

  // `text` is well-formed UTF-8 whose first code point has index `position`.
  // Returns the index after the last code point.
  uint32_t Walk(std::string_view text, uint32_t position) {
    p_ = text.data();
    end_ = p_ + text.size();
    position_ = position;
    while (p_ < end_ && !sink_.done()) {
      if (static_cast<uint8_t>(*p_) < 0x80) {
        const char* next = sink_.Ascii(p_, end_, position_);
        position_ += static_cast<uint32_t>(next - p_);
        p_ = next;
      } else {
        WalkOne();
      }
    }
    return position_;
  }

 private:
  void WalkOne() {
    const unicode::Decoded d = unicode::DecodeValid(p_);
    const CharMap::Entry entry = map_.Find(d.c);
    switch (entry.action()) {
      case CharMap::kLetter:
        sink_.Letter(p_, d.size, position_);
        break;
      case CharMap::kSpace:
        sink_.Space(p_, d.size, position_);
        break;
      case CharMap::kIsolated:
        sink_.Isolated(p_, d.size, position_);
        break;
      case CharMap::kSpaced:
        sink_.Space(" ", 1, position_);
        sink_.Letter(p_, d.size, position_);
        sink_.Space(" ", 1, position_);
        break;
      case CharMap::kMapped:
        Report(map_.symbols(entry.start()), entry.size(), position_);
        break;
      case CharMap::kRun:
        WalkRun(entry, d);
        return;
      case CharMap::kRemove:
      case CharMap::kDrop:
        break;
    }
    p_ += d.size;
    ++position_;
  }

  void Report(const CharMap::Symbol* symbols, uint32_t size,
              uint32_t position) {
    for (const CharMap::Symbol* s = symbols; s < symbols + size; ++s) {
      char bytes[4];
      const uint32_t n = unicode::EncodeUtf8(s->c, bytes);
      if (s->action == CharMap::kLetter) {
        sink_.Letter(bytes, n, position);
      } else if (s->action == CharMap::kSpace) {
        sink_.Space(bytes, n, position);
      } else {
        sink_.Isolated(bytes, n, position);
      }
    }
  }

  // A run: the code point at p_ and all that combine with it. Most runs leave
  // nothing behind; only the others are put in order.
  void WalkRun(CharMap::Entry entry, unicode::Decoded d) {
    const char* p = p_;
    uint32_t position = position_;
    bool keeps = false;
    do {
      keeps |= entry.action() == CharMap::kRun && entry.keeps();
      p += d.size;
      ++position;
      if (p == end_) break;
      d = unicode::DecodeValid(p);
      entry = map_.Find(d.c);
    } while (Continues(entry));
    if (keeps) ReportRun(p);
    p_ = p;
    position_ = position;
  }

  static bool Continues(CharMap::Entry entry) {
    return entry.action() == CharMap::kRemove ||
           (entry.action() == CharMap::kRun && entry.starts_combining());
  }

  void ReportRun(const char* end) {
    run_->Clear();
    uint32_t position = position_;
    for (const char* p = p_; p < end; ++position) {
      const unicode::Decoded d = unicode::DecodeValid(p);
      if (map_.Find(d.c).action() == CharMap::kRun) run_->Add(d.c, position);
      p += d.size;
    }
    for (const CombiningRun::Item& item : run_->Order()) {
      if (item.mark) continue;
      CharMap::Symbol symbols[2];
      const uint32_t size = map_.Finish(item.c, symbols);
      Report(symbols, size, item.source);
    }
  }

  const CharMap& map_;
  CombiningRun* const run_;
  Sink& sink_;
  const char* p_ = nullptr;
  const char* end_ = nullptr;
  uint32_t position_ = 0;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_TEXT_WALKER_H_
