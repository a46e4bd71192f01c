// z = act(p·V1ᵀ + b1)·U2ᵀ, streamed over the intermediate width, which never
// exists in memory (FlashSVD, arXiv 2508.01506, without its recomputation).
//
// A block owns a tile of rows: p stays in shared memory, V1 and U2 stream
// through it, z accumulates in fp32 registers over the whole width. The
// intermediate is rounded to `type` where Gemm() would round it, and both sums
// run in the same order, so the bits are those of two calls of Gemm().
#ifndef SVDSERVE_KERNELS_CUDA_FUSED_FFN_H_
#define SVDSERVE_KERNELS_CUDA_FUSED_FFN_H_

#include "kernels/cuda/types.h"

namespace svdserve::cuda {

// Pointers are 16-byte aligned.
struct FusedFfnParams {
  Type type = Type::kBF16;
  int rows = 0;          // 0 launches nothing
  int in_rank = 0;       // r1, a multiple of 16
  int intermediate = 0;  // a multiple of 32
  int out_rank = 0;      // r2, a multiple of 16
  Activation activation = Activation::kGelu;
  const void* p = nullptr;    // [rows, in_rank], rows p_stride elements apart
  int64_t p_stride = 0;       // a multiple of 8
  const void* v1 = nullptr;   // [intermediate, in_rank]
  const float* b1 = nullptr;  // [intermediate], or null
  // Gated: act(p·V1ᵀ + b1) * (p·Gᵀ + gate_bias). Null: not gated.
  const void* gate = nullptr;        // [intermediate, in_rank]
  const float* gate_bias = nullptr;  // [intermediate], or null
  const void* u2 = nullptr;          // [out_rank, intermediate]
  void* z = nullptr;     // [rows, out_rank], rows z_stride elements apart
  int64_t z_stride = 0;  // a multiple of 8
};

// Whether the kernel's table has these ranks on such a device.
bool FusedFfnTakes(int in_rank, int out_rank, bool gated,
                   const DeviceLimits& limits);

cudaError_t FusedFfn(const FusedFfnParams& params, const DeviceLimits& limits,
                     cudaStream_t stream);

}  // namespace svdserve::cuda

#endif  // SVDSERVE_KERNELS_CUDA_FUSED_FFN_H_
