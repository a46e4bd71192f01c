// Truncated SVD by LAPACK's divide and conquer (gesdd) in double precision: the
// singular values give the error exactly, and it costs less than twice single
// precision.
#include <lapacke.h>

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tools/compress/linear_algebra.h"
#include "tools/compress/method.h"

namespace svdserve {
namespace {

// W = U·diag(s)·Vt, column-major, k = min(in, out).
struct Decomposition {
  int k = 0;
  std::vector<double> u;   // [in, k]
  std::vector<double> s;   // [k], descending
  std::vector<double> vt;  // [k, out]
};

absl::StatusOr<Decomposition> Decompose(const DenseMatrix& matrix) {
  const int in = matrix.in;
  const int out = matrix.out;
  Decomposition d;
  d.k = std::min(in, out);
  d.u.resize(static_cast<size_t>(in) * d.k);
  d.s.resize(d.k);
  d.vt.resize(static_cast<size_t>(d.k) * out);
  // Row-major [out, in] is column-major [in, out]: W as it is.
  std::vector<double> w(matrix.values.begin(), matrix.values.end());
  const int info = LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'S', in, out, w.data(), in,
                                  d.s.data(), d.u.data(), in, d.vt.data(), d.k);
  if (info != 0) {
    return absl::InternalError(
        absl::StrCat(matrix.name, ": LAPACK's dgesdd failed with code ", info));
  }
  return d;
}

// The norm of the singular values that were cut off, over the norm of all.
double TailError(const std::vector<double>& s, int rank) {
  double tail = 0;
  double all = 0;
  for (int i = static_cast<int>(s.size()) - 1; i >= 0; --i) {
    all += s[i] * s[i];
    if (i >= rank) tail += s[i] * s[i];
  }
  return all == 0 ? 0 : std::sqrt(tail / all);
}

// U·sqrt(S) and sqrt(S)·V: both factors have the same norm, so that neither
// loses more than the other to a narrow type.
Factors Truncate(const DenseMatrix& matrix, const Decomposition& d, int rank) {
  Factors f;
  f.rank = rank;
  f.relative_error = TailError(d.s, rank);
  f.u.resize(static_cast<size_t>(matrix.in) * rank);
  f.v.resize(static_cast<size_t>(rank) * matrix.out);
  for (int r = 0; r < rank; ++r) {
    const double root = std::sqrt(d.s[r]);
    const double* column = &d.u[static_cast<size_t>(r) * matrix.in];
    for (int i = 0; i < matrix.in; ++i) {
      f.u[static_cast<size_t>(i) * rank + r] = column[i] * root;
    }
    float* row = &f.v[static_cast<size_t>(r) * matrix.out];
    for (int j = 0; j < matrix.out; ++j) {
      row[j] = d.vt[static_cast<size_t>(j) * d.k + r] * root;
    }
  }
  return f;
}

class SvdMethod : public Method {
 public:
  SvdMethod() { KeepLapackSingleThreaded(); }
  std::string_view name() const override { return "svd"; }
  absl::StatusOr<Factors> Factor(const DenseMatrix& matrix,
                                 int rank) const override {
    absl::StatusOr<Decomposition> d = Decompose(matrix);
    if (!d.ok()) return d.status();
    return Truncate(matrix, *d, rank);
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<Method>> MakeMethod(std::string_view name) {
  if (name == "svd") return std::make_unique<SvdMethod>();
  return absl::InvalidArgumentError(absl::StrCat("method \"", std::string(name),
                                                 "\" is unknown; known: svd"));
}

}  // namespace svdserve
