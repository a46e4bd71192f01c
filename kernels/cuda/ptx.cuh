// Thin wrappers of the instructions that the portable kernels (sm_80 and later)
// use: asynchronous copies, ldmatrix, mma, fast exponentials.
//
// Pointers to shared memory are generic ones. Every function is called by all
// 32 threads of a warp, in step, but for the copies.
#ifndef SVDSERVE_KERNELS_CUDA_PTX_CUH_
#define SVDSERVE_KERNELS_CUDA_PTX_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/cuda/types.h"

namespace svdserve::cuda {

__device__ inline uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// ---- 16-byte copies from global to shared memory, in the background ----

// Zeros where `valid` is false; `global` is not read then.
__device__ inline void CopyAsync16(void* shared, const void* global,
                                   bool valid = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                   SharedAddress(shared)),
               "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}
__device__ inline void CopyCommit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most kPending of the thread's committed groups are under way.
template <int kPending>
__device__ inline void CopyWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// ---- Fragments ----

// Four 8x8 matrices of 2-byte values; thread 8i+j gives the address of row j of
// matrix i (16 bytes, 16-byte aligned); thread t receives of each matrix the
// values (t / 4, 2 (t % 4)) and (t / 4, 2 (t % 4) + 1).
__device__ inline void LoadMatrix4(uint32_t (&r)[4], const void* shared_row) {
  asm volatile(
      "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
      : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
      : "r"(SharedAddress(shared_row))
      : "memory");
}
// The same of the transposed matrices: values (2 (t % 4), t / 4) and
// (2 (t % 4) + 1, t / 4).
__device__ inline void LoadMatrix4Transposed(uint32_t (&r)[4],
                                             const void* shared_row) {
  asm volatile(
      "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
      : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
      : "r"(SharedAddress(shared_row))
      : "memory");
}

// ---- c += a·b: 16x8 += 16x16 · 16x8 ----
//
// Thread t holds of c: (t/4, 2(t%4)), (t/4, 2(t%4)+1) and the same of row
// t/4 + 8; of a: k 2(t%4).. of rows t/4 and t/4 + 8, then k + 8 of both; of b:
// k 2(t%4).. and k + 8.. of column t/4.
template <typename T>
__device__ void Mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                    uint32_t b1);
template <>
__device__ inline void Mma<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4],
                                          uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ inline void Mma<__half>(float (&c)[4], const uint32_t (&a)[4],
                                   uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---- Values ----

// Two values rounded to nearest even; `low` has the lower address.
template <typename T>
__device__ uint32_t Pack(float low, float high);
template <>
__device__ inline uint32_t Pack<__nv_bfloat16>(float low, float high) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
template <>
__device__ inline uint32_t Pack<__half>(float low, float high) {
  uint32_t r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

template <typename T>
__device__ float2 Unpack(uint32_t pair);
template <>
__device__ inline float2 Unpack<__nv_bfloat16>(uint32_t pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
}
template <>
__device__ inline float2 Unpack<__half>(uint32_t pair) {
  return __half22float2(*reinterpret_cast<const __half2*>(&pair));
}

// 2^x and 1/x, to about 2 units in the last place.
__device__ inline float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float Reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// x between 0 and 1, else the nearer of them; 0 for NaN.
__device__ inline float Saturate(float x) { return __saturatef(x); }
// tanh(x) to about 5e-4 relative: for bf16 results only.
__device__ inline float FastTanh(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ inline float ShuffleXor(float value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
__device__ inline bool AllInWarp(bool value) {
  return __all_sync(0xffffffffu, value);
}

}  // namespace svdserve::cuda

#endif  // SVDSERVE_KERNELS_CUDA_PTX_CUH_
