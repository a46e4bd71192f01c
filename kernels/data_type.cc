#include "kernels/data_type.h"

#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/data_type.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
// After foreach_target.h:
#include <hwy/highway.h>

#include "kernels/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace svdserve::kernels::HWY_NAMESPACE {

template <typename From, typename To>
void Convert(const From* from, To* to, size_t count) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    StoreFromFloat(d, LoadAsFloat(d, from + i), to + i);
  }
  if (i == count) return;
  StoreSome(d, LoadSome(d, from + i, count - i), to + i, count - i);
}

void ConvertToBf16Impl(const float* from, uint16_t* to, size_t count) {
  Convert(from, to, count);
}
void ConvertToFloatImpl(const uint16_t* from, float* to, size_t count) {
  Convert(from, to, count);
}

}  // namespace svdserve::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace svdserve::kernels {

HWY_EXPORT(ConvertToBf16Impl);
HWY_EXPORT(ConvertToFloatImpl);

void ConvertToBf16(const float* from, uint16_t* to, size_t count) {
  HWY_DYNAMIC_DISPATCH(ConvertToBf16Impl)(from, to, count);
}

void ConvertToFloat(const uint16_t* from, float* to, size_t count) {
  HWY_DYNAMIC_DISPATCH(ConvertToFloatImpl)(from, to, count);
}

}  // namespace svdserve::kernels
#endif  // HWY_ONCE
