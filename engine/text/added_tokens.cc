#include "engine/text/added_tokens.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/text/unicode.h"

namespace svdserve {
namespace {

bool IsWord(char32_t c) { return unicode::Properties(c) & unicode::kWord; }
bool IsSpace(char32_t c) {
  return unicode::Properties(c) & unicode::kRegexSpace;
}

bool IsSingleWord(std::string_view before, std::string_view after) {
  return (before.empty() || !IsWord(unicode::DecodeLastValid(before).c)) &&
         (after.empty() || !IsWord(unicode::DecodeValid(after.data()).c));
}

size_t SpaceBefore(std::string_view text) {
  size_t size = 0;
  while (!text.empty()) {
    const unicode::Decoded last = unicode::DecodeLastValid(text);
    if (!IsSpace(last.c)) break;
    size += last.size;
    text.remove_suffix(last.size);
  }
  return size;
}

size_t SpaceAfter(std::string_view text) {
  size_t size = 0;
  while (size < text.size()) {
    const unicode::Decoded next = unicode::DecodeValid(text.data() + size);
    if (!IsSpace(next.c)) break;
    size += next.size;
  }
  return size;
}

}  // namespace

absl::StatusOr<AddedTokens> AddedTokens::Build(std::vector<AddedToken> tokens) {
  AddedTokens out;
  out.tokens_ = std::move(tokens);
  std::sort(out.tokens_.begin(), out.tokens_.end(),
            [](const AddedToken& a, const AddedToken& b) {
              return a.content < b.content;
            });
  for (size_t i = 0; i < out.tokens_.size(); ++i) {
    const std::string& content = out.tokens_[i].content;
    if (content.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "added token ", out.tokens_[i].id, " is empty once normalized"));
    }
    if (i > 0 && content == out.tokens_[i - 1].content) {
      return absl::InvalidArgumentError(absl::StrCat(
          "added tokens ", out.tokens_[i - 1].id, " and ", out.tokens_[i].id,
          " are both matched as '", content, "'"));
    }
    out.starts_[static_cast<uint8_t>(content[0])] = true;
  }
  if (std::count(out.starts_.begin(), out.starts_.end(), true) == 1) {
    out.only_start_ = static_cast<uint8_t>(out.tokens_[0].content[0]);
  }
  return out;
}

size_t AddedTokens::FindCandidate(std::string_view text, size_t from) const {
  if (only_start_ >= 0) {
    const void* p =
        std::memchr(text.data() + from, only_start_, text.size() - from);
    return p == nullptr ? text.size()
                        : static_cast<const char*>(p) - text.data();
  }
  while (from < text.size() && !starts_[static_cast<uint8_t>(text[from])]) {
    ++from;
  }
  return from;
}

// Narrows the range of tokens that agree with `text` byte by byte.
const AddedToken* AddedTokens::LongestAt(std::string_view text) const {
  auto begin = tokens_.begin(), end = tokens_.end();
  const AddedToken* longest = nullptr;
  for (size_t i = 0; begin != end; ++i) {
    if (begin->content.size() == i) longest = &*begin++;
    if (i == text.size()) break;
    const auto byte = static_cast<uint8_t>(text[i]);
    const auto at = [i](const AddedToken& t) {
      return static_cast<uint8_t>(t.content[i]);
    };
    begin = std::lower_bound(
        begin, end, byte,
        [&](const AddedToken& t, uint8_t b) { return at(t) < b; });
    end = std::upper_bound(
        begin, end, byte,
        [&](uint8_t b, const AddedToken& t) { return b < at(t); });
  }
  return longest;
}

std::optional<AddedTokens::Match> AddedTokens::Next(std::string_view text,
                                                    Cursor* cursor) const {
  while (true) {
    size_t begin = FindCandidate(text, cursor->at);
    if (begin >= text.size()) return std::nullopt;
    const AddedToken* token = LongestAt(text.substr(begin));
    if (token == nullptr) {
      cursor->at = begin + 1;
      continue;
    }
    size_t end = begin + token->content.size();
    cursor->at = end;
    if (token->single_word &&
        !IsSingleWord(text.substr(0, begin), text.substr(end))) {
      continue;
    }
    if (token->rstrip) end += SpaceAfter(text.substr(end));
    // What an earlier match took along is not taken twice.
    if (token->lstrip) begin -= SpaceBefore(text.substr(0, begin));
    begin = std::max(begin, cursor->taken);
    cursor->taken = std::max(end, cursor->taken);
    return Match{begin, cursor->taken, token->id};
  }
}

}  // namespace svdserve
