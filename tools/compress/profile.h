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
  // The embedding error with this matrix alone compressed: scale·lost^power.
  double scale = 0;
  double power = 1;

  // 0, the dense matrix, loses nothing.
  double At(int rank) const;
};

// The embedding error at a rank.
struct MeasuredError {
  int rank = 0;
  double error = 0;
};

// Lays the curve through one or two measurements.
void FitCurve(const std::vector<MeasuredError>& measured, LossCurve* curve);

struct LayerProfile {
  std::array<LossCurve, kMatrixKinds> matrices;
  LossCurve query_key, value_output;  // by width of the heads; else empty
};

// Runs the dense encoder over `calibration`. Each matrix is then replaced, by
// itself, by factors of about half and of a quarter of its parameters, and the
// embeddings of `sample` are compared: losses are taken as additive, each a
// power of the share of the energy that is lost. `heads` says whether heads are
// narrowed, too. After each layer `done` is called, which returns false to
// stop: CANCELLED.
absl::StatusOr<std::vector<LayerProfile>> ProfileEncoder(
    const Model& model, const std::vector<TokenBatch>& calibration,
    const TokenBatch& sample, bool heads,
    const std::function<bool(int layer)>& done, kernels::Team& team);

// 1 - the cosine of rows `i`; both [rows, width].
double CosineError(const FloatMatrix& a, const FloatMatrix& b, int i);

// How often a layer's profile runs the rest of the encoder, at most.
inline constexpr int kMeasurementsPerLayer = 16;

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_PROFILE_H_
