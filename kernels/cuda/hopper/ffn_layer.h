// The feed-forward half-layer (kernels/cuda/ffn_layer.h) on wgmma. Called by
// its launcher alone, which has checked the parameters.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_FFN_LAYER_H_
#define SVDSERVE_KERNELS_CUDA_HOPPER_FFN_LAYER_H_

#include "kernels/cuda/ffn_layer.h"

namespace svdserve::cuda::hopper {

// Whether the table has it.
bool FfnLayerTakes(int hidden, int in_rank, int out_rank, Activation activation,
                   const DeviceLimits& limits);

cudaError_t FfnLayer(const FfnLayerParams& params, const DeviceLimits& limits,
                     cudaStream_t stream);

}  // namespace svdserve::cuda::hopper

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_FFN_LAYER_H_
