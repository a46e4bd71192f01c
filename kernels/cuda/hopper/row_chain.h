// RowChain() on Hopper, the only kernel that it has.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_ROW_CHAIN_H_
#define SVDSERVE_KERNELS_CUDA_HOPPER_ROW_CHAIN_H_

#include "kernels/cuda/row_chain.h"

namespace svdserve::cuda::hopper {

// Whether there is a kernel for the width, and weights and rows fit into the
// shared memory of a cluster.
bool RowChainHas(const RowChainParams& params, const DeviceLimits& limits);

// Where RowChainHas() and TakesHopperKernels() are true, with parameters that
// have passed RowChain()'s checks.
cudaError_t RowChain(const RowChainParams& params, cudaStream_t stream);

}  // namespace svdserve::cuda::hopper

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_ROW_CHAIN_H_
