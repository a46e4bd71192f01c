// What each matrix of an encoder loses at each rank, and what that does to the
// embedding.
#ifndef SVDSERVE_TOOLS_COMPRESS_PROFILE_H_
#define SVDSERVE_TOOLS_COMPRESS_PROFILE_H_

#include <array>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model.h"
#include "kernels/team.h"
#include "tools/compress/rank_allocation.h"
#include "tools/forward/forward.h"

namespace svdserve {

struct LossCurve {
  // Share of the output's energy that is lost at each rank (of a matrix) or
  // width (of heads), from 0 on.
  std::vector<double> lost;
  // Embedding error per share: measured with this matrix alone compressed.
  double weight = 0;

  double At(int rank) const { return rank == 0 ? 0 : weight * lost[rank]; }
};

struct LayerProfile {
  std::array<LossCurve, kMatrixKinds> matrices;
  LossCurve query_key, value_output;  // by width of the heads; else empty
};

// Runs the dense encoder over `calibration`. Each matrix is then replaced, by
// itself, by factors of about half its parameters, and the embeddings of
// `sample` are compared: losses are taken as additive and proportional to the
// energy that is lost. `heads` says whether heads are narrowed, too. After each
// layer `done` is called, which returns false to stop: CANCELLED.
absl::StatusOr<std::vector<LayerProfile>> ProfileEncoder(
    const Model& model, const std::vector<TokenBatch>& calibration,
    const TokenBatch& sample, bool heads,
    const std::function<bool(int layer)>& done, kernels::Team& team);

// The mean over rows of 1 - cosine; both [rows, width].
double MeanCosineError(const FloatMatrix& a, const FloatMatrix& b);

// The width to which heads are narrowed by half, a multiple of 16; 0 if heads
// are too narrow for that.
int HalfHeadDim(int head_dim);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_PROFILE_H_
