#include "kernels/layer_norm.h"

#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/layer_norm.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
// After foreach_target.h:
#include <hwy/highway.h>

#include "kernels/layer_norm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace svdserve::kernels::HWY_NAMESPACE {

template <typename X>
struct PlainRow {
  const X* x;
  VF32 operator()(F32 d, size_t j) const { return LoadAsFloat(d, x + j); }
  VF32 Some(F32 d, size_t j, size_t count) const {
    return LoadSome(d, x + j, count);
  }
};

template <typename X, typename R>
struct SumRow {
  const X* x;
  const R* residual;
  VF32 operator()(F32 d, size_t j) const {
    return hn::Add(LoadAsFloat(d, x + j), LoadAsFloat(d, residual + j));
  }
  VF32 Some(F32 d, size_t j, size_t count) const {
    return hn::Add(LoadSome(d, x + j, count), LoadSome(d, residual + j, count));
  }
};

template <typename X, typename R, typename Y>
void Rows(const LayerNormParams& p) {
  for (int i = 0; i < p.rows; ++i) {
    const X* x = static_cast<const X*>(p.x) + i * p.x_stride;
    Y* y = static_cast<Y*>(p.y) + i * p.y_stride;
    if (p.residual == nullptr) {
      NormalizeRow(PlainRow<X>{x}, p.width, p.gamma, p.beta, p.eps, y);
    } else {
      const R* r = static_cast<const R*>(p.residual) + i * p.residual_stride;
      NormalizeRow(SumRow<X, R>{x, r}, p.width, p.gamma, p.beta, p.eps, y);
    }
  }
}

template <typename X, typename R>
void RowsByOutput(const LayerNormParams& p) {
  p.y_type == DataType::kF32 ? Rows<X, R, float>(p) : Rows<X, R, uint16_t>(p);
}

template <typename X>
void RowsByResidual(const LayerNormParams& p) {
  p.residual_type == DataType::kF32 ? RowsByOutput<X, float>(p)
                                    : RowsByOutput<X, uint16_t>(p);
}

void ResidualLayerNormImpl(const LayerNormParams& p) {
  p.x_type == DataType::kF32 ? RowsByResidual<float>(p)
                             : RowsByResidual<uint16_t>(p);
}

}  // namespace svdserve::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace svdserve::kernels {

HWY_EXPORT(ResidualLayerNormImpl);

KernelStatus ResidualLayerNorm(const LayerNormParams& params) {
  if (params.rows < 0 || params.width < 1 || params.x == nullptr ||
      params.y == nullptr || params.gamma == nullptr ||
      params.beta == nullptr) {
    return KernelStatus::kInvalidArgument;
  }
  HWY_DYNAMIC_DISPATCH(ResidualLayerNormImpl)(params);
  return KernelStatus::kOk;
}

}  // namespace svdserve::kernels
#endif  // HWY_ONCE
