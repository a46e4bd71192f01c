// y = act(x·Wᵀ + b): the matrix product of the unfused and dense paths.
//
// Sums run over `in` in steps of 16, ascending, in fp32 (mma m16n8k16), whole
// but for split_sum: a row's bits are its own, whatever the tile or `rows`.
// Bias and activation are fp32; one rounding to `type` at the end.
#ifndef SVDSERVE_KERNELS_CUDA_GEMM_H_
#define SVDSERVE_KERNELS_CUDA_GEMM_H_

#include "kernels/cuda/types.h"

namespace svdserve::cuda {

struct GemmParams {
  Type type = Type::kBF16;
  int rows = 0;                 // 0 launches nothing
  int in = 0;                   // a multiple of 8
  int out = 0;                  // a multiple of 8
  const void* x = nullptr;      // [rows, in], rows x_stride elements apart
  int64_t x_stride = 0;         // a multiple of 8
  const void* w = nullptr;      // [out, in], packed
  const float* bias = nullptr;  // [out], or null
  Activation activation = Activation::kNone;
  // Gated variants: y = act(x·Wᵀ + b) * (x·Gᵀ + gate_bias). Null: not gated.
  const void* gate = nullptr;        // [out, in]
  const float* gate_bias = nullptr;  // [out], or null
  void* y = nullptr;     // [rows, out], rows y_stride elements apart
  int64_t y_stride = 0;  // a multiple of 8
  // In place of y: x·Wᵀ alone, in fp32, [rows, out], packed. Not gated.
  float* sums = nullptr;
  // The sum may be split: parts of k, added in order in fp32, end sooner where
  // few rows wait for long sums. Other bits, which still do not depend on
  // `rows`: SplitsSum() says whether there are such.
  bool split_sum = false;
};  // matrices are 16-byte aligned, biases and sums 8-byte

cudaError_t Gemm(const GemmParams& params, const DeviceLimits& limits,
                 cudaStream_t stream);

// Up to so many rows it is faster to split a sum.
inline constexpr int kSplitSumRows = 256;

// Whether Gemm() splits the sum of a product that allows it: long ones of plain
// products, where Hopper kernels run. Pointers and rows do not count.
bool SplitsSum(const GemmParams& params, const DeviceLimits& limits);

// Up to three products as if by Gemm(), by one launch, of many rows only where
// a Hopper kernel takes them. `rows`, `out` and `type` are the same in all;
// none is gated or asks for sums.
inline constexpr int kGemmGroup = 3;
cudaError_t GemmGroup(const GemmParams* parts, int count,
                      const DeviceLimits& limits, cudaStream_t stream);

// By one tile of the table, the same bits; for tests and benchmarks.
// cudaErrorNotSupported where the device, a gate or sums refuse it.
inline constexpr int kGemmTiles = 7;
cudaError_t GemmWithTile(int tile, const GemmParams& params,
                         const DeviceLimits& limits, cudaStream_t stream);

}  // namespace svdserve::cuda

#endif  // SVDSERVE_KERNELS_CUDA_GEMM_H_
