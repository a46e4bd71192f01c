// Attention() on Hopper.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_ATTENTION_H_
#define SVDSERVE_KERNELS_CUDA_HOPPER_ATTENTION_H_

#include "kernels/cuda/attention.h"

namespace svdserve::cuda::hopper {

// Of parameters that cuda::Attention() found sensible and whose windows have
// limits. cudaErrorNotSupported: the portable kernel takes the shape.
cudaError_t Attention(const AttentionParams& params, const DeviceLimits& limits,
                      cudaStream_t stream);

}  // namespace svdserve::cuda::hopper

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_ATTENTION_H_
