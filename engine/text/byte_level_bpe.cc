#include "engine/text/byte_level_bpe.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/text/unicode.h"

namespace svdserve {
namespace {

// Above this many symbols a heap is faster than scanning for the best pair.
constexpr size_t kMaxShort = 40;
constexpr uint32_t kEnd = UINT32_MAX;  // no symbol before, or after

std::string Utf8(char32_t c) {
  char bytes[4];
  return std::string(bytes, unicode::EncodeUtf8(c, bytes));
}

// Bytes that UTF-8 never has.
bool IsNeverInText(int byte) {
  return byte == 0xC0 || byte == 0xC1 || byte >= 0xF5;
}

// The heap's order: the best rank, then the leftmost, comes out first.
bool IsWorse(const BpeScratch::Candidate& a, const BpeScratch::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
}

// The bytes that a token of the vocabulary stands for; false if none do.
bool DecodeToken(std::string_view token,
                 const absl::flat_hash_map<char32_t, char>& bytes,
                 std::string* out) {
  out->clear();
  for (size_t at = 0; at < token.size();) {
    const unicode::Decoded d = unicode::DecodeValid(token.data() + at);
    const auto byte = bytes.find(d.c);
    if (byte == bytes.end()) return false;
    out->push_back(byte->second);
    at += d.size;
  }
  return !out->empty();
}

}  // namespace

// Printable characters of Latin-1 are themselves; all others are numbered from
// U+0100 on.
char32_t ByteLevelBpe::CharOfByte(uint8_t byte) {
  const auto is_printable = [](uint32_t b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
  };
  if (is_printable(byte)) return byte;
  char32_t number = 0;
  for (uint32_t b = 0; b < byte; ++b) number += is_printable(b) ? 0 : 1;
  return 0x100 + number;
}

absl::StatusOr<ByteLevelBpe> ByteLevelBpe::Build(
    const std::vector<TokenizerSpec::Entry>& vocab, const BpeOptions& options) {
  Ids ids;
  for (const TokenizerSpec::Entry& entry : vocab) {
    ids.emplace(entry.token, entry.id);
  }
  ByteLevelBpe out;
  out.fuse_unk_ = options.fuse_unk;
  absl::Status status = out.BuildBytes(ids, options);
  if (status.ok()) status = out.BuildMerges(ids, options);
  if (!status.ok()) return status;
  out.BuildWhole(vocab, options.ignore_merges);
  return out;
}

absl::Status ByteLevelBpe::BuildBytes(const Ids& ids,
                                      const BpeOptions& options) {
  int32_t unk_id = -1;
  if (options.unk_token) {
    const auto unk = ids.find(*options.unk_token);
    if (unk != ids.end()) unk_id = unk->second;
  }
  for (int byte = 0; byte < 256; ++byte) {
    const std::string name = Utf8(CharOfByte(static_cast<uint8_t>(byte)));
    const auto id = ids.find(name);
    unknown_[byte] = id == ids.end();
    bytes_[byte] = unknown_[byte] ? unk_id : id->second;
    if (bytes_[byte] >= 0 || IsNeverInText(byte)) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "the vocabulary lacks the byte ", absl::StrFormat("0x%02X", byte),
        ", '", name, "', and ",
        options.unk_token
            ? absl::StrCat("its unk_token '", *options.unk_token, "'")
            : std::string("there is no unk_token")));
  }
  return absl::OkStatus();
}

absl::Status ByteLevelBpe::BuildMerges(const Ids& ids,
                                       const BpeOptions& options) {
  size_t size = 2;
  shift_ = 63;
  for (; size < 2 * options.merges.size() + 2; size *= 2) --shift_;
  cells_.assign(size, Cell());
  uint32_t rank = 0;
  for (const auto& [left, right] : options.merges) {
    const std::string merged = left + right;
    int32_t found[3];
    const std::string* const names[3] = {&left, &right, &merged};
    for (int i = 0; i < 3; ++i) {
      const auto id = ids.find(*names[i]);
      if (id == ids.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat("merge ", rank, ", '", left, " ", right, "', needs '",
                         *names[i], "', which is not in the vocabulary"));
      }
      found[i] = id->second;
    }
    size_t i = CellOf(found[0], found[1]);
    while (cells_[i].result.rank != kNoRank &&
           (cells_[i].left != found[0] || cells_[i].right != found[1])) {
      i = (i + 1) & (size - 1);
    }
    cells_[i] = {found[0], found[1], {rank++, found[2]}};  // the last counts
  }
  // What every piece starts with: a small part of this table is hot.
  byte_pairs_.reserve(size_t{256} * 256);
  for (int left = 0; left < 256; ++left) {
    for (int right = 0; right < 256; ++right) {
      byte_pairs_.push_back(Find(bytes_[left], bytes_[right]));
    }
  }
  return absl::OkStatus();
}

// Tokens that their own bytes do not merge to are left out.
void ByteLevelBpe::BuildWhole(const std::vector<TokenizerSpec::Entry>& vocab,
                              bool ignore_merges) {
  absl::flat_hash_map<char32_t, char> bytes;
  for (int byte = 0; byte < 256; ++byte) {
    bytes[CharOfByte(static_cast<uint8_t>(byte))] = static_cast<char>(byte);
  }
  BpeScratch scratch;
  std::vector<std::string> texts(vocab.size());
  std::vector<ByteTrie::Key> keys;
  for (size_t i = 0; i < vocab.size(); ++i) {
    std::string& text = texts[i];
    if (!DecodeToken(vocab[i].token, bytes, &text)) continue;
    if (!ignore_merges) {
      Merge(text, &scratch);
      const BpeScratch::Symbol& first = scratch.symbols[0];
      if (first.id != vocab[i].id || first.bytes != text.size()) continue;
    }
    keys.push_back({text, static_cast<uint32_t>(vocab[i].id)});
  }
  whole_ = ByteTrie::Build(std::move(keys));
}

void ByteLevelBpe::Merge(std::string_view piece, BpeScratch* scratch) const {
  AddBytes(piece, scratch);
  if (scratch->symbols.size() <= kMaxShort) {
    MergeShort(piece, scratch);
  } else {
    MergeLong(scratch);
  }
}

void ByteLevelBpe::AddBytes(std::string_view piece, BpeScratch* scratch) const {
  std::vector<BpeScratch::Symbol>& symbols = scratch->symbols;
  symbols.clear();
  bool after_unknown = false;
  for (const char c : piece) {
    const auto byte = static_cast<uint8_t>(c);
    if (fuse_unk_ && unknown_[byte] && after_unknown) {
      ++symbols.back().bytes;
    } else {
      const auto at = static_cast<uint32_t>(symbols.size());
      symbols.push_back({bytes_[byte], 1, at - 1, at + 1});
    }
    after_unknown = unknown_[byte];
  }
  symbols.front().previous = kEnd;
  symbols.back().next = kEnd;
}

// Scans for the best pair; the symbols stay packed.
void ByteLevelBpe::MergeShort(std::string_view piece,
                              BpeScratch* scratch) const {
  std::vector<BpeScratch::Symbol>& symbols = scratch->symbols;
  Result results[kMaxShort];  // of each symbol with its next
  size_t pairs = symbols.size() - 1;
  const bool are_bytes = symbols.size() == piece.size();  // nothing is fused
  for (size_t i = 0; i < pairs; ++i) {
    results[i] = are_bytes ? byte_pairs_[static_cast<uint8_t>(piece[i]) << 8 |
                                         static_cast<uint8_t>(piece[i + 1])]
                           : Find(symbols[i].id, symbols[i + 1].id);
  }
  while (pairs > 0) {
    size_t best = 0;
    for (size_t i = 1; i < pairs; ++i) {
      if (results[i].rank < results[best].rank) best = i;
    }
    if (results[best].rank == kNoRank) break;
    symbols[best].id = results[best].id;
    symbols[best].bytes += symbols[best + 1].bytes;
    for (size_t i = best + 1; i < pairs; ++i) {
      symbols[i] = symbols[i + 1];
      results[i - 1] = results[i];
    }
    --pairs;
    if (best > 0) {
      results[best - 1] = Find(symbols[best - 1].id, symbols[best].id);
    }
    if (best < pairs) {
      results[best] = Find(symbols[best].id, symbols[best + 1].id);
    }
  }
  symbols.resize(pairs + 1);
}

void ByteLevelBpe::AddCandidate(uint32_t at, BpeScratch* scratch) const {
  const BpeScratch::Symbol& left = scratch->symbols[at];
  if (left.next == kEnd) return;
  const Result result = Find(left.id, scratch->symbols[left.next].id);
  if (result.rank == kNoRank) return;
  scratch->candidates.push_back({result.rank, at, result.id});
  std::push_heap(scratch->candidates.begin(), scratch->candidates.end(),
                 IsWorse);
}

// Symbols form a list; candidates that a merge has overtaken are told by what
// their pair would become now, and passed over.
void ByteLevelBpe::MergeLong(BpeScratch* scratch) const {
  std::vector<BpeScratch::Symbol>& symbols = scratch->symbols;
  std::vector<BpeScratch::Candidate>& heap = scratch->candidates;
  heap.clear();
  for (uint32_t i = 0; i + 1 < symbols.size(); ++i) AddCandidate(i, scratch);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), IsWorse);
    const BpeScratch::Candidate best = heap.back();
    heap.pop_back();
    BpeScratch::Symbol& left = symbols[best.at];
    if (left.bytes == 0 || left.next == kEnd) continue;
    BpeScratch::Symbol& right = symbols[left.next];
    if (Find(left.id, right.id).id != best.id) continue;
    left.id = best.id;
    left.bytes += right.bytes;
    right.bytes = 0;
    left.next = right.next;
    if (left.next != kEnd) symbols[left.next].previous = best.at;
    if (left.previous != kEnd) AddCandidate(left.previous, scratch);
    AddCandidate(best.at, scratch);
  }
}

}  // namespace svdserve
