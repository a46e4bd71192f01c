// Narrower heads: A³ (arXiv 2505.12942) for encoders, in closed form.
//
// Within a head attention uses only the products query·keyᵀ and value·output.
// Without rotary positions lies nothing between their factors, so the best
// product of a lower rank is that of a narrower head.
#ifndef SVDSERVE_TOOLS_COMPRESS_HEAD_REDUCTION_H_
#define SVDSERVE_TOOLS_COMPRESS_HEAD_REDUCTION_H_

#include <vector>

#include "absl/status/statusor.h"
#include "kernels/team.h"
#include "tools/compress/linear_algebra.h"
#include "tools/compress/moments.h"
#include "tools/compress/whitened.h"

namespace svdserve {

// Heads whose product is query·keyᵀ. For independent queries q and keys k with
// second moments E qqᵀ = Lq·Lqᵀ and Cov k = Lk·Lkᵀ, the error E |q·(I -
// ABᵀ)·k|² is least where ABᵀ keeps the largest singular directions of Lqᵀ·Lk.
// The means of keys do not count: they add the same to all scores of a query.
class QueryKeyReduction {
 public:
  // query and key: dense maps [hidden, heads * head_dim] of inputs with these
  // moments. Both must outlive the reduction.
  static absl::StatusOr<QueryKeyReduction> Create(const Moments& inputs,
                                                  const AffineMap& query,
                                                  const AffineMap& key,
                                                  int heads,
                                                  kernels::Team& team);
  // Of the scores' energy, in all heads, the share that is lost with heads of
  // each width: [0, head_dim].
  std::vector<double> LostByWidth() const;
  // Maps to heads * width. The key's bias cancels in the softmax and is zero.
  void Reduce(int width, AffineMap* query, AffineMap* key) const;

 private:
  struct Head {
    std::vector<double> energies;
    DoubleMatrix query, key;  // [head_dim, head_dim]: A and B of full width
  };
  const AffineMap* query_ = nullptr;
  const AffineMap* key_ = nullptr;
  std::vector<Head> heads_;
};

// Heads whose product is value·output: the context of a head with moments G =
// L·Lᵀ passes the output matrix W, and the best narrower head keeps the largest
// singular directions of Lᵀ·W.
class ValueOutputReduction {
 public:
  // `context` are moments of all heads' contexts [heads * head_dim] and of what
  // attention's output should be; `prior` is the dense output matrix.
  static absl::StatusOr<ValueOutputReduction> Create(const Moments& context,
                                                     const DoubleMatrix& prior,
                                                     int heads,
                                                     kernels::Team& team);
  // Of the heads' outputs' energy, the share that is lost by each width.
  std::vector<double> LostByWidth() const;
  // `value`, a dense map [hidden, heads * head_dim], becomes [hidden, heads *
  // width], and `output` the best map of the narrower contexts.
  absl::Status Reduce(int width, kernels::Team& team, AffineMap* value,
                      AffineMap* output) const;

 private:
  struct Head {
    std::vector<double> energies;
    DoubleMatrix narrow;  // [head_dim, head_dim]: context to narrow context
    DoubleMatrix widen;   // [head_dim, head_dim]: its inverse
  };
  const Moments* context_ = nullptr;
  const DoubleMatrix* prior_ = nullptr;
  std::vector<Head> heads_;
};

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_HEAD_REDUCTION_H_
