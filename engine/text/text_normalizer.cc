#include "engine/text/text_normalizer.h"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <tuple>
#include <utility>

#include "engine/text/unicode.h"

namespace svdserve {
namespace {

bool IsSpace(char32_t c) {
  return unicode::Properties(c) & unicode::kWhitespace;
}

// The next match from `at` on: [begin, end); begin is npos if there is none.
std::pair<size_t, size_t> FindMatch(const NormalizerStep& step,
                                    std::string_view text, size_t at) {
  constexpr size_t kNone = std::string_view::npos;
  if (step.kind == NormalizerStep::kReplace) {
    const size_t begin = text.find(step.pattern, at);
    return {begin, begin == kNone ? kNone : begin + step.pattern.size()};
  }
  const size_t begin = text.find("  ", at);
  if (begin == kNone) return {kNone, kNone};
  return {begin, std::min(text.find_first_not_of(' ', begin), text.size())};
}

}  // namespace

absl::StatusOr<TextNormalizer> TextNormalizer::Build(
    const std::vector<NormalizerStep>& steps) {
  TextNormalizer out;
  for (const NormalizerStep& options : steps) {
    Step step{options, {}};
    if (options.kind == NormalizerStep::kCharsmap) {
      absl::StatusOr<Charsmap> map = Charsmap::Build(options.content);
      if (!map.ok()) return map.status();
      step.map = *std::move(map);
      step.options.content.clear();
    }
    out.steps_.push_back(std::move(step));
  }
  return out;
}

void TextNormalizer::Copy(std::string_view text, uint32_t position,
                          bool with_sources, NormalizedText* out) {
  out->text.assign(text);
  out->sources.clear();
  if (!with_sources) return;
  out->sources.resize(unicode::CountCodePoints(text));
  std::iota(out->sources.begin(), out->sources.end(), position);
}

void TextNormalizer::Strip(const NormalizerStep& step, NormalizedText* text) {
  const bool with_sources = !text->sources.empty();
  std::string_view rest = text->text;
  while (step.right && !rest.empty()) {
    const unicode::Decoded d = unicode::DecodeLastValid(rest);
    if (!IsSpace(d.c)) break;
    rest.remove_suffix(d.size);
    if (with_sources) text->sources.pop_back();
  }
  text->text.resize(rest.size());
  rest = text->text;
  size_t chars = 0;
  while (step.left && !rest.empty()) {
    const unicode::Decoded d = unicode::DecodeValid(rest.data());
    if (!IsSpace(d.c)) break;
    rest.remove_prefix(d.size);
    ++chars;
  }
  if (chars == 0) return;
  text->text.erase(0, text->text.size() - rest.size());
  if (with_sources) {
    text->sources.erase(text->sources.begin(), text->sources.begin() + chars);
  }
}

// All that replaces a match stands for the match's last character.
bool TextNormalizer::Replace(const NormalizerStep& step,
                             const NormalizedText& text, NormalizedText* out) {
  auto [begin, end] = FindMatch(step, text.text, 0);
  if (begin == std::string_view::npos) return false;
  out->Clear();
  const std::string_view all = text.text;
  const bool with_sources = !text.sources.empty();
  const size_t content_chars = unicode::CountCodePoints(step.content);
  size_t taken = 0;  // bytes, and
  size_t chars = 0;  // code points that are done
  const auto keep = [&](size_t to) {
    const std::string_view kept = all.substr(taken, to - taken);
    out->text.append(kept);
    if (with_sources) {
      const size_t count = unicode::CountCodePoints(kept);
      const auto from = text.sources.begin() + chars;
      out->sources.insert(out->sources.end(), from, from + count);
      chars += count;
    }
    taken = to;
  };
  while (begin != std::string_view::npos) {
    keep(begin);
    out->text.append(step.content);
    if (with_sources) {
      chars += unicode::CountCodePoints(all.substr(begin, end - begin));
      out->sources.insert(out->sources.end(), content_chars,
                          text.sources[chars - 1]);
    }
    taken = end;
    std::tie(begin, end) = FindMatch(step, all, end);
  }
  keep(all.size());
  return true;
}

void TextNormalizer::Normalize(std::string_view text, uint32_t position,
                               bool with_sources, NormalizedText* out,
                               NormalizedText* other) const {
  size_t first = 0;
  if (!steps_.empty() && steps_[0].options.kind == NormalizerStep::kCharsmap) {
    const Charsmap& map = steps_[0].map;
    if (with_sources) {
      map.Normalize<true>(text, position, nullptr, out);
    } else {
      map.Normalize<false>(text, position, nullptr, out);
    }
    first = 1;
  } else {
    Copy(text, position, with_sources, out);
  }
  for (size_t i = first; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    if (step.options.kind == NormalizerStep::kStrip) {
      Strip(step.options, out);
    } else if (step.options.kind == NormalizerStep::kCharsmap) {
      if (with_sources) {
        step.map.Normalize<true>(out->text, 0, out->sources.data(), other);
      } else {
        step.map.Normalize<false>(out->text, 0, nullptr, other);
      }
      std::swap(*out, *other);
    } else if (Replace(step.options, *out, other)) {
      std::swap(*out, *other);
    }
  }
}

}  // namespace svdserve
