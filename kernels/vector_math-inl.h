// Vector functions that several kernels share, compiled once per instruction
// set: include only between foreach_target.h and HWY_AFTER_NAMESPACE.
//
// All are fp32; the lane count never changes a lane's result.
#if defined(SVDSERVE_KERNELS_VECTOR_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SVDSERVE_KERNELS_VECTOR_MATH_INL_H_
#undef SVDSERVE_KERNELS_VECTOR_MATH_INL_H_
#else
#define SVDSERVE_KERNELS_VECTOR_MATH_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace svdserve::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using VF32 = hn::Vec<F32>;

// Loads and stores of fp32 vectors from both storage types. bf16 is rounded to
// nearest even on the way out.
template <class D>
HWY_INLINE hn::Vec<D> LoadAsFloat(D d, const float* from) {
  return hn::LoadU(d, from);
}

template <class D>
HWY_INLINE hn::Vec<D> LoadAsFloat(D d, const uint16_t* from) {
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<uint16_t, D> d16;
  const auto wide = hn::PromoteTo(du, hn::LoadU(d16, from));
  return hn::BitCast(d, hn::ShiftLeft<16>(wide));
}

template <class D>
HWY_INLINE void StoreFromFloat(D d, hn::Vec<D> v, float* to) {
  hn::StoreU(v, d, to);
}

template <class D>
HWY_INLINE void StoreFromFloat(D /*d*/, hn::Vec<D> v, uint16_t* to) {
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<uint16_t, D> d16;
  const auto bits = hn::BitCast(du, v);
  const auto lsb = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  const auto rounded =
      hn::ShiftRight<16>(hn::Add(bits, hn::Add(lsb, hn::Set(du, 0x7fffu))));
  const auto quiet = hn::Or(hn::ShiftRight<16>(bits), hn::Set(du, 0x40u));
  const auto is_nan = hn::RebindMask(du, hn::IsNaN(v));
  const auto narrow = hn::IfThenElse(is_nan, quiet, rounded);
  hn::StoreU(hn::TruncateTo(d16, narrow), d16, to);
}

// The first `count` lanes; the others are zero, or not written.
template <typename T>
HWY_INLINE VF32 LoadSome(F32 d, const T* from, size_t count) {
  HWY_ALIGN T lanes[HWY_MAX_BYTES / sizeof(float)] = {};
  for (size_t i = 0; i < count; ++i) lanes[i] = from[i];
  return LoadAsFloat(d, lanes);
}

template <typename T>
HWY_INLINE void StoreSome(F32 d, VF32 v, T* to, size_t count) {
  HWY_ALIGN T lanes[HWY_MAX_BYTES / sizeof(float)];
  StoreFromFloat(d, v, lanes);
  for (size_t i = 0; i < count; ++i) to[i] = lanes[i];
}

// 2^x for x <= 0, to one ulp; below -126 it stays 2^-126. NaN stays NaN: x86's
// max gives its second operand then, and the last step is a multiplication.
HWY_INLINE VF32 Exp2Negative(F32 d, VF32 x) {
  const hn::RebindToSigned<F32> di;
  const VF32 clamped = hn::Max(hn::Set(d, -126.0f), x);
  // Adding 1.5 * 2^23 leaves the nearest integer in the low bits, here with the
  // exponent's bias.
  const VF32 magic = hn::Set(d, 12582912.0f + 127.0f);
  const VF32 shifted = hn::Add(clamped, magic);
  const VF32 f = hn::Sub(clamped, hn::Sub(shifted, magic));  // [-1/2, 1/2]
  // Minimax on [-1/2, 1/2]: relative error 7.5e-8.
  VF32 p = hn::Set(d, 0.0013276470126584172f);
  p = hn::MulAdd(p, f, hn::Set(d, 0.009675540961325169f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.05550713092088699f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.24022120237350464f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.6931469440460205f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0000001192092896f));
  const auto power = hn::ShiftLeft<23>(hn::BitCast(di, shifted));
  return hn::Mul(p, hn::BitCast(d, power));
}

// Beyond, the negative tail of GELU is zero; NaN passes, as in Exp2Negative().
inline constexpr float kGeluTailEnd = 16.0f;

// x Phi(x) = max(x, 0) - a (1 - Phi(a)), a = |x|, and 1 - Phi(a) = 2^(-a^2
// log2(e) / 2) R(a) with a small rational R. No cancellation: the error is
// below that of x / 2 * (1 + erf(x / sqrt(2))) in fp32.
HWY_INLINE VF32 Gelu(F32 d, VF32 x) {
  const VF32 a = hn::Min(hn::Set(d, kGeluTailEnd), hn::Abs(x));
  const VF32 gauss =
      Exp2Negative(d, hn::Mul(hn::Mul(a, a), hn::Set(d, -0.72134752f)));
  VF32 p = hn::Set(d, -0.00014989326882641762f);
  p = hn::MulAdd(p, a, hn::Set(d, 0.034602098166942596f));
  p = hn::MulAdd(p, a, hn::Set(d, 0.18382860720157623f));
  p = hn::MulAdd(p, a, hn::Set(d, 0.5f));
  VF32 q = hn::Set(d, 0.08125106245279312f);
  q = hn::MulAdd(q, a, hn::Set(d, 0.49915555119514465f));
  q = hn::MulAdd(q, a, hn::Set(d, 1.1655428409576416f));
  q = hn::MulAdd(q, a, hn::Set(d, 1.0f));
  const VF32 tail = hn::Div(hn::Mul(hn::Mul(a, gauss), p), q);
  return hn::Sub(hn::Max(x, hn::Zero(d)), tail);
}

// x / 2 * (1 + tanh(u)), u = sqrt(2 / pi) (x + 0.044715 x^3), which is
// x sigmoid(2u) = max(x, 0) - |x| e / (1 + e), e = exp(-2|u|).
HWY_INLINE VF32 GeluTanh(F32 d, VF32 x) {
  const VF32 a = hn::Min(hn::Set(d, kGeluTailEnd), hn::Abs(x));
  const VF32 cubic =
      hn::MulAdd(hn::Mul(a, a), hn::Set(d, 0.044715f), hn::Set(d, 1.0f));
  // -2 sqrt(2 / pi) log2(e)
  const VF32 e =
      Exp2Negative(d, hn::Mul(hn::Mul(a, cubic), hn::Set(d, -2.30220819f)));
  const VF32 tail = hn::Div(hn::Mul(a, e), hn::Add(e, hn::Set(d, 1.0f)));
  return hn::Sub(hn::Max(x, hn::Zero(d)), tail);
}

}  // namespace svdserve::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SVDSERVE_KERNELS_VECTOR_MATH_INL_H_
