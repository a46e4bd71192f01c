// The texts that models are compared by.
#ifndef SVDSERVE_TOOLS_EVALUATE_TEXTS_H_
#define SVDSERVE_TOOLS_EVALUATE_TEXTS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace svdserve {

struct TextSet {
  std::string source;  // where they are from, for readers of the report
  std::vector<std::string> texts;
};

// One text a line, with LF or CR LF; blank lines are left out. NOT_FOUND if the
// file cannot be read, INVALID_ARGUMENT if it holds no text.
absl::StatusOr<TextSet> ReadTexts(const std::string& path);

// At most `most` code points of `text`, with "…" for the rest. Malformed UTF-8
// is no error.
std::string Shorten(const std::string& text, int most);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_EVALUATE_TEXTS_H_
