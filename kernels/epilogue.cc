#include "kernels/epilogue.h"

#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/epilogue.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
// After foreach_target.h:
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "kernels/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace svdserve::kernels::HWY_NAMESPACE {

template <Activation kActivation>
HWY_INLINE VF32 Activate(F32 d, VF32 x) {
  if constexpr (kActivation == Activation::kGelu) {
    return Gelu(d, x);
  } else if constexpr (kActivation == Activation::kGeluTanh) {
    return GeluTanh(d, x);
  } else if constexpr (kActivation == Activation::kRelu) {
    // Not Max(): NaN must not become zero.
    return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(d)), x);
  } else if constexpr (kActivation == Activation::kTanh) {
    // Highway's clamps, and may lose NaN on the way: adding 0 * x keeps it.
    return hn::IfThenElse(hn::IsNaN(x), x, hn::Tanh(d, x));
  } else {
    return x;
  }
}

template <Activation kActivation, typename Y>
void EpilogueRow(const EpilogueParams& p, const float* HWY_RESTRICT c,
                 Y* HWY_RESTRICT y) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  const size_t columns = p.columns;
  size_t j = 0;
  for (; j + lanes <= columns; j += lanes) {
    VF32 v = hn::LoadU(d, c + j);
    if (p.bias != nullptr) v = hn::Add(v, hn::LoadU(d, p.bias + j));
    v = Activate<kActivation>(d, v);
    if (p.accumulate) v = hn::Add(v, LoadAsFloat(d, y + j));
    StoreFromFloat(d, v, y + j);
  }
  if (j == columns) return;
  const size_t rest = columns - j;
  VF32 v = LoadSome(d, c + j, rest);
  if (p.bias != nullptr) v = hn::Add(v, LoadSome(d, p.bias + j, rest));
  v = Activate<kActivation>(d, v);
  if (p.accumulate) v = hn::Add(v, LoadSome(d, y + j, rest));
  StoreSome(d, v, y + j, rest);
}

template <Activation kActivation>
void EpilogueRows(const EpilogueParams& p) {
  for (int i = 0; i < p.rows; ++i) {
    const float* c = p.c + i * p.c_stride;
    if (p.y_type == DataType::kF32) {
      EpilogueRow<kActivation>(p, c, static_cast<float*>(p.y) + i * p.y_stride);
    } else {
      EpilogueRow<kActivation>(p, c,
                               static_cast<uint16_t*>(p.y) + i * p.y_stride);
    }
  }
}

void EpilogueImpl(const EpilogueParams& p) {
  switch (p.activation) {
    case Activation::kNone:
      return EpilogueRows<Activation::kNone>(p);
    case Activation::kGelu:
      return EpilogueRows<Activation::kGelu>(p);
    case Activation::kGeluTanh:
      return EpilogueRows<Activation::kGeluTanh>(p);
    case Activation::kRelu:
      return EpilogueRows<Activation::kRelu>(p);
    case Activation::kTanh:
      return EpilogueRows<Activation::kTanh>(p);
  }
}

}  // namespace svdserve::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace svdserve::kernels {

HWY_EXPORT(EpilogueImpl);

KernelStatus Epilogue(const EpilogueParams& params) {
  if (params.rows < 0 || params.columns < 1 || params.c == nullptr ||
      params.y == nullptr || params.c_stride < params.columns ||
      params.y_stride < params.columns) {
    return KernelStatus::kInvalidArgument;
  }
  HWY_DYNAMIC_DISPATCH(EpilogueImpl)(params);
  return KernelStatus::kOk;
}

}  // namespace svdserve::kernels
#endif  // HWY_ONCE
