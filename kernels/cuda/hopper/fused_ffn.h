// The fused feed-forward (kernels/cuda/fused_ffn.h) on wgmma. Called by its
// launcher alone, which has checked the parameters.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_FUSED_FFN_H_
#define SVDSERVE_KERNELS_CUDA_HOPPER_FUSED_FFN_H_

#include "kernels/cuda/fused_ffn.h"

namespace svdserve::cuda::hopper {

// Whether the table has it: not gated; GELU in both forms or ReLU; out_rank at
// most 320; p and two tiles of the weights fit shared memory.
bool FusedFfnTakes(const FusedFfnParams& params, const DeviceLimits& limits);

cudaError_t FusedFfn(const FusedFfnParams& params, const DeviceLimits& limits,
                     cudaStream_t stream);

}  // namespace svdserve::cuda::hopper

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_FUSED_FFN_H_
