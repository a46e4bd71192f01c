// What nvcc gives device code without an include: qualifiers, indices, barriers
// and intrinsics.
#ifndef SVDSERVE_TESTS_KERNELS_CUDA_EMULATOR_DEVICE_H_
#define SVDSERVE_TESTS_KERNELS_CUDA_EMULATOR_DEVICE_H_

#include <cuda_runtime_api.h>
#include <vector_functions.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

// NOLINTBEGIN(bugprone-reserved-identifier): CUDA's names.

#define __launch_bounds__(...)

extern uint3 threadIdx;  // of the fiber that runs
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
inline constexpr int warpSize = 32;

void __syncthreads();
void __syncwarp(unsigned mask = 0xffffffffu);

inline uint32_t __float_as_uint(float x) { return std::bit_cast<uint32_t>(x); }
inline float __uint_as_float(uint32_t x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }

inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return std::exp(x); }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }

template <typename T>
T __ldg(const T* pointer) {
  return *pointer;
}

// NOLINTEND(bugprone-reserved-identifier)

using std::max;
using std::min;

#endif  // SVDSERVE_TESTS_KERNELS_CUDA_EMULATOR_DEVICE_H_
