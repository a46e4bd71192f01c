// The texts that a load run sends: of lengths from a distribution, or the lines
// of a file.
//
//   absl::StatusOr<TextSource> source = TextSource::Parse("uniform:1-512");
//   std::string text = source->Next(random);
#ifndef SVDSERVE_TOOLS_LOAD_LENGTHS_H_
#define SVDSERVE_TOOLS_LOAD_LENGTHS_H_

#include <cstddef>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace svdserve {

using Random = std::mt19937_64;

// An English text of `tokens` tokens of a BERT vocabulary, [CLS] and [SEP]
// included; at least three, since no text is empty.
std::string TextOfLength(int tokens, Random& random);

// Not thread-safe.
class TextSource {
 public:
  // "fixed:N", "uniform:A-B" (tokens, both ends included) or "file:PATH" (its
  // lines, again and again). INVALID_ARGUMENT names what would be right.
  static absl::StatusOr<TextSource> Parse(const std::string& description);

  std::string Next(Random& random);
  size_t lines() const { return lines_.size(); }  // 0 without a file

 private:
  TextSource() = default;

  int least_ = 0;
  int most_ = 0;
  std::vector<std::string> lines_;  // not empty: these, in order
  size_t line_ = 0;
};

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_LOAD_LENGTHS_H_
