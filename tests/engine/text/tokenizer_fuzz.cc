// Any bytes as tokenizer files, and then as text.
//
// The input is cut at zero bytes: the first part is a tokenizer.json if it
// starts with '{', a vocab.json after its merges.txt if with '#', else a
// vocab.txt; the second is a tokenizer_config.json, the third a
// special_tokens_map.json, and the rest, whatever it holds, is text.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "engine/text/tokenizer_base.h"
#include "engine/text/tokenizer_files.h"
#include "engine/text/unicode.h"

namespace svdserve {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

std::string_view TakePart(std::string_view* data) {
  const size_t end = std::min(data->find('\0'), data->size());
  const std::string_view part = data->substr(0, end);
  data->remove_prefix(std::min(end + 1, data->size()));
  return part;
}

absl::StatusOr<TokenizerSpec> Parse(std::string_view file,
                                    std::string_view config,
                                    std::string_view special) {
  if (file.substr(0, 1) == "{") return ParseTokenizerJson("fuzz", file);
  if (file.substr(0, 1) == "#") {
    const size_t json = std::min(file.find('{'), file.size());
    return ParseBpeFiles(
        "fuzz", {file.substr(json), file.substr(0, json), config, special});
  }
  return ParseVocabText("fuzz", file, config, special);
}

struct Loaded {
  std::unique_ptr<const Tokenizer> tokenizer;
  // No token begins before the one before it. Not so where spaces are trimmed
  // off: that may put a token's begin behind the next one's.
  bool ordered = true;
};

Loaded Load(std::string_view* data) {
  const std::string_view file = TakePart(data);
  const std::string_view config = TakePart(data);
  const std::string_view special = TakePart(data);
  const absl::StatusOr<TokenizerSpec> spec = Parse(file, config, special);
  if (!spec.ok()) {
    Require(!spec.status().message().empty());
    return {};
  }
  auto tokenizer = CreateTokenizer(*spec);
  if (!tokenizer.ok()) return {};
  return {*std::move(tokenizer), !spec->bpe.trim_offsets};
}

void CheckOffsets(const Encoding& encoding, size_t code_points, bool ordered) {
  uint32_t last = 0;
  for (const TokenOffset& offset : encoding.offsets) {
    Require(offset.begin <= offset.end && offset.end <= code_points);
    Require(!ordered || offset.begin >= last || offset.end == 0);
    if (offset.end > 0) last = offset.begin;
  }
}

void CheckText(const Loaded& loaded, std::string_view text) {
  const Tokenizer& tokenizer = *loaded.tokenizer;
  std::string sanitized;
  unicode::AppendSanitized(text, &sanitized);
  EncodeOptions options;
  options.add_special_tokens = false;
  Encoding fast, with_offsets;
  Require(tokenizer.Encode(text, std::nullopt, options, &fast).ok());
  options.with_offsets = true;
  Require(tokenizer.Encode(text, std::nullopt, options, &with_offsets).ok());
  Require(fast.ids == with_offsets.ids);
  Require(fast.ids.size() == fast.type_ids.size());
  Require(fast.ids.size() == with_offsets.offsets.size());
  CheckOffsets(with_offsets, unicode::CountCodePoints(sanitized),
               loaded.ordered);
  for (const int32_t id : fast.ids) Require(id >= 0);

  // Truncated at either side it is a prefix or a suffix of the whole.
  options.truncate = true;
  options.max_tokens = 1 + static_cast<int>(text.size() % 7);
  const size_t size = std::min<size_t>(options.max_tokens, fast.ids.size());
  Encoding cut;
  Require(tokenizer.Encode(text, std::nullopt, options, &cut).ok());
  Require(cut.ids.size() == size);
  Require(std::equal(cut.ids.begin(), cut.ids.end(), fast.ids.begin()));
  options.side = TruncationSide::kLeft;
  Require(tokenizer.Encode(text, std::nullopt, options, &cut).ok());
  Require(cut.ids.size() == size);
  Require(std::equal(cut.ids.rbegin(), cut.ids.rend(), fast.ids.rbegin()));
  Require(tokenizer.Encode(text, text, options, &cut).ok());
  Require(cut.ids.size() <= static_cast<size_t>(options.max_tokens));
}

}  // namespace
}  // namespace svdserve

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  const svdserve::Loaded loaded = svdserve::Load(&rest);
  if (loaded.tokenizer != nullptr) svdserve::CheckText(loaded, rest);
  return 0;
}
