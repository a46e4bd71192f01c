// LayerNorm of one row that is given as a function, for the kernels that end in
// one. Include like vector_math-inl.h.
#if defined(SVDSERVE_KERNELS_LAYER_NORM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SVDSERVE_KERNELS_LAYER_NORM_INL_H_
#undef SVDSERVE_KERNELS_LAYER_NORM_INL_H_
#else
#define SVDSERVE_KERNELS_LAYER_NORM_INL_H_
#endif

#include <hwy/highway.h>

#include <cmath>
#include <cstddef>

#include "kernels/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace svdserve::kernels::HWY_NAMESPACE {

// Sum of term(z[j]) over the row, in two chains of lanes.
template <typename Row, typename Term>
HWY_INLINE float SumOfRow(const Row& row, size_t width, Term term) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  VF32 even = hn::Zero(d);
  VF32 odd = hn::Zero(d);
  size_t j = 0;
  for (; j + 2 * lanes <= width; j += 2 * lanes) {
    even = hn::Add(even, term(row(d, j)));
    odd = hn::Add(odd, term(row(d, j + lanes)));
  }
  for (; j + lanes <= width; j += lanes) even = hn::Add(even, term(row(d, j)));
  if (j < width) {
    const auto inside = hn::FirstN(d, width - j);
    odd = hn::Add(odd,
                  hn::IfThenElseZero(inside, term(row.Some(d, j, width - j))));
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(even, odd)));
}

// y = gamma * (z - mean) / sqrt(variance + eps) + beta. `row(d, j)` gives the
// vector of z at column j. The row is read three times rather than kept: it
// lies in L1, and y may be where z is, for each vector is read before it is
// written.
template <typename Row, typename Y>
HWY_INLINE void NormalizeRow(const Row& row, size_t width, const float* gamma,
                             const float* beta, float eps, Y* y) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  const float sum = SumOfRow(row, width, [](VF32 z) { return z; });
  const VF32 mean = hn::Set(d, sum / static_cast<float>(width));
  const float squares = SumOfRow(row, width, [mean](VF32 z) {
    const VF32 centered = hn::Sub(z, mean);
    return hn::Mul(centered, centered);
  });
  const float variance = squares / static_cast<float>(width);
  const VF32 scale = hn::Set(d, 1.0f / std::sqrt(variance + eps));
  const auto finish = [&](VF32 z, VF32 g, VF32 b) {
    return hn::MulAdd(hn::Mul(hn::Sub(z, mean), scale), g, b);
  };
  size_t j = 0;
  for (; j + lanes <= width; j += lanes) {
    const VF32 v =
        finish(row(d, j), hn::LoadU(d, gamma + j), hn::LoadU(d, beta + j));
    StoreFromFloat(d, v, y + j);
  }
  if (j == width) return;
  const size_t rest = width - j;
  const VF32 v = finish(row.Some(d, j, rest), LoadSome(d, gamma + j, rest),
                        LoadSome(d, beta + j, rest));
  StoreSome(d, v, y + j, rest);
}

}  // namespace svdserve::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SVDSERVE_KERNELS_LAYER_NORM_INL_H_
