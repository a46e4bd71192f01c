// x = LayerNorm(x + y·Nᵀ·Wᵀ + b), in place: a factored matrix at the end of a
// half-layer, by one kernel.
//
// A block owns rows; y·Nᵀ exists on chip only. The bits are those of Gemm() and
// GemmNorm() one after the other: the same sums in the same order, rounded
// where those store.
#ifndef SVDSERVE_KERNELS_CUDA_LOWRANK_NORM_H_
#define SVDSERVE_KERNELS_CUDA_LOWRANK_NORM_H_

#include "kernels/cuda/types.h"

namespace svdserve::cuda {

struct LowRankNormParams {
  Type type = Type::kBF16;
  int rows = 0;                  // 0 launches nothing
  int in = 0;                    // a multiple of 8
  int rank = 0;                  // a multiple of 8, up to 192 or 128
  int hidden = 0;                // 384 or 768
  const void* y = nullptr;       // [rows, in], packed
  const void* narrow = nullptr;  // N [rank, in], packed
  const void* w = nullptr;       // W [hidden, rank], packed
  const float* bias = nullptr;   // [hidden], or null
  const float* gamma = nullptr;  // [hidden]
  const float* beta = nullptr;   // [hidden]
  float eps = 1e-12f;
  void* x = nullptr;  // [rows, hidden], packed; read and written
};                    // all are 16-byte aligned

// Whether LowRankNorm() takes such widths (pointers and rows do not count):
// where Hopper kernels run; ranks up to 192 (width 384) or 128 (768).
bool LowRankNormTakes(const LowRankNormParams& params,
                      const DeviceLimits& limits);

// Whether it is faster than the two launches, which an H200 decided.
bool LowRankNormIsFaster(const LowRankNormParams& params,
                         const DeviceLimits& limits);

// cudaErrorNotSupported where LowRankNormTakes() says no.
cudaError_t LowRankNorm(const LowRankNormParams& params,
                        const DeviceLimits& limits, cudaStream_t stream);

}  // namespace svdserve::cuda

#endif  // SVDSERVE_KERNELS_CUDA_LOWRANK_NORM_H_
