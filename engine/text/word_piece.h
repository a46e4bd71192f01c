// WordPiece by LinMaxMatch: longest-match-first in linear time.
//
// Song et al., "Fast WordPiece Tokenization" (arXiv 2012.15524). Two tries over
// UTF-8 bytes, one of the tokens that may start a word and one of those that
// may continue it, are joined by failure links. Where the next byte has no
// edge, the failure link leads to the state that the same bytes have after the
// tokens that greedy matching is bound to take first: those are the link's
// "pops". So every byte is looked at once, with no step back.
//
// A double array holds the tries: one memory access per byte and state.
//
// Immutable after Build and thread-safe. Matching is a loop of the caller,
// which owns the state:
//
//   WordPiece::State state = pieces.Start();
//   for (uint8_t b : word) if (!pieces.Step(b, &state, emit)) -> unknown
//   if (!pieces.Finish(state, emit)) -> unknown
#ifndef SVDSERVE_ENGINE_TEXT_WORD_PIECE_H_
#define SVDSERVE_ENGINE_TEXT_WORD_PIECE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/double_array.h"

namespace svdserve {

class WordPiece {
 public:
  struct Token {
    std::string_view text;  // with the continuing prefix, where it has one
    int32_t id;
  };
  struct Piece {
    int32_t id;
    uint32_t chars;  // code points that it takes of the word
  };
  using State = uint32_t;

  // `tokens` may be in any order. Tokens of more than `max_chars` code points
  // can match no word and are left out.
  static absl::StatusOr<WordPiece> Build(const std::vector<Token>& tokens,
                                         std::string_view continuing_prefix,
                                         size_t max_chars);

  // The state before a word's first byte.
  static constexpr State Start() { return kHeadRoot; }

  // Moves `state` over `byte`, and calls emit(Piece) for every token that is
  // now certain. False if the word cannot be made of tokens; the caller then
  // takes back what was emitted for it.
  template <typename Emit>
  bool Step(uint8_t byte, State* state, Emit emit) const {
    State s = *state;
    while (true) {
      const State next = nodes_[s].base + byte;
      if (nodes_[next].parent == s) {
        *state = next;
        return true;
      }
      const Links& links = links_[s];
      if (links.fail == kNone) return false;
      EmitList(links.fail_pops, emit);
      s = links.fail;
    }
  }

  // Ends a word of at least one byte: emits its remaining tokens. False if it
  // cannot be made of tokens.
  template <typename Emit>
  bool Finish(State state, Emit emit) const {
    const uint32_t pops = links_[state].end_pops;
    if (pops == kNone) return false;
    EmitList(pops, emit);
    return true;
  }

  // The token that the whole word is, if it is one (with State after its last
  // byte and nothing emitted before), else -1.
  int32_t WholeWord(State state) const { return links_[state].token; }

  size_t bytes() const;

 private:
  friend class WordPieceBuilder;

  static constexpr uint32_t kNone = DoubleArrayBuilder::kNone;
  static constexpr State kHeadRoot = 0;
  static constexpr State kTailRoot = 1;

  struct Links {
    uint32_t fail = kNone;
    uint32_t fail_pops = kNone;  // index into pops_
    uint32_t end_pops = kNone;   // likewise; kNone: unknown
    int32_t token = -1;          // of a node of the head trie
  };

  template <typename Emit>
  void EmitList(uint32_t list, Emit emit) const {
    const Piece* head = &pops_[list];  // holds the length
    for (const Piece* p = head + 1; p <= head + head->chars; ++p) emit(*p);
  }

  std::vector<DoubleArrayBuilder::Node> nodes_;
  std::vector<Links> links_;
  std::vector<Piece> pops_;  // lists, each after its length
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_WORD_PIECE_H_
