// In place of kernels/cuda/ptx.cuh: the same functions on the CPU.
#ifndef SVDSERVE_TESTS_KERNELS_CUDA_EMULATOR_PTX_CUH_
#define SVDSERVE_TESTS_KERNELS_CUDA_EMULATOR_PTX_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>

#include "kernels/cuda/types.h"
#include "tests/kernels/cuda/emulator/emulator.h"

namespace svdserve::cuda {

inline void CopyAsync16(void* shared, const void* global, bool valid = true) {
  emulator::CopyAsync16(shared, valid ? global : nullptr);
}
inline void CopyCommit() { emulator::CopyCommit(); }
template <int kPending>
void CopyWait() {
  emulator::CopyWait(kPending);
}

inline void LoadMatrix4(uint32_t (&r)[4], const void* shared_row) {
  emulator::MatrixLane lane{r, shared_row};
  emulator::Collective(emulator::kLoadMatrix4, &lane);
}
inline void LoadMatrix4Transposed(uint32_t (&r)[4], const void* shared_row) {
  emulator::MatrixLane lane{r, shared_row};
  emulator::Collective(emulator::kLoadMatrix4Transposed, &lane);
}

template <typename T>
void Mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
inline void Mma<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4],
                               uint32_t b0, uint32_t b1) {
  emulator::MmaLane lane{c, a, {b0, b1}};
  emulator::Collective(emulator::kMmaBf16, &lane);
}
template <>
inline void Mma<__half>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                        uint32_t b1) {
  emulator::MmaLane lane{c, a, {b0, b1}};
  emulator::Collective(emulator::kMmaF16, &lane);
}

template <typename T>
uint32_t Pack(float low, float high);
template <>
inline uint32_t Pack<__nv_bfloat16>(float low, float high) {
  return emulator::Bf16FromFloat(low) |
         static_cast<uint32_t>(emulator::Bf16FromFloat(high)) << 16;
}
template <>
inline uint32_t Pack<__half>(float low, float high) {
  return __half_as_ushort(__float2half_rn(low)) |
         static_cast<uint32_t>(__half_as_ushort(__float2half_rn(high))) << 16;
}

template <typename T>
float2 Unpack(uint32_t pair);
template <>
inline float2 Unpack<__nv_bfloat16>(uint32_t pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
}
template <>
inline float2 Unpack<__half>(uint32_t pair) {
  return {emulator::FloatFromF16(static_cast<uint16_t>(pair)),
          emulator::FloatFromF16(static_cast<uint16_t>(pair >> 16))};
}

inline float Exp2(float x) { return std::exp2(x); }
inline float Reciprocal(float x) { return 1 / x; }
inline float Saturate(float x) { return x > 0 ? std::fmin(x, 1.0f) : 0.0f; }
inline float FastTanh(float x) { return std::tanh(x); }

inline float ShuffleXor(float value, int mask) {
  emulator::ShuffleLane lane{value, mask, 0};
  emulator::Collective(emulator::kShuffleXor, &lane);
  return lane.result;
}
inline bool AllInWarp(bool value) {
  float all = value ? 1 : 0;
  for (int mask = 1; mask < 32; mask *= 2) all *= ShuffleXor(all, mask);
  return all != 0;
}

}  // namespace svdserve::cuda

#endif  // SVDSERVE_TESTS_KERNELS_CUDA_EMULATOR_PTX_CUH_
