// x = LayerNorm(x + y·Wᵀ + b), in place: the end of each half-layer.
//
// One block owns whole rows, so the update never exists in memory (but where
// the caller gives it some). Sums as in Gemm(); the update, the residual sum
// and the statistics (two-pass: mean, then squared deviations) stay fp32, and
// are summed in an order that does not depend on `rows`.
#ifndef SVDSERVE_KERNELS_CUDA_GEMM_NORM_H_
#define SVDSERVE_KERNELS_CUDA_GEMM_NORM_H_

#include "kernels/cuda/types.h"

namespace svdserve::cuda {

struct GemmNormParams {
  Type type = Type::kBF16;
  int rows = 0;                  // 0 launches nothing
  int in = 0;                    // a multiple of 8
  int hidden = 0;                // a multiple of 32, at most 1024
  const void* y = nullptr;       // [rows, in], rows y_stride elements apart
  int64_t y_stride = 0;          // a multiple of 8
  const void* w = nullptr;       // [hidden, in], packed
  const float* bias = nullptr;   // [hidden], or null
  const float* gamma = nullptr;  // [hidden]
  const float* beta = nullptr;   // [hidden]
  float eps = 1e-12f;
  void* x = nullptr;  // [rows, hidden], packed; read and written
  // Memory for the update, [rows, hidden], or null. With it, two kernels: y·Wᵀ
  // by more blocks than rows alone would give, then the rest. Faster for up to
  // about 500 rows; ignored where shared memory is scarce, or where a Hopper
  // kernel has the rows. The same bits.
  float* update = nullptr;
};  // all are 16-byte aligned

// Whether `update` is used on such a device.
bool GemmNormTakesUpdate(int hidden, const DeviceLimits& limits);

cudaError_t GemmNorm(const GemmNormParams& params, const DeviceLimits& limits,
                     cudaStream_t stream);

// By one tile of the table, the same bits; for tests and benchmarks.
// cudaErrorNotSupported where the tile is for other widths or devices.
inline constexpr int kGemmNormTiles = 15;
cudaError_t GemmNormWithTile(int tile, const GemmNormParams& params,
                             const DeviceLimits& limits, cudaStream_t stream);

}  // namespace svdserve::cuda

#endif  // SVDSERVE_KERNELS_CUDA_GEMM_NORM_H_
