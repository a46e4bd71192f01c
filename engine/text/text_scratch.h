// Memory that a thread keeps from one text to the next.
#ifndef SVDSERVE_ENGINE_TEXT_TEXT_SCRATCH_H_
#define SVDSERVE_ENGINE_TEXT_TEXT_SCRATCH_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/text/combining_run.h"
#include "engine/text/tokenizer.h"

namespace svdserve {

// The tokens of one text, before special tokens are put around them.
struct TextTokens {
  // Spaces that the text of an added token begins and ends with.
  struct AddedSpaces {
    size_t index;  // of the token
    uint32_t leading;
    uint32_t trailing;
  };

  std::vector<int32_t> ids;
  std::vector<TokenOffset> offsets;  // empty if not asked for
  std::vector<AddedSpaces> added;    // in order; only if offsets are trimmed

  void Clear() {
    ids.clear();
    offsets.clear();
    added.clear();
  }
};

// A text on its way through a normalizer.
struct NormalizedText {
  std::string text;
  // Of each code point: the index of the original text's that it stands for.
  // Empty if nobody asks.
  std::vector<uint32_t> sources;

  void Clear() {
    text.clear();
    sources.clear();
  }
};

// What ByteLevelBpe merges in.
struct BpeScratch {
  struct Symbol {
    int32_t id;
    uint32_t bytes;  // 0: merged into one before it
    uint32_t previous;
    uint32_t next;
  };
  struct Candidate {
    uint32_t rank;
    uint32_t at;  // its left symbol
    int32_t id;   // what the pair becomes
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> candidates;  // a heap
};

// What Unigram looks for the best path in.
struct UnigramScratch {
  struct Node {
    double score;    // of the best path that ends here
    uint32_t start;  // of its last piece
    uint32_t piece;  // likewise: the trie's node
  };
  struct Piece {
    uint32_t begin;
    uint32_t end;
    int32_t id;
  };
  std::vector<Node> nodes;
  std::vector<Piece> path;
};

struct TextScratch {
  TextTokens first;
  TextTokens second;
  std::string sanitized;
  NormalizedText normalized;
  NormalizedText other;        // the steps of a normalizer alternate
  std::vector<uint32_t> word;  // source of each character of a word
  std::string word_text;
  CombiningRun run;
  BpeScratch bpe;
  UnigramScratch unigram;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_TEXT_SCRATCH_H_
