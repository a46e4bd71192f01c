// Text -> token ids.
//
// A Tokenizer is immutable after loading and safe to use from any number of
// threads at once. Encode() writes into the caller's Encoding so that a worker
// thread that keeps one around allocates nothing in the steady state.
//
//   auto tokenizer = Tokenizer::Load("models/all-MiniLM-L6-v2");
//   Encoding e;
//   absl::Status s = (*tokenizer)->Encode("hello", std::nullopt, {}, &e);
#ifndef SVDSERVE_ENGINE_TEXT_TOKENIZER_H_
#define SVDSERVE_ENGINE_TEXT_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace svdserve {

// The side from which tokens are removed when a text is too long.
enum class TruncationSide { kRight, kLeft };

struct EncodeOptions {
  bool add_special_tokens = true;
  // Longest result in tokens, special tokens included. A longer one is cut
  // (pairs: longest first) if `truncate`, else it is returned whole and the
  // caller decides. 0 means no limit.
  int max_tokens = 0;
  bool truncate = false;
  TruncationSide side = TruncationSide::kRight;
  bool with_offsets = false;
};

// Half-open range of Unicode code points of the original text; {0, 0} for
// special tokens, as in Hugging Face `tokenizers`.
struct TokenOffset {
  uint32_t begin = 0;
  uint32_t end = 0;
};

struct Encoding {
  std::vector<int32_t> ids;          // [tokens]
  std::vector<uint8_t> type_ids;     // [tokens] 0 = first text, 1 = second
  std::vector<TokenOffset> offsets;  // [tokens] if asked for, else empty
  void Clear() {
    ids.clear();
    type_ids.clear();
    offsets.clear();
  }
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Reads tokenizer.json, or else vocab.txt, or else vocab.json and merges.txt
  // (+ tokenizer_config.json), from a Hugging Face directory. Errors name the
  // file and what was wrong with it.
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> Load(
      const std::string& directory);

  // Replaces the contents of `out`. Malformed UTF-8 is read as U+FFFD, one per
  // maximal ill-formed subpart, as Python's errors="replace" does.
  virtual absl::Status Encode(std::string_view text,
                              std::optional<std::string_view> pair,
                              const EncodeOptions& options,
                              Encoding* out) const = 0;

  virtual int vocab_size() const = 0;
  // The id of a token, or -1; and the token of an id, or "".
  virtual int32_t TokenToId(std::string_view token) const = 0;
  virtual std::string_view IdToToken(int32_t id) const = 0;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TEXT_TOKENIZER_H_
