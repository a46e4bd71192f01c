// Any bytes as tokenizer files, and then as text.
//
// The input is cut at zero bytes: the first part is a tokenizer.json if it
// starts with '{', else a vocab.txt; the second is a tokenizer_config.json, the
// third a special_tokens_map.json, and the rest, whatever it holds, is text.
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

std::unique_ptr<const Tokenizer> Load(std::string_view* data) {
  const std::string_view file = TakePart(data);
  const std::string_view config = TakePart(data);
  const std::string_view special = TakePart(data);
  absl::StatusOr<TokenizerSpec> spec =
      !file.empty() && file[0] == '{'
          ? ParseTokenizerJson("fuzz", file)
          : ParseVocabText("fuzz", file, config, special);
  if (!spec.ok()) {
    Require(!spec.status().message().empty());
    return nullptr;
  }
  auto tokenizer = CreateTokenizer(*std::move(spec));
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

void CheckOffsets(const Encoding& encoding, size_t code_points) {
  uint32_t last = 0;
  for (const TokenOffset& offset : encoding.offsets) {
    Require(offset.begin <= offset.end && offset.end <= code_points);
    Require(offset.begin >= last || offset.end == 0);
    if (offset.end > 0) last = offset.begin;
  }
}

void CheckText(const Tokenizer& tokenizer, std::string_view text) {
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
  CheckOffsets(with_offsets, unicode::CountCodePoints(sanitized));
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
  const auto tokenizer = svdserve::Load(&rest);
  if (tokenizer != nullptr) svdserve::CheckText(*tokenizer, rest);
  return 0;
}
