// Activations of the intermediate, in fp32. One function for all kernels, so
// that every way to run a layer gives the same bits; products and sums are
// paired by hand, so that no compiler pairs them one way here, another there.
#ifndef SVDSERVE_KERNELS_CUDA_ACTIVATION_CUH_
#define SVDSERVE_KERNELS_CUDA_ACTIVATION_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <type_traits>

#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/types.h"

namespace svdserve::cuda {

// x / (1 + 2^-z)
__device__ inline float Gate(float x, float z) {
  return x * Reciprocal(1 + Exp2(-z));
}

// The normal distribution function, 1/2 (1 + erf(x / sqrt(2))), within 2.1e-6:
// x times a polynomial of x^2, fitted by minimax over |x| <= 4.75 and scaled
// until it reaches exactly 0 and 1 there. Without erff()'s branches, which
// wgmma does not run beside.
__device__ inline float NormalDistribution(float x) {
  const float z = fminf(fmaxf(x, -4.75f), 4.75f);
  const float y = fmaf(z, z, -11.28125f);
  float p = fmaf(-1.83154706e-15f, y, 5.58712101e-14f);
  p = fmaf(p, y, -7.68387309e-13f);
  p = fmaf(p, y, 1.44882177e-11f);
  p = fmaf(p, y, -3.57367302e-10f);
  p = fmaf(p, y, 6.92358341e-9f);
  p = fmaf(p, y, -1.16496312e-7f);
  p = fmaf(p, y, 1.86192608e-6f);
  p = fmaf(p, y, -2.82870852e-5f);
  p = fmaf(p, y, 4.18484358e-4f);
  p = fmaf(p, y, -6.52998913e-3f);
  p = fmaf(p, y, 1.48748433e-1f);
  return Saturate(fmaf(z, p, 0.5f));
}

// For bf16 both forms of GELU are x/2 (1 + tanh(u)), by one approximate tanh;
// this is u. For erf's form the polynomial is within 3e-5 of GELU, the tanh
// within 2.5e-4 |x|; half a unit in the last place of bf16 is 2e-3 |x|.
template <Activation kActivation>
__device__ float GeluTanhArgument(float x) {
  const float y = x * x;
  if constexpr (kActivation == Activation::kGeluTanh) {
    return x * fmaf(3.567741e-2f, y, 7.978846e-1f);
  }
  const float z = fminf(y, 36.0f);  // the polynomial turns later
  return x * fmaf(fmaf(-3.515189e-4f, z, 3.700574e-2f), z, 7.975078e-1f);
}
template <Activation kActivation>
__device__ float GeluByTanh(float x) {
  const float half = 0.5f * x;
  return fmaf(half, FastTanh(GeluTanhArgument<kActivation>(x)), half);
}

// x/2 (1 + erf(x / sqrt(2))). Half a unit in the last place of fp16 is
// 2.4e-4 |x|.
template <typename T>
__device__ float Gelu(float x) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return GeluByTanh<Activation::kGelu>(x);
  }
  return x * NormalDistribution(x);
}

// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
template <typename T>
__device__ float GeluTanh(float x) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return GeluByTanh<Activation::kGeluTanh>(x);
  }
  return Gate(x, x * fmaf(1.029432e-1f, x * x, 2.302208f));
}

// `activation` is known when this is compiled, or the same for all threads.
template <typename T>
__device__ float Activate(Activation activation, float x) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kGelu:
      return Gelu<T>(x);
    case Activation::kGeluTanh:
      return GeluTanh<T>(x);
    case Activation::kRelu:
      return x < 0 ? 0 : x;  // NaN stays
    case Activation::kSilu:
      return Gate(x, x * 1.442695f);
  }
  return x;
}

}  // namespace svdserve::cuda

#endif  // SVDSERVE_KERNELS_CUDA_ACTIVATION_CUH_
