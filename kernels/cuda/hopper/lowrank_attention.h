// LowRankAttention() on Hopper.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_LOWRANK_ATTENTION_H_
#define SVDSERVE_KERNELS_CUDA_HOPPER_LOWRANK_ATTENTION_H_

#include "kernels/cuda/lowrank_attention.h"

namespace svdserve::cuda::hopper {

// Of parameters that cuda::LowRankAttention() found sensible.
// cudaErrorNotSupported: the portable kernel takes the shape.
cudaError_t LowRankAttention(const LowRankAttentionParams& params,
                             const DeviceLimits& limits, cudaStream_t stream);

}  // namespace svdserve::cuda::hopper

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_LOWRANK_ATTENTION_H_
