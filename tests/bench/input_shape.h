// The inputs of a batch, as the GPU benchmarks' options name them.
#ifndef SVDSERVE_TESTS_BENCH_INPUT_SHAPE_H_
#define SVDSERVE_TESTS_BENCH_INPUT_SHAPE_H_

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/plan/plan.h"

namespace svdserve {

struct InputShape {
  std::string name;
  std::vector<int> lengths;  // in tokens
  int sequences() const { return static_cast<int>(lengths.size()); }
  int tokens() const {
    return std::accumulate(lengths.begin(), lengths.end(), 0);
  }
  int longest() const { return *std::ranges::max_element(lengths); }
  BatchShape batch() const { return {sequences(), tokens(), longest()}; }
};

// BxS, B inputs of S tokens, or A+B+C..., one input of each length, which is
// named "N lengths". Null if `text` is neither.
inline std::optional<InputShape> ParseInputShape(const std::string& text) {
  InputShape shape = {.name = text};
  int sequences = 0;
  int length = 0;
  char end = 0;
  if (std::sscanf(text.c_str(), "%dx%d%c", &sequences, &length, &end) == 2) {
    shape.lengths.assign(std::max(sequences, 0), length);
  } else {
    for (const auto part : absl::StrSplit(text, '+')) {
      if (!absl::SimpleAtoi(part, &length)) return std::nullopt;
      shape.lengths.push_back(length);
    }
    shape.name = absl::StrCat(shape.sequences(), " lengths");
  }
  if (shape.lengths.empty() || *std::ranges::min_element(shape.lengths) < 1) {
    return std::nullopt;
  }
  return shape;
}

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_BENCH_INPUT_SHAPE_H_
