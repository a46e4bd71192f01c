// Compresses an encoder layer after layer.
//
// Every matrix is fitted to what the dense one gives in the dense encoder, on
// what it reads in the compressed one: behind the layers, and the matrices of
// its own layer, that are compressed already. So each makes good, as far as its
// inputs allow, for what those before it lost; the last matrix of each half of
// a layer also for what the residual stream lost.
#ifndef SVDSERVE_TOOLS_COMPRESS_ENCODER_COMPRESSION_H_
#define SVDSERVE_TOOLS_COMPRESS_ENCODER_COMPRESSION_H_

#include <array>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model.h"
#include "kernels/team.h"
#include "tools/compress/layer_form.h"
#include "tools/forward/forward.h"

namespace svdserve {

struct CompressedLayer {
  EncoderLayer layer;
  // Of each matrix on the calibration text, see RelativeOutputError(). Those of
  // narrower heads: the share of the energy that the heads' products lose, its
  // root.
  std::array<double, kMatrixKinds> output_errors{};
};

// After each layer; returns false to stop.
using LayerDone = std::function<bool(int layer)>;

// `forms` [layers]. CANCELLED if `done` says so. The result does not depend on
// the size of the team.
absl::StatusOr<std::vector<CompressedLayer>> CompressEncoder(
    const Model& model, const std::vector<LayerForm>& forms,
    const std::vector<TokenBatch>& calibration, const LayerDone& done,
    kernels::Team& team);

// Of each sequence, 1 - the cosine between the pooled rows of both encoders;
// `layers` replace those of the model.
absl::StatusOr<std::vector<double>> EmbeddingErrors(
    const Model& model, const std::vector<CompressedLayer>& layers,
    const std::vector<TokenBatch>& batches, kernels::Team& team);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_ENCODER_COMPRESSION_H_
