#include "engine/text/unigram.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/text/unicode.h"

namespace svdserve {
namespace {

constexpr double kUnknownPenalty = 10;
constexpr uint32_t kNoStart = UINT32_MAX;

}  // namespace

absl::StatusOr<Unigram> Unigram::Build(
    const std::vector<TokenizerSpec::Entry>& vocab,
    const UnigramOptions& options) {
  if (options.unk_id < 0 ||
      static_cast<size_t>(options.unk_id) >= vocab.size()) {
    return absl::InvalidArgumentError(absl::StrCat("unk_id is ", options.unk_id,
                                                   ", but there are ",
                                                   vocab.size(), " tokens"));
  }
  Unigram out;
  out.unk_id_ = options.unk_id;
  out.byte_fallback_ = options.byte_fallback;
  out.scores_ = options.scores;
  out.unk_score_ = *std::min_element(out.scores_.begin(), out.scores_.end()) -
                   kUnknownPenalty;
  std::vector<ByteTrie::Key> keys;
  keys.reserve(vocab.size());
  for (const TokenizerSpec::Entry& entry : vocab) {
    keys.push_back({entry.token, static_cast<uint32_t>(entry.id)});
  }
  out.trie_ = ByteTrie::Build(std::move(keys));
  out.scores_.resize(out.trie_.size());
  for (uint32_t node = 0; node < out.trie_.size(); ++node) {
    if (!out.trie_.HasValue(node)) continue;
    out.scores_[node] = options.scores[out.trie_.Value(node)];
  }
  for (int byte = 0; byte < 256; ++byte) {
    const uint32_t id = out.trie_.Find(absl::StrFormat("<0x%02X>", byte));
    out.bytes_[byte] = id == ByteTrie::kNone ? -1 : static_cast<int32_t>(id);
  }
  out.is_whole_.resize(vocab.size());
  UnigramScratch scratch;
  for (const TokenizerSpec::Entry& entry : vocab) {
    if (entry.token.empty() || entry.id == out.unk_id_) continue;
    out.FindPath(entry.token, &scratch);
    out.is_whole_[entry.id] =
        scratch.path.size() == 1 && scratch.path[0].id == entry.id;
  }
  return out;
}

bool Unigram::AreBytesTokens(std::string_view text) const {
  return byte_fallback_ && std::all_of(text.begin(), text.end(), [&](char c) {
           return bytes_[static_cast<uint8_t>(c)] >= 0;
         });
}

uint32_t Unigram::Extend(std::string_view word, uint32_t start,
                         UnigramScratch::Node* nodes) const {
  const double before = nodes[start].score;
  const auto offer = [&](uint32_t end, double score, uint32_t piece) {
    UnigramScratch::Node& node = nodes[end];
    if (node.start == kNoStart || score > node.score) {
      node = {score, start, piece};
    }
  };
  const uint32_t size = unicode::DecodeValid(word.data() + start).size;
  bool has_single = false;
  uint32_t state = ByteTrie::kRoot;
  for (uint32_t end = start; end < word.size();) {
    if (!trie_.Step(static_cast<uint8_t>(word[end]), &state)) break;
    ++end;
    if (!trie_.HasValue(state)) continue;
    offer(end, scores_[state] + before, state);
    has_single |= end - start == size;
  }
  if (!has_single) offer(start + size, unk_score_ + before, kNone);
  return size;
}

void Unigram::FindPath(std::string_view word, UnigramScratch* scratch) const {
  const auto size = static_cast<uint32_t>(word.size());
  scratch->nodes.assign(size + 1, {0, kNoStart, kNone});
  UnigramScratch::Node* nodes = scratch->nodes.data();
  for (uint32_t start = 0; start < size;) start += Extend(word, start, nodes);
  scratch->path.clear();
  for (uint32_t end = size; end > 0;) {
    const UnigramScratch::Node& node = nodes[end];
    const int32_t id = node.piece == kNone
                           ? unk_id_
                           : static_cast<int32_t>(trie_.Value(node.piece));
    std::vector<UnigramScratch::Piece>& path = scratch->path;
    // Unknown neighbours are one piece.
    if (id == unk_id_ && !path.empty() && path.back().id == unk_id_) {
      path.back().begin = node.start;
    } else {
      path.push_back({node.start, end, id});
    }
    end = node.start;
  }
}

}  // namespace svdserve
