// A model in, a smaller model out: matrices of the encoder are replaced by two
// factors, or its attention heads by narrower ones. Embeddings, norms and heads
// of tasks stay as they are.
//
//   CompressOptions options{.input = "minilm", .output = "minilm-r50"};
//   absl::StatusOr<CompressionReport> report = CompressModel(options);
#ifndef SVDSERVE_TOOLS_COMPRESS_COMPRESS_H_
#define SVDSERVE_TOOLS_COMPRESS_COMPRESS_H_

#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "engine/model/tensor.h"
#include "tools/compress/budget.h"
#include "tools/compress/calibration.h"
#include "tools/compress/report.h"

namespace svdserve {

struct CompressOptions {
  std::string input;   // a model's directory
  std::string output;  // appears complete or not at all
  double ratio = 0.5;  // of the encoder's weight-matrix parameters, to keep
  // "auto", "whitened", "component" or "svd": README.md says what each does.
  // "svd" takes a ratio only, and no calibration.
  std::string method = "auto";
  std::optional<Budget> budget = std::nullopt;  // in place of the ratio
  // Tokens: 0 for as many as suit the model's size.
  CalibrationOptions calibration = {.path = "", .tokens = 0, .seed = 1};
  std::optional<DType> dtype = std::nullopt;  // default: as in the input
  bool force = false;                         // replace a model at `output`
  int threads = 0;                            // 0: one per processor
  // With the share of the work that is done; one call at a time, from any
  // thread. Returns false to stop: CompressModel() then removes what it wrote
  // and returns CANCELLED.
  std::function<bool(double share_done)> progress = nullptr;
};

// Reads `input` whole, compresses its matrices, and writes `output`: the
// weights, copies of the configuration and tokenizer files, and
// compression.json. FAILED_PRECONDITION if the input is compressed already.
absl::StatusOr<CompressionReport> CompressModel(const CompressOptions& options);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_COMPRESS_H_
