// The golden models: small random checkpoints and what Hugging Face computes
// with them in float64. generate.py writes them. Paths are relative to the
// repository's root, where tests run.
//
//   for (const std::string& name : GoldenModelNames()) {
//     GoldenModel golden = ReadGoldenModel(name);  // aborts if it is damaged
//     auto model = LoadModel(golden.directory);
#ifndef SVDSERVE_TESTS_GOLDEN_GOLDEN_H_
#define SVDSERVE_TESTS_GOLDEN_GOLDEN_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace svdserve {

struct GoldenInput {
  std::vector<int32_t> ids;
  std::vector<uint8_t> type_ids;
  // The embedding, normalised if the model has a Normalize module; or logits.
  std::vector<double> output;
  // Where the ids come from, or "" if they are random.
  std::string text;
  std::optional<std::string> pair;
  std::string prompt;  // name of a prompt of the model, or "": it has none
};

struct GoldenModel {
  std::string name;
  std::string directory;
  std::vector<GoldenInput> inputs;
};

// Sorted.
std::vector<std::string> GoldenModelNames();
GoldenModel ReadGoldenModel(const std::string& name);

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_GOLDEN_GOLDEN_H_
