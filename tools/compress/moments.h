// Second moments of what a matrix reads and of what it should give.
//
//   MomentsSum sum(in, out);
//   for (...) sum.Add(inputs, targets, team);
//   const Moments moments = std::move(sum).Finish();
#ifndef SVDSERVE_TOOLS_COMPRESS_MOMENTS_H_
#define SVDSERVE_TOOLS_COMPRESS_MOMENTS_H_

#include <cstdint>
#include <vector>

#include "kernels/team.h"
#include "tools/compress/linear_algebra.h"
#include "tools/forward/float_matrix.h"

namespace svdserve {

// About the means, per row.
struct Moments {
  std::vector<double> mean_x;  // [in]
  std::vector<double> mean_t;  // [out]
  DoubleMatrix xx;             // [in, in]  E (x - mean)(x - mean)ᵀ
  DoubleMatrix xt;             // [in, out] E (x - mean)(t - mean)ᵀ
  double tt = 0;               // E |t - mean|²
};

// Sums in double precision, in the order of the rows, whatever the team.
class MomentsSum {
 public:
  MomentsSum(int in, int out);
  // x [rows, in], t [rows, out].
  void Add(const FloatMatrix& x, const FloatMatrix& t, kernels::Team& team);
  // x with itself: then xt is xx.
  void Add(const FloatMatrix& x, kernels::Team& team);
  int64_t rows() const { return rows_; }
  Moments Finish() &&;

 private:
  void AddInputs(const DoubleMatrix& x, kernels::Team& team);
  void AddTargets(const DoubleMatrix& x, const DoubleMatrix& t,
                  kernels::Team& team);

  int64_t rows_ = 0;
  bool with_itself_ = false;
  Moments sums_;  // not yet divided
};

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_MOMENTS_H_
