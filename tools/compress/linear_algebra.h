// Double-precision matrices on BLAS and LAPACK.
//
// Each BLAS call runs on one thread: parallel work is cut into tiles of fixed
// size, so that the bits do not depend on the number of threads.
#ifndef SVDSERVE_TOOLS_COMPRESS_LINEAR_ALGEBRA_H_
#define SVDSERVE_TOOLS_COMPRESS_LINEAR_ALGEBRA_H_

#include <cstddef>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/team.h"

namespace svdserve {

// Row-major.
struct DoubleMatrix {
  int rows = 0;
  int cols = 0;
  std::vector<double> values;  // [rows, cols]

  DoubleMatrix() = default;
  DoubleMatrix(int r, int c)
      : rows(r), cols(c), values(static_cast<size_t>(r) * c) {}
  double* row(int i) { return values.data() + static_cast<size_t>(i) * cols; }
  const double* row(int i) const {
    return values.data() + static_cast<size_t>(i) * cols;
  }
};

// Tells a LAPACK with threads of its own (OpenBLAS) not to use them. Call once
// before the first use of it.
void KeepLapackSingleThreaded();

enum class Transpose { kNo, kYes };

// op(a)·op(b), on the whole team.
DoubleMatrix Multiply(const DoubleMatrix& a, Transpose transpose_a,
                      const DoubleMatrix& b, Transpose transpose_b,
                      kernels::Team& team);

DoubleMatrix Transposed(const DoubleMatrix& a);

// The block of `a` that starts at (row, col).
DoubleMatrix Block(const DoubleMatrix& a, int row, int col, int rows, int cols);

double Trace(const DoubleMatrix& a);

// a = vectors·diag(values)·vectorsᵀ, values descending; a is symmetric.
// INTERNAL if LAPACK's dsyevd fails.
struct Eigen {
  std::vector<double> values;
  DoubleMatrix vectors;  // [n, n], one in each column
};
absl::StatusOr<Eigen> SymmetricEigen(DoubleMatrix a);

// The lower L of a = L·Lᵀ, zeros above. INVALID_ARGUMENT if `a` is not
// positive definite.
absl::StatusOr<DoubleMatrix> Cholesky(DoubleMatrix a);

// b = L⁻¹·b or L⁻ᵀ·b.
void SolveLower(const DoubleMatrix& lower, Transpose transpose, DoubleMatrix* b,
                kernels::Team& team);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_LINEAR_ALGEBRA_H_
