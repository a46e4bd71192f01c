// Unigram: the split of a word into pieces with the best sum of scores.
//
// Kudo, "Subword Regularization" (arXiv 1804.10959); one best path, found by
// Viterbi's algorithm over a trie of the pieces. A character that is no piece
// has the worst score less ten; such neighbours become one unknown piece. Sums
// are float64 and the first of equal ones wins, both as in Hugging Face
// `tokenizers`. Most words of ordinary text are one piece: those pieces whose
// own best path they are by themselves are known from the load, so that such a
// word costs its bytes.
//
// Immutable after Build and thread-safe.
//
//   unigram.Encode("▁hello", &scratch,
//                  [](int32_t id, uint32_t begin, uint32_t end) {});
#ifndef SVDSERVE_ENGINE_TEXT_UNIGRAM_H_
#define SVDSERVE_ENGINE_TEXT_UNIGRAM_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/double_array.h"
#include "engine/text/text_scratch.h"
#include "engine/text/tokenizer_spec.h"

namespace svdserve {

class Unigram {
 public:
  using Node = uint32_t;
  static constexpr Node kRoot = ByteTrie::kRoot;
  static constexpr Node kNone = ByteTrie::kNone;

  Unigram() = default;
  // The ids of `vocab` are 0, 1, 2...
  static absl::StatusOr<Unigram> Build(
      const std::vector<TokenizerSpec::Entry>& vocab,
      const UnigramOptions& options);

  // For words that are one piece: the node after some bytes, kNone once there
  // is none, and the piece that a word which ends there is, or -1.
  Node Walk(std::string_view bytes, Node node) const {
    return node == kNone ? kNone : trie_.Walk(bytes, node);
  }
  int32_t WholeWord(Node node) const {
    if (node == kNone || !trie_.HasValue(node)) return -1;
    const uint32_t id = trie_.Value(node);
    return is_whole_[id] ? static_cast<int32_t>(id) : -1;
  }

  // Calls emit(id, begin, end) for the pieces, in order, with their bytes.
  // Bytes of an unknown piece, if they are tokens, have its begin and end.
  template <typename Emit>
  void Encode(std::string_view word, UnigramScratch* scratch, Emit emit) const {
    FindPath(word, scratch);
    for (size_t i = scratch->path.size(); i-- > 0;) {
      const UnigramScratch::Piece& piece = scratch->path[i];
      if (piece.id != unk_id_) {
        emit(piece.id, piece.begin, piece.end);
        continue;
      }
      const std::string_view text =
          word.substr(piece.begin, piece.end - piece.begin);
      const uint32_t known = trie_.Find(text);
      if (known == ByteTrie::kNone && AreBytesTokens(text)) {
        for (const char c : text) {
          emit(bytes_[static_cast<uint8_t>(c)], piece.begin, piece.end);
        }
        continue;
      }
      emit(known == ByteTrie::kNone ? unk_id_ : static_cast<int32_t>(known),
           piece.begin, piece.end);
    }
  }

 private:
  // Fills scratch->path with the pieces, the last one first.
  void FindPath(std::string_view word, UnigramScratch* scratch) const;
  // Extends the best path that ends at `start` by every piece that starts
  // there, and returns the size of the character.
  uint32_t Extend(std::string_view word, uint32_t start,
                  UnigramScratch::Node* nodes) const;
  bool AreBytesTokens(std::string_view text) const;

  ByteTrie trie_;
  std::vector<double> scores_;  // by node of the trie, if it is a piece
  std::vector<bool> is_whole_;  // by id
  double unk_score_ = 0;
  int32_t unk_id_ = 0;
  bool byte_fallback_ = false;
  std::array<int32_t, 256> bytes_{};  // ids of <0x00> and so on, or -1
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_UNIGRAM_H_
