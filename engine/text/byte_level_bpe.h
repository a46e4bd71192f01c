// Byte pair encoding of pieces of text, by bytes as GPT-2 and RoBERTa do it.
//
// Starting with a symbol for each byte, the neighbours with the best merge
// become one symbol, the leftmost first, until no neighbours have a merge
// (Sennrich et al., arXiv 1508.07909; the vocabulary writes bytes as GPT-2's
// printable characters). Most pieces of ordinary text are one token in the
// end: a trie holds those tokens that their own bytes merge to, which is found
// out at load, so such a piece costs its bytes. Others are merged by scanning
// if they are short, and by a heap, in n log n, if they are long.
//
// Immutable after Build and thread-safe.
//
//   bpe.Encode("Ġhello" in bytes, &scratch, [](int32_t id, uint32_t bytes) {});
#ifndef SVDSERVE_ENGINE_TEXT_BYTE_LEVEL_BPE_H_
#define SVDSERVE_ENGINE_TEXT_BYTE_LEVEL_BPE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/text/double_array.h"
#include "engine/text/text_scratch.h"
#include "engine/text/tokenizer_spec.h"

namespace svdserve {

class ByteLevelBpe {
 public:
  // Tokens must be unique; merges name tokens.
  static absl::StatusOr<ByteLevelBpe> Build(
      const std::vector<TokenizerSpec::Entry>& vocab,
      const BpeOptions& options);

  // Calls emit(id, bytes) for the tokens of a piece that is not empty.
  template <typename Emit>
  void Encode(std::string_view piece, BpeScratch* scratch, Emit emit) const {
    const uint32_t whole = whole_.Find(piece);
    if (whole != ByteTrie::kNone) {
      emit(static_cast<int32_t>(whole), static_cast<uint32_t>(piece.size()));
      return;
    }
    Merge(piece, scratch);
    for (const BpeScratch::Symbol& symbol : scratch->symbols) {
      if (symbol.bytes > 0) emit(symbol.id, symbol.bytes);
    }
  }

  // The character that stands for a byte in the vocabulary.
  static char32_t CharOfByte(uint8_t byte);

 private:
  using Ids = absl::flat_hash_map<std::string_view, int32_t>;
  static constexpr uint32_t kNoRank = UINT32_MAX;
  struct Result {
    uint32_t rank = kNoRank;
    int32_t id = -1;
  };
  // A hash table's cell; free if the rank is kNoRank.
  struct Cell {
    int32_t left = -1;
    int32_t right = -1;
    Result result;
  };

  absl::Status BuildBytes(const Ids& ids, const BpeOptions& options);
  absl::Status BuildMerges(const Ids& ids, const BpeOptions& options);
  void BuildWhole(const std::vector<TokenizerSpec::Entry>& vocab,
                  bool ignore_merges);

  size_t CellOf(int32_t left, int32_t right) const {
    const uint64_t key = static_cast<uint64_t>(static_cast<uint32_t>(left))
                             << 32 |
                         static_cast<uint32_t>(right);
    return key * UINT64_C(0x9E3779B97F4A7C15) >> shift_;
  }
  Result Find(int32_t left, int32_t right) const {
    for (size_t i = CellOf(left, right);; i = (i + 1) & (cells_.size() - 1)) {
      const Cell& cell = cells_[i];
      if (cell.result.rank == kNoRank) return {};
      if (cell.left == left && cell.right == right) return cell.result;
    }
  }

  void Merge(std::string_view piece, BpeScratch* scratch) const;
  void AddBytes(std::string_view piece, BpeScratch* scratch) const;
  void MergeShort(std::string_view piece, BpeScratch* scratch) const;
  void MergeLong(BpeScratch* scratch) const;
  void AddCandidate(uint32_t at, BpeScratch* scratch) const;

  std::array<int32_t, 256> bytes_{};  // ids
  std::array<bool, 256> unknown_{};   // bytes that no token stands for
  bool fuse_unk_ = false;
  std::vector<Result> byte_pairs_;  // by the left byte, then the right one
  std::vector<Cell> cells_;         // a power of two, half of them free
  int shift_ = 63;
  ByteTrie whole_;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_BYTE_LEVEL_BPE_H_
