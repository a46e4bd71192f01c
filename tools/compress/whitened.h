// The matrix, and the factors of every rank, with the least output error.
//
// Given the moments of a matrix's inputs x and of the outputs t that it should
// give, finds W and b that minimise E |t - (x·W + b)|², and those of each rank.
// Closed form: with G = E xxᵀ = L·Lᵀ and C = E xtᵀ (about the means) the best
// matrix is W* = G⁻¹·C, and the best of rank r keeps the r largest singular
// directions of Lᵀ·W*; the bias b absorbs the means. Where t is what the dense
// matrix gives on the same inputs this is DRONE (NeurIPS 2021) and SVD-LLM
// (arXiv 2403.07378); where x went through matrices that are compressed
// already, it also makes good for what those lost, as far as x allows.
#ifndef SVDSERVE_TOOLS_COMPRESS_WHITENED_H_
#define SVDSERVE_TOOLS_COMPRESS_WHITENED_H_

#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model.h"
#include "kernels/team.h"
#include "tools/compress/linear_algebra.h"
#include "tools/compress/moments.h"

namespace svdserve {

// y = x·U·V + b; without V, y = x·U + b.
struct AffineMap {
  DoubleMatrix u;            // [in, rank], or [in, out]
  DoubleMatrix v;            // [rank, out], or empty
  std::vector<double> bias;  // [out]

  int in() const { return u.rows; }
  int out() const { return v.rows > 0 ? v.cols : u.cols; }
  int rank() const { return v.rows; }
};

struct WhitenedFit {
  DoubleMatrix best;             // W* [in, out]
  std::vector<double> energies;  // of the directions, descending
  DoubleMatrix left, right;      // [in, k], [k, out]; their product is W*
  std::vector<double> mean_x, mean_t;

  // The best of this rank; 0 means W* itself.
  AffineMap Truncate(int rank) const;
};

// What a sample says of how inputs vary together is believed the less the
// higher the shrinkage: other text varies otherwise (README.md).
inline constexpr double kShrinkage = 0.1;

// `prior` [in, out] is what W is where the inputs say nothing: G and C get a
// ridge that pulls towards it, on the diagonal a share `shrinkage` of each
// input's variance. If `metric` [out, out] is not null the error is measured as
// E eᵀ·metric·e instead, which changes the truncation.
absl::StatusOr<WhitenedFit> FitWhitened(const Moments& moments,
                                        const DoubleMatrix& prior,
                                        const DoubleMatrix* metric,
                                        kernels::Team& team,
                                        double shrinkage = kShrinkage);

// The same for a matrix on its own inputs, by what it gives: no moments [in,
// in] are needed. `outputs` are of x·w + b, `mean_x` [in] is of its inputs.
absl::StatusOr<WhitenedFit> FitOutputs(const DoubleMatrix& w,
                                       const std::vector<double>& mean_x,
                                       const Moments& outputs,
                                       kernels::Team& team);

// sqrt(E |t - map(x)|² / E |t - E t|²): 0 is exact, 1 is no better than the
// mean.
double RelativeOutputError(const Moments& moments, const AffineMap& map,
                           kernels::Team& team);

// The moments of x and x·w + b instead of t: what a dense matrix makes of the
// targets. `energy` is E |(t - E t)·w|², which these moments cannot tell.
Moments ThroughMatrix(const Moments& moments, const DoubleMatrix& w,
                      const std::vector<double>& bias, double energy,
                      kernels::Team& team);

// W [in, out] of a dense matrix, and its bias (zeros if it has none).
DoubleMatrix WeightOf(const Linear& linear);
std::vector<double> BiasOf(const Linear& linear);

// In single precision; √S in both factors. OUT_OF_RANGE if a value is not
// finite there.
absl::StatusOr<Linear> ToLinear(const AffineMap& map);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_WHITENED_H_
