#include "engine/text/tokenizer_base.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "engine/text/bert_tokenizer.h"
#include "engine/text/bpe_tokenizer.h"
#include "engine/text/unicode.h"
#include "engine/text/unigram_tokenizer.h"

namespace svdserve {
namespace {

using Kind = TemplatePiece::Kind;

constexpr size_t kNoLimit = std::numeric_limits<size_t>::max();
// Offsets, and lengths once normalized, are uint32_t.
constexpr size_t kMaxTextBytes = size_t{1} << 27;
// Beyond this a thread does not keep its scratch memory.
constexpr size_t kMaxKeptBytes = size_t{4} << 20;

size_t SpecialTokens(const Template& pieces) {
  size_t count = 0;
  for (const TemplatePiece& piece : pieces) count += piece.ids.size();
  return count;
}

// How many tokens of each text fit into `room`: the longer one gives first.
void TruncateLongestFirst(size_t room, size_t* first, size_t* second) {
  if (*first + *second <= room) return;
  size_t* shorter = first;
  size_t* longer = second;
  if (*shorter > *longer) std::swap(shorter, longer);
  *longer = *shorter > room ? *shorter : std::max(*shorter, room - *shorter);
  if (*shorter + *longer > room) {
    *shorter = room / 2;
    *longer = *shorter + room % 2;
  }
}

void AppendSpecial(const TemplatePiece& piece, bool with_offsets,
                   Encoding* out) {
  out->ids.insert(out->ids.end(), piece.ids.begin(), piece.ids.end());
  out->type_ids.resize(out->ids.size(), piece.type_id);
  if (with_offsets) out->offsets.resize(out->ids.size());
}

absl::Status CheckOptions(const EncodeOptions& options, size_t special,
                          size_t bytes) {
  if (options.max_tokens < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_tokens is ", options.max_tokens, ", not 0 or more"));
  }
  if (options.truncate && options.max_tokens > 0 &&
      static_cast<size_t>(options.max_tokens) < special) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_tokens is ", options.max_tokens,
                     ", but the special tokens alone are ", special));
  }
  if (bytes > kMaxTextBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the text has ", bytes, " bytes; at most ", kMaxTextBytes,
                     " are supported"));
  }
  return absl::OkStatus();
}

TextScratch& ThreadScratch() {
  thread_local TextScratch scratch;
  return scratch;
}

// Gives the memory of an unusually long text back.
void TrimScratch(size_t bytes, TextScratch* scratch) {
  if (bytes > kMaxKeptBytes / sizeof(TokenOffset)) *scratch = TextScratch();
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Tokenizer>> CreateTokenizer(
    TokenizerSpec spec) {
  std::unique_ptr<TokenizerBase> out;
  switch (spec.model) {
    case TokenizerSpec::Model::kWordPiece:
      out = std::make_unique<BertTokenizer>(std::move(spec));
      break;
    case TokenizerSpec::Model::kBpe:
      out = std::make_unique<BpeTokenizer>(std::move(spec));
      break;
    case TokenizerSpec::Model::kUnigram:
      out = std::make_unique<UnigramTokenizer>(std::move(spec));
      break;
  }
  absl::Status status = out->Build();
  if (!status.ok()) return status;
  return std::unique_ptr<const Tokenizer>(std::move(out));
}

absl::Status TokenizerBase::Build() {
  for (const auto& [text, id] : spec_.vocab) ids_.emplace(text, id);
  absl::Status status = BuildModel();
  if (status.ok()) status = BuildAddedTokens();
  if (!status.ok()) return status;
  BuildNames();
  return absl::OkStatus();
}

// An added token has its id in the vocabulary, or else the next free one;
// what the file says about ids does not count in Hugging Face either.
absl::Status TokenizerBase::BuildAddedTokens() {
  auto next_id = static_cast<int32_t>(spec_.vocab.size());
  absl::flat_hash_map<int32_t, AddedToken> by_id;  // a later one replaces
  for (const AddedToken& token : spec_.added_tokens) {
    if (token.content.empty()) continue;
    const auto [it, is_new] = ids_.emplace(token.content, next_id);
    if (is_new) ++next_id;
    by_id[it->second] = token;
    by_id[it->second].id = it->second;
  }
  std::vector<AddedToken> raw, normalized;
  for (auto& [id, token] : by_id) {
    if (token.normalized) token.content = Normalize(token.content);
    (token.normalized ? normalized : raw).push_back(token);
  }
  auto built = AddedTokens::Build(std::move(raw));
  if (!built.ok()) return built.status();
  raw_added_ = *std::move(built);
  built = AddedTokens::Build(std::move(normalized));
  if (!built.ok()) return built.status();
  normalized_added_ = *std::move(built);
  return absl::OkStatus();
}

void TokenizerBase::BuildNames() {
  for (const auto& [token, id] : ids_) names_.push_back({id, token});
  std::sort(names_.begin(), names_.end());
  if (!names_.empty()) vocab_size_ = names_.back().first + 1;
}

int32_t TokenizerBase::TokenToId(std::string_view token) const {
  const auto it = ids_.find(token);
  return it == ids_.end() ? -1 : it->second;
}

std::string_view TokenizerBase::IdToToken(int32_t id) const {
  const auto it = std::lower_bound(
      names_.begin(), names_.end(), id,
      [](const auto& name, int32_t value) { return name.first < value; });
  return it == names_.end() || it->first != id ? std::string_view()
                                               : it->second;
}

void TokenizerBase::EncodeOne(std::string_view text, const Limits& limits,
                              TextScratch* scratch, TextTokens* out) const {
  out->Clear();
  if (unicode::ValidPrefix(text) != text.size()) {
    scratch->sanitized.clear();
    unicode::AppendSanitized(text, &scratch->sanitized);
    text = scratch->sanitized;
  }
  EncodeText(text, limits, scratch, out);
}

void TokenizerBase::AppendText(const TextTokens& tokens, Range range,
                               uint8_t type_id, bool with_offsets,
                               Encoding* out) const {
  const auto append = [&](const auto& from, auto* to) {
    to->insert(to->end(), from.begin() + range.begin, from.begin() + range.end);
  };
  const size_t size = out->ids.size();
  append(tokens.ids, &out->ids);
  out->type_ids.resize(out->ids.size(), type_id);
  if (!with_offsets) return;
  append(tokens.offsets, &out->offsets);
  FinishOffsets(tokens, range.begin, range.end - range.begin,
                out->offsets.data() + size);
}

absl::Status TokenizerBase::Encode(std::string_view text,
                                   std::optional<std::string_view> pair,
                                   const EncodeOptions& options,
                                   Encoding* out) const {
  const Template& pieces = pair ? spec_.pair : spec_.single;
  const size_t special = options.add_special_tokens ? SpecialTokens(pieces) : 0;
  const size_t bytes = std::max(text.size(), pair ? pair->size() : 0);
  absl::Status status = CheckOptions(options, special, bytes);
  if (!status.ok()) return status;

  const bool truncate = options.truncate && options.max_tokens > 0;
  const size_t room = truncate ? options.max_tokens - special : kNoLimit;
  const bool right = options.side == TruncationSide::kRight;
  // Nothing past the limit is looked at, unless it decides which one of a pair
  // is longer and so has the odd token.
  const bool may_stop = right && (!pair.has_value() || room % 2 == 0);
  const Limits limits{may_stop ? room : kNoLimit, options.with_offsets};
  TextScratch& scratch = ThreadScratch();
  TextTokens& first = scratch.first;
  TextTokens& second = scratch.second;
  EncodeOne(text, limits, &scratch, &first);
  second.Clear();
  if (pair) EncodeOne(*pair, limits, &scratch, &second);
  size_t first_count = first.ids.size(), second_count = second.ids.size();
  if (truncate) TruncateLongestFirst(room, &first_count, &second_count);
  out->Clear();
  for (const TemplatePiece& piece : pieces) {
    if (piece.kind == Kind::kSpecial) {
      if (special > 0) AppendSpecial(piece, options.with_offsets, out);
      continue;
    }
    const bool is_first = piece.kind == Kind::kFirst;
    const TextTokens& tokens = is_first ? first : second;
    const size_t size = tokens.ids.size();
    const size_t count = std::min(is_first ? first_count : second_count, size);
    const Range kept = right ? Range{0, count} : Range{size - count, size};
    AppendText(tokens, kept, piece.type_id, options.with_offsets, out);
  }
  TrimScratch(bytes, &scratch);
  return absl::OkStatus();
}

}  // namespace svdserve
