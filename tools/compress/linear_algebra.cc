#include "tools/compress/linear_algebra.h"

#include <cblas.h>
#include <dlfcn.h>
#include <lapacke.h>

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace svdserve {
namespace {

// Columns of a result that one thread computes at a time.
constexpr int kTile = 128;

CBLAS_TRANSPOSE ToBlas(Transpose transpose) {
  return transpose == Transpose::kYes ? CblasTrans : CblasNoTrans;
}

// fn(first, width) for each tile of `columns`.
template <typename Fn>
void ForTiles(int columns, kernels::Team& team, Fn&& fn) {
  team.ParallelFor((columns + kTile - 1) / kTile, [&](int, int tile) {
    fn(tile * kTile, std::min(kTile, columns - tile * kTile));
  });
}

}  // namespace

// Only OpenBLAS has threads of its own, and it may not be the library that is
// installed: reference LAPACK has no such function, and needs none.
void KeepLapackSingleThreaded() {
  using SetNumThreads = void (*)(int);
  if (void* found = dlsym(RTLD_DEFAULT, "openblas_set_num_threads")) {
    reinterpret_cast<SetNumThreads>(found)(1);
  }
}

DoubleMatrix Multiply(const DoubleMatrix& a, Transpose transpose_a,
                      const DoubleMatrix& b, Transpose transpose_b,
                      kernels::Team& team) {
  const bool ta = transpose_a == Transpose::kYes;
  const bool tb = transpose_b == Transpose::kYes;
  DoubleMatrix c(ta ? a.cols : a.rows, tb ? b.rows : b.cols);
  const int inner = ta ? a.rows : a.cols;
  ForTiles(c.cols, team, [&](int first, int width) {
    cblas_dgemm(CblasRowMajor, ToBlas(transpose_a), ToBlas(transpose_b), c.rows,
                width, inner, 1, a.values.data(), a.cols,
                tb ? b.row(first) : b.values.data() + first, b.cols, 0,
                c.values.data() + first, c.cols);
  });
  return c;
}

DoubleMatrix Transposed(const DoubleMatrix& a) {
  DoubleMatrix t(a.cols, a.rows);
  for (int i = 0; i < a.rows; ++i) {
    for (int j = 0; j < a.cols; ++j) t.row(j)[i] = a.row(i)[j];
  }
  return t;
}

DoubleMatrix Block(const DoubleMatrix& a, int row, int col, int rows,
                   int cols) {
  DoubleMatrix block(rows, cols);
  for (int i = 0; i < rows; ++i) {
    std::copy_n(a.row(row + i) + col, cols, block.row(i));
  }
  return block;
}

double Trace(const DoubleMatrix& a) {
  double sum = 0;
  for (int i = 0; i < a.rows; ++i) sum += a.row(i)[i];
  return sum;
}

absl::StatusOr<Eigen> SymmetricEigen(DoubleMatrix a) {
  const int n = a.rows;
  std::vector<double> ascending(n);
  // A symmetric matrix is its own transpose; the vectors come as rows of ours.
  const int info = LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'V', 'L', n,
                                  a.values.data(), n, ascending.data());
  if (info != 0) {
    return absl::InternalError(
        absl::StrCat("LAPACK's dsyevd failed with code ", info));
  }
  Eigen eigen;
  eigen.values.assign(ascending.rbegin(), ascending.rend());
  eigen.vectors = DoubleMatrix(n, n);
  for (int r = 0; r < n; ++r) {
    const double* vector = a.row(n - 1 - r);
    for (int i = 0; i < n; ++i) eigen.vectors.row(i)[r] = vector[i];
  }
  return eigen;
}

absl::StatusOr<DoubleMatrix> Cholesky(DoubleMatrix a) {
  const int n = a.rows;
  // Its upper triangle by columns is our lower one by rows.
  const int info = LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'U', n, a.values.data(), n);
  if (info != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a matrix of second moments is not positive definite (LAPACK's dpotrf: "
        "code ",
        info, ")"));
  }
  for (int i = 0; i < n; ++i) {
    std::fill(a.row(i) + i + 1, a.row(i) + n, 0.0);
  }
  return a;
}

void SolveLower(const DoubleMatrix& lower, Transpose transpose, DoubleMatrix* b,
                kernels::Team& team) {
  ForTiles(b->cols, team, [&](int first, int width) {
    cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, ToBlas(transpose),
                CblasNonUnit, lower.rows, width, 1, lower.values.data(),
                lower.cols, b->values.data() + first, b->cols);
  });
}

}  // namespace svdserve
