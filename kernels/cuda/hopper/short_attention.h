// Low-rank attention (kernels/cuda/lowrank_attention.h) of short sequences.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_SHORT_ATTENTION_H_
#define SVDSERVE_KERNELS_CUDA_HOPPER_SHORT_ATTENTION_H_

#include "kernels/cuda/lowrank_attention.h"

namespace svdserve::cuda::hopper {

// Whether it is there for such a shape: up to 128 tokens, heads of 32 or 64, as
// many heads of sequences as multiprocessors at most, and all of a head's rows
// of P and its factors fit into shared memory.
bool ShortAttentionTakes(const LowRankAttentionParams& params,
                         const DeviceLimits& limits);

cudaError_t ShortAttention(const LowRankAttentionParams& params,
                           const DeviceLimits& limits, cudaStream_t stream);

}  // namespace svdserve::cuda::hopper

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_SHORT_ATTENTION_H_
