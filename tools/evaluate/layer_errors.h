// Where in the encoder a compressed model leaves the dense one: the states
// after each layer, side by side.
#ifndef SVDSERVE_TOOLS_EVALUATE_LAYER_ERRORS_H_
#define SVDSERVE_TOOLS_EVALUATE_LAYER_ERRORS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model_shape.h"
#include "tools/evaluate/model_runner.h"
#include "tools/forward/float_matrix.h"
#include "tools/forward/forward.h"

namespace svdserve {

// Texts whose states are compared: a seeded sample, so that the dense model's
// states of all layers stay within 256 MiB.
struct LayerSample {
  TokenBatch batch;
  std::vector<FloatMatrix> dense;  // [layers + 1] of [tokens, hidden]
};
// Runs the dense model layer by layer, each on `threads` threads.
absl::StatusOr<LayerSample> MakeLayerSample(const std::string& dense,
                                            const ModelShape& shape,
                                            const TokenizedTexts& texts,
                                            int threads, uint64_t seed);

// Relative root mean square of (dense - compressed) after the embeddings and
// after each layer, [layers + 1]; each model runs on its own states. None where
// the dense model's states are all zero and the other's are not.
absl::StatusOr<std::vector<std::optional<double>>> LayerErrors(
    const LayerSample& sample, const std::string& compressed, int threads);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_EVALUATE_LAYER_ERRORS_H_
