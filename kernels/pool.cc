#include "kernels/pool.h"

#include <algorithm>
#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/pool.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
// After foreach_target.h:
#include <hwy/highway.h>

#include "kernels/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace svdserve::kernels::HWY_NAMESPACE {

// NaN in either operand gives NaN.
HWY_INLINE VF32 MaxOrNan(VF32 a, VF32 b) {
  return hn::IfThenElse(hn::Or(hn::IsNaN(a), hn::Gt(a, b)), a, b);
}

template <PoolKind kKind>
HWY_INLINE VF32 Combine(VF32 a, VF32 b) {
  if constexpr (kKind == PoolKind::kMax) return MaxOrNan(a, b);
  return hn::Add(a, b);
}

// Rows outside, columns inside: x is read once, in order, and y stays in L1.
template <PoolKind kKind, typename T>
void PoolRows(const PoolParams& p) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  const size_t width = p.width;
  const T* x = static_cast<const T*>(p.x);
  const int rows = kKind == PoolKind::kCls ? 1 : p.rows;
  std::fill_n(p.y, width, 0.0f);
  for (int i = 0; i < rows; ++i, x += p.x_stride) {
    size_t j = 0;
    for (; j + lanes <= width; j += lanes) {
      VF32 v = LoadAsFloat(d, x + j);
      if (i > 0) v = Combine<kKind>(hn::LoadU(d, p.y + j), v);
      hn::StoreU(v, d, p.y + j);
    }
    if (j == width) continue;
    const size_t rest = width - j;
    VF32 v = LoadSome(d, x + j, rest);
    if (i > 0) v = Combine<kKind>(LoadSome(d, p.y + j, rest), v);
    StoreSome(d, v, p.y + j, rest);
  }
}

template <typename T>
void PoolByKind(const PoolParams& p) {
  switch (p.kind) {
    case PoolKind::kMean: {
      PoolRows<PoolKind::kMean, T>(p);
      const float rows = static_cast<float>(p.rows);
      for (int j = 0; j < p.width; ++j) p.y[j] /= rows;
      return;
    }
    case PoolKind::kCls:
      return PoolRows<PoolKind::kCls, T>(p);
    case PoolKind::kMax:
      return PoolRows<PoolKind::kMax, T>(p);
  }
}

void PoolImpl(const PoolParams& p) {
  p.type == DataType::kF32 ? PoolByKind<float>(p) : PoolByKind<uint16_t>(p);
}

}  // namespace svdserve::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace svdserve::kernels {

HWY_EXPORT(PoolImpl);

KernelStatus Pool(const PoolParams& params) {
  if (params.rows < 1 || params.width < 1 || params.x == nullptr ||
      params.y == nullptr) {
    return KernelStatus::kInvalidArgument;
  }
  HWY_DYNAMIC_DISPATCH(PoolImpl)(params);
  return KernelStatus::kOk;
}

}  // namespace svdserve::kernels
#endif  // HWY_ONCE
