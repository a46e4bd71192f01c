// Calibration text as token batches of bounded size.
#ifndef SVDSERVE_TOOLS_COMPRESS_CALIBRATION_H_
#define SVDSERVE_TOOLS_COMPRESS_CALIBRATION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model.h"
#include "tools/forward/forward.h"

namespace svdserve {

struct CalibrationOptions {
  std::string path;    // as ReadCalibrationText()
  int tokens = 32768;  // to fit with; at least kFewestTokens
  uint64_t seed = 1;
};

// Fewer tokens than this cannot tell how a model's inputs vary.
inline constexpr int kFewestTokens = 1000;

struct Calibration {
  std::string source;
  std::vector<TokenBatch> fit;       // what the factors are fitted to
  std::vector<TokenBatch> held_out;  // every eighth text: never fitted to
  std::vector<std::string> held_out_texts;

  int fit_tokens() const;
  int held_out_tokens() const;
};

// Tokenizes a seeded sample of the text with the tokenizer of the model in
// `directory`; texts are cut where the model's longest input ends.
// INVALID_ARGUMENT if there is too little text.
absl::StatusOr<Calibration> LoadCalibration(const std::string& directory,
                                            const Model& model,
                                            const CalibrationOptions& options);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_CALIBRATION_H_
