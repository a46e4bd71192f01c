// GemmNorm() on Hopper: the same contract and bits, for many rows of some
// widths. The launcher of kernels/cuda/gemm_norm.h chooses.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_GEMM_NORM_H_
#define SVDSERVE_KERNELS_CUDA_HOPPER_GEMM_NORM_H_

#include "kernels/cuda/gemm_norm.h"

namespace svdserve::cuda::hopper {

// Whether there is a kernel for the width and `in`: weights fit into the shared
// memory of a cluster, or they stream, which is not for rows with an `update`.
bool GemmNormHas(const GemmNormParams& params, const DeviceLimits& limits);

// Where GemmNormHas() and TakesHopperKernels() are true, with parameters that
// have passed GemmNorm()'s checks. `update` is not used.
cudaError_t GemmNorm(const GemmNormParams& params, const DeviceLimits& limits,
                     cudaStream_t stream);

}  // namespace svdserve::cuda::hopper

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_GEMM_NORM_H_
