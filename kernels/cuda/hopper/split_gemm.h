// y = x·Wᵀ whose sum over k is split: parts of it in fp32, then added in the
// order of k and rounded once, for products whose `split_sum` allows it.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_SPLIT_GEMM_H_
#define SVDSERVE_KERNELS_CUDA_HOPPER_SPLIT_GEMM_H_

#include "kernels/cuda/gemm.h"

namespace svdserve::cuda::hopper {

// Columns of y that a cluster has of 64 rows, and its blocks, each of which
// sums a part of k.
struct Split {
  int columns;
  int blocks;
};
inline constexpr int kSplitColumns[] = {32, 64, 80};
inline constexpr int kSplitBlocks[] = {2, 4, 8};

// Parts that SplitGemm() has: always so many, so that all rows have the same
// bits.
inline constexpr int kSumParts = 4;

// Long sums without bias and activation. Rows do not count.
bool SplitGemmTakes(const GemmParams& params, const DeviceLimits& limits);

// With parameters that have passed Gemm()'s checks and are taken, neither gated
// nor for sums, where TakesHopperKernels() is true.
cudaError_t SplitGemm(const GemmParams& params, const DeviceLimits& limits,
                      cudaStream_t stream);

// Split so, sums of any length; for tests and benchmarks.
// cudaErrorNotSupported where a number is none of the above.
cudaError_t SplitGemmBy(const Split& split, const GemmParams& params,
                        const DeviceLimits& limits, cudaStream_t stream);

}  // namespace svdserve::cuda::hopper

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_SPLIT_GEMM_H_
