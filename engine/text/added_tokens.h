// Finds added tokens ([MASK], <tag>, ...) in a text before words are split.
//
// The rules are those of Hugging Face `tokenizers`: leftmost, then longest; a
// match that single_word refuses is passed over whole; lstrip and rstrip take
// the whitespace beside a match along.
//
// Immutable after Build and thread-safe.
//
//   AddedTokens::Cursor cursor;
//   while (auto match = tokens.Next(text, &cursor)) ...
#ifndef SVDSERVE_ENGINE_TEXT_ADDED_TOKENS_H_
#define SVDSERVE_ENGINE_TEXT_ADDED_TOKENS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace svdserve {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool single_word = false;
  bool lstrip = false;
  bool rstrip = false;
  bool normalized = false;
  bool special = false;
};

class AddedTokens {
 public:
  struct Match {
    size_t begin;
    size_t end;
    int32_t id;
  };
  struct Cursor {
    size_t at = 0;     // where to look next
    size_t taken = 0;  // the end of what is already part of a match
  };

  AddedTokens() = default;
  // Contents must be unique and not empty.
  static absl::StatusOr<AddedTokens> Build(std::vector<AddedToken> tokens);

  bool empty() const { return tokens_.empty(); }
  // The next match at or after the cursor, in well-formed UTF-8.
  std::optional<Match> Next(std::string_view text, Cursor* cursor) const;

  // Calls on_text(piece) for what is between matches, pieces may be empty, and
  // on_token(piece, id) for matches, in order, until done().
  template <typename Done, typename OnText, typename OnToken>
  void Split(std::string_view text, Done done, OnText on_text,
             OnToken on_token) const {
    size_t taken = 0;
    Cursor cursor;
    while (!empty()) {
      const std::optional<Match> match = Next(text, &cursor);
      if (!match) break;
      on_text(text.substr(taken, match->begin - taken));
      if (done()) return;
      on_token(text.substr(match->begin, match->end - match->begin), match->id);
      taken = match->end;
    }
    on_text(text.substr(taken));
  }

 private:
  // Sorted by content, so that those with a common prefix are neighbours.
  const AddedToken* LongestAt(std::string_view text) const;
  size_t FindCandidate(std::string_view text, size_t from) const;

  std::vector<AddedToken> tokens_;
  std::array<bool, 256> starts_{};  // first bytes
  int only_start_ = -1;             // the first byte, if there is just one
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_ADDED_TOKENS_H_
