#include "engine/text/bpe_tokenizer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/text/byte_level_split.h"
#include "engine/text/unicode.h"

namespace svdserve {
namespace {

// A bound for what a damaged or hostile vocabulary can make us allocate.
constexpr int32_t kMaxId = (1 << 24) - 1;

bool IsContinuation(char byte) {
  return (static_cast<uint8_t>(byte) & 0xC0) == 0x80;
}

// Encodes the pieces of one text, in order.
template <bool kOffsets>
class BpeEncoder {
 public:
  BpeEncoder(const ByteLevelBpe& bpe, const BpeOptions& options,
             size_t max_tokens, TextScratch* scratch, TextTokens* out)
      : bpe_(bpe),
        split_(ByteLevelSplit::Get()),
        options_(options),
        max_tokens_(max_tokens),
        scratch_(*scratch),
        out_(*out) {}

  bool done() const { return out_.ids.size() >= max_tokens_; }

  // Text between added tokens.
  void Text(std::string_view text) {
    if (text.empty()) return;
    const bool prefix = options_.add_prefix_space && text[0] != ' ';
    if (prefix) {
      std::string& prefixed = scratch_.normalized.text;
      prefixed.assign(1, ' ');
      prefixed.append(text);
      text = prefixed;
    }
    chars_ = 0;
    prefixed_ = prefix;
    const char* p = text.data();
    const char* const end = p + text.size();
    while (p < end && !done()) {
      const char* next = options_.use_regex ? split_.Next(p, end) : end;
      Piece({p, static_cast<size_t>(next - p)});
      p = next;
    }
    if constexpr (kOffsets) position_ += chars_ - (prefix ? 1 : 0);
  }

  void Added(std::string_view text, int32_t id) {
    out_.ids.push_back(id);
    if constexpr (kOffsets) {
      const auto size = static_cast<uint32_t>(unicode::CountCodePoints(text));
      out_.offsets.push_back({position_, position_ + size});
      position_ += size;
    }
  }

 private:
  void Piece(std::string_view piece) {
    const char* p = piece.data();
    bpe_.Encode(piece, &scratch_.bpe, [&](int32_t id, uint32_t bytes) {
      out_.ids.push_back(id);
      if constexpr (kOffsets) Offset(p, bytes);
      p += bytes;
    });
  }

  // A token may begin or end inside a character, which is then its, too.
  void Offset(const char* p, uint32_t bytes) {
    uint32_t begin = chars_ - (IsContinuation(*p) ? 1 : 0);
    for (uint32_t i = 0; i < bytes; ++i) chars_ += IsContinuation(p[i]) ? 0 : 1;
    uint32_t end = chars_;
    if (prefixed_) {  // the space that was added stands for the first character
      begin = std::max(begin, 1U) - 1;
      end = std::max(end - 1, 1U);
    }
    out_.offsets.push_back({position_ + begin, position_ + end});
  }

  const ByteLevelBpe& bpe_;
  const ByteLevelSplit& split_;
  const BpeOptions& options_;
  const size_t max_tokens_;
  TextScratch& scratch_;
  TextTokens& out_;
  uint32_t position_ = 0;  // in code points, of the text between added tokens
  uint32_t chars_ = 0;     // of it that began before the next token
  bool prefixed_ = false;
};

}  // namespace

absl::Status BpeTokenizer::BuildModel() {
  auto bpe = ByteLevelBpe::Build(spec().vocab, spec().bpe);
  if (!bpe.ok()) return bpe.status();
  bpe_ = *std::move(bpe);
  ByteLevelSplit::Get();  // its tables now, not at the first text
  if (!spec().bpe.trim_offsets) return absl::OkStatus();
  for (const TokenizerSpec::Entry& entry : spec().vocab) {
    if (entry.id > kMaxId) {
      return absl::InvalidArgumentError(
          absl::StrCat("the id of token '", entry.token, "' is ", entry.id,
                       "; at most ", kMaxId, " is supported"));
    }
    const auto index = static_cast<size_t>(entry.id);
    if (index >= spaces_.size()) spaces_.resize(index + 1);
    spaces_[index] = CountSpaces(entry.token);
  }
  return absl::OkStatus();
}

// As Hugging Face counts them: whitespace, and the character for a space.
BpeTokenizer::Spaces BpeTokenizer::CountSpaces(std::string_view name) {
  const auto is_space = [](char32_t c) {
    return c == ByteLevelBpe::CharOfByte(' ') ||
           (unicode::Properties(c) & unicode::kWhitespace) != 0;
  };
  Spaces out;
  std::string_view rest = name;
  while (!rest.empty()) {
    const unicode::Decoded d = unicode::DecodeValid(rest.data());
    if (!is_space(d.c)) break;
    ++out.leading;
    rest.remove_prefix(d.size);
  }
  rest = name;
  while (!rest.empty()) {
    const unicode::Decoded d = unicode::DecodeLastValid(rest);
    if (!is_space(d.c)) break;
    ++out.trailing;
    rest.remove_suffix(d.size);
  }
  return out;
}

void BpeTokenizer::EncodeText(std::string_view text, const Limits& limits,
                              TextScratch* scratch, TextTokens* out) const {
  const auto encode = [&](auto encoder) {
    const auto done = [&] { return encoder.done(); };
    const auto on_added = [&](std::string_view piece, int32_t id) {
      if (limits.with_offsets && spec().bpe.trim_offsets) {
        const Spaces spaces = CountSpaces(piece);
        out->added.push_back(
            {out->ids.size(), spaces.leading, spaces.trailing});
      }
      encoder.Added(piece, id);
    };
    const auto on_raw = [&](std::string_view piece) {
      normalized_added().Split(
          piece, done, [&](std::string_view rest) { encoder.Text(rest); },
          on_added);
    };
    raw_added().Split(text, done, on_raw, on_added);
  };
  if (limits.with_offsets) {
    encode(BpeEncoder<true>(bpe_, spec().bpe, limits.max_tokens, scratch, out));
  } else {
    encode(
        BpeEncoder<false>(bpe_, spec().bpe, limits.max_tokens, scratch, out));
  }
}

void BpeTokenizer::TrimOffset(Spaces spaces, bool is_first,
                              TokenOffset* offset) const {
  uint32_t leading = spaces.leading;
  // One space at the beginning may be the one that was added.
  if ((is_first || offset->begin == 0) && spec().bpe.keep_prefix_space &&
      leading == 1) {
    leading = 0;
  }
  offset->begin = std::min(offset->begin + leading, offset->end);
  if (offset->end >= spaces.trailing) {
    offset->end = std::max(offset->end - spaces.trailing, offset->begin);
  }
}

void BpeTokenizer::FinishOffsets(const TextTokens& tokens, size_t first,
                                 size_t count, TokenOffset* offsets) const {
  if (!spec().bpe.trim_offsets) return;
  auto added = std::lower_bound(
      tokens.added.begin(), tokens.added.end(), first,
      [](const auto& spaces, size_t index) { return spaces.index < index; });
  for (size_t i = 0; i < count; ++i) {
    Spaces spaces;
    if (added != tokens.added.end() && added->index == first + i) {
      spaces = {added->leading, added->trailing};
      ++added;
    } else {
      spaces = spaces_[tokens.ids[first + i]];
    }
    TrimOffset(spaces, i == 0, &offsets[i]);
  }
}

}  // namespace svdserve
