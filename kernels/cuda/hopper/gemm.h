// Gemm() and GemmGroup() on Hopper: the same contract and bits. Plain products
// only; the launcher of kernels/cuda/gemm.h chooses.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_GEMM_H_
#define SVDSERVE_KERNELS_CUDA_HOPPER_GEMM_H_

#include "kernels/cuda/gemm.h"

namespace svdserve::cuda::hopper {

// Not gates, sums or few rows, which the portable kernels run.
bool GemmTakes(const GemmParams& params, const DeviceLimits& limits);
bool GemmGroupTakes(const GemmParams* parts, int count,
                    const DeviceLimits& limits);

// With parameters that have passed Gemm()'s checks and are taken, where
// TakesHopperKernels() is true.
cudaError_t Gemm(const GemmParams& params, const DeviceLimits& limits,
                 cudaStream_t stream);
cudaError_t GemmGroup(const GemmParams* parts, int count,
                      const DeviceLimits& limits, cudaStream_t stream);

// By one tile of the table, any number of rows; for tests and benchmarks.
inline constexpr int kGemmTiles = 7;
cudaError_t GemmWithTile(int tile, const GemmParams& params,
                         const DeviceLimits& limits, cudaStream_t stream);
cudaError_t GemmGroupWithTile(int tile, const GemmParams* parts, int count,
                              const DeviceLimits& limits, cudaStream_t stream);

}  // namespace svdserve::cuda::hopper

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_GEMM_H_
