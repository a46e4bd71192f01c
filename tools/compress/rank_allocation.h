// Which rank each matrix of an encoder gets.
//
// Pure functions of sizes: the ranks are known, and printed, before the first
// decomposition. All layers get the same rank for the same kind of matrix, so
// that every layer runs by the same plan.
#ifndef SVDSERVE_TOOLS_COMPRESS_RANK_ALLOCATION_H_
#define SVDSERVE_TOOLS_COMPRESS_RANK_ALLOCATION_H_

#include <array>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace svdserve {

// The matrices of one encoder layer, in the order in which they run.
enum class MatrixKind {
  kQuery,
  kKey,
  kValue,
  kAttentionOutput,
  kFfnIn,
  kFfnOut,
};
inline constexpr int kMatrixKinds = 6;

struct MatrixSize {
  int64_t in = 0;
  int64_t out = 0;
  int64_t dense_parameters() const { return in * out; }
  // Parameters of U [in, rank] and V [rank, out]; rank 0 means dense.
  int64_t parameters(int rank) const {
    return rank == 0 ? dense_parameters() : rank * (in + out);
  }
};

using LayerSizes = std::array<MatrixSize, kMatrixKinds>;  // by MatrixKind
using KindRanks = std::array<int, kMatrixKinds>;          // 0: stays dense

// INVALID_ARGUMENT if `ratio` is not above 0 and below 1.
absl::Status CheckRatio(double ratio);

// Ranks that are multiples of 16 (or 8 where 16 is too much) and leave at most
// `ratio` of a layer's weight-matrix parameters. Each kind gets nearly the same
// share; a kind stays dense once its factors would be no smaller. Fails if
// `ratio` is out of range or too small for rank 8 everywhere.
absl::StatusOr<KindRanks> AllocateRanks(const LayerSizes& sizes, double ratio);

// Parameters of one layer's matrices, without biases.
int64_t LayerParameters(const LayerSizes& sizes, const KindRanks& ranks);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_RANK_ALLOCATION_H_
