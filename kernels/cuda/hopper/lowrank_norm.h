// The factored end of a half-layer (kernels/cuda/lowrank_norm.h) on wgmma.
// Called by its launcher alone, which has checked the parameters.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_LOWRANK_NORM_H_
#define SVDSERVE_KERNELS_CUDA_HOPPER_LOWRANK_NORM_H_

#include "kernels/cuda/lowrank_norm.h"

namespace svdserve::cuda::hopper {

// Whether the table has such widths.
bool LowRankNormTakes(const LowRankNormParams& params,
                      const DeviceLimits& limits);

cudaError_t LowRankNorm(const LowRankNormParams& params,
                        const DeviceLimits& limits, cudaStream_t stream);

}  // namespace svdserve::cuda::hopper

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_LOWRANK_NORM_H_
