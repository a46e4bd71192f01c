// What an error in the outputs of a matrix does to the next product: metrics
// [out, out] for FitWhitened().
#ifndef SVDSERVE_TOOLS_COMPRESS_METRICS_H_
#define SVDSERVE_TOOLS_COMPRESS_METRICS_H_

#include "absl/status/statusor.h"
#include "engine/model/model.h"
#include "kernels/team.h"
#include "tools/compress/linear_algebra.h"
#include "tools/compress/moments.h"
#include "tools/forward/forward.h"

namespace svdserve {

// Block-diagonal, a block a head. An error e in a query changes its scores by
// e·k: E (e·k)² = eᵀ·Cov(k)·e. The keys' mean cancels in the softmax.
DoubleMatrix QueryMetric(const Moments& inputs, const EncoderLayer& layer,
                         int heads, kernels::Team& team);
// An error in a key: eᵀ·E(qqᵀ)·e.
DoubleMatrix KeyMetric(const Moments& inputs, const EncoderLayer& layer,
                       int heads, kernels::Team& team);
// An error in a value passes the head's rows O of attention's output matrix:
// eᵀ·OOᵀ·e.
DoubleMatrix ValueMetric(const EncoderLayer& layer, int heads,
                         kernels::Team& team);
// An error before the activation passes its slope and the second matrix W of
// the feed-forward: E(slope·slopeᵀ) ∘ WWᵀ, with slopes over `inputs`.
absl::StatusOr<DoubleMatrix> FfnInMetric(const ModelShape& shape,
                                         const EncoderLayer& layer,
                                         const FloatMatrix& inputs,
                                         kernels::Team& team);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_METRICS_H_
