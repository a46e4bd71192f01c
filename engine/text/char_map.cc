#include "engine/text/char_map.h"

#include <algorithm>
#include <cstring>

namespace svdserve {
namespace {

using unicode::CodePoints;
using unicode::Properties;

CharMap::Action SplitAction(char32_t c) {
  const uint16_t properties = Properties(c);
  if (properties & unicode::kWhitespace) return CharMap::kSpace;
  if (properties & unicode::kPunctuation) return CharMap::kIsolated;
  return CharMap::kLetter;
}

}  // namespace

CharMap::CharMap(const NormalizerOptions& options) : options_(options) {
  CompileBlocks();
  CompileAscii();
}

// Most of the code space is alike: equal blocks are stored once.
void CharMap::CompileBlocks() {
  std::vector<Entry> block(kBlockSize);
  uint32_t last = 0;
  for (uint32_t b = 0; b < blocks_.size(); ++b) {
    const char32_t first = b * kBlockSize;
    block.assign(kBlockSize, Compile(first));
    if (block[0].action() == kMapped ||
        !unicode::IsUniform(first, first + kBlockSize - 1)) {
      for (uint32_t i = 1; i < kBlockSize; ++i) block[i] = Compile(first + i);
    }
    const bool repeats = b > 0 && std::memcmp(&entries_[last], block.data(),
                                              kBlockSize * sizeof(Entry)) == 0;
    if (!repeats) {
      last = static_cast<uint32_t>(entries_.size());
      entries_.insert(entries_.end(), block.begin(), block.end());
    }
    blocks_[b] = last;
  }
}

void CharMap::CompileAscii() {
  ascii_.fill({kNotAscii, 0});
  for (uint8_t c = 0; c < 0x80; ++c) {
    const Entry entry = Find(c);
    if (entry.action() == kMapped) {  // by lower case, or to a plain space
      const Symbol& symbol = symbols_[entry.start()];
      ascii_[c] = {static_cast<uint8_t>(symbol.action),
                   static_cast<uint8_t>(symbol.c)};
    } else {
      ascii_[c] = {static_cast<uint8_t>(entry.action()), c};
    }
  }
}

// Decomposes and drops marks. Returns false, with *run set, if the outcome
// depends on the neighbours.
bool CharMap::Strip(char32_t c, std::vector<char32_t>* out, Entry* run) const {
  const CodePoints parts = unicode::Decompose(c);
  const bool starts_combining = unicode::CombiningRank(parts.data[0]) != 0;
  bool keeps_combining = false;
  for (const char32_t d : parts) {
    if (Properties(d) & unicode::kMark) continue;
    out->push_back(d);
    keeps_combining |= unicode::CombiningRank(d) != 0;
  }
  if (!starts_combining && !keeps_combining) return true;
  *run = Entry::Run(starts_combining, !out->empty());
  return false;
}

CharMap::Entry CharMap::Compile(char32_t c) {
  const uint16_t properties = Properties(c);
  if (options_.clean_text) {
    if (properties & unicode::kControl) return Entry(kRemove);
    if (properties & unicode::kWhitespace) {
      return c == U' ' ? Entry(kSpace) : Intern(c, {U' '});
    }
  }
  std::vector<char32_t> normalized;
  if (options_.strip_accents) {
    Entry run;
    if (!Strip(c, &normalized, &run)) return run;
    if (normalized.empty()) return Entry(kDrop);
  } else {
    normalized = {c};
  }
  if (options_.handle_chinese_chars && (properties & unicode::kCjk)) {
    if (normalized.size() == 1 && normalized[0] == c) return Entry(kSpaced);
    normalized.insert(normalized.begin(), U' ');
    normalized.push_back(U' ');
  }
  return Intern(c, normalized);
}

CharMap::Entry CharMap::Intern(char32_t c,
                               const std::vector<char32_t>& normalized) {
  const size_t start = symbols_.size();
  for (const char32_t n : normalized) {
    Symbol finished[2];
    const uint32_t size = Finish(n, finished);
    symbols_.insert(symbols_.end(), finished, finished + size);
  }
  const size_t size = symbols_.size() - start;
  if (size == 1 && symbols_[start].c == c) {
    const Action action = symbols_[start].action;
    symbols_.resize(start);
    return Entry(action);
  }
  return Entry::Mapped(static_cast<uint32_t>(start),
                       static_cast<uint32_t>(size));
}

uint32_t CharMap::Finish(char32_t c, Symbol* out) const {
  if (!options_.lowercase) {
    out[0] = {c, SplitAction(c)};
    return 1;
  }
  const CodePoints lower = unicode::Lowercase(c);
  for (size_t i = 0; i < lower.size; ++i) {
    out[i] = {lower.data[i], SplitAction(lower.data[i])};
  }
  return static_cast<uint32_t>(lower.size);
}

}  // namespace svdserve
