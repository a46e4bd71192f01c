// One fp32 row of each sequence, and what becomes of it: pooling, head layers,
// the cut to the wanted dimensions and the division by the length.
#ifndef SVDSERVE_KERNELS_CUDA_POOL_H_
#define SVDSERVE_KERNELS_CUDA_POOL_H_

#include "kernels/cuda/types.h"

namespace svdserve::cuda {

enum class PoolKind { kMean, kFirst, kMax };

struct PoolParams {
  Type type = Type::kBF16;
  PoolKind kind = PoolKind::kMean;
  int sequences = 0;                    // 0 launches nothing
  int hidden = 0;                       // a multiple of 8
  const int32_t* cu_seqlens = nullptr;  // [sequences + 1], on the device
  const void* x = nullptr;              // [rows, hidden]
  float* y = nullptr;  // [sequences, hidden]; zeros for empty sequences
};
// Sums over a sequence's rows in an order that its length alone decides.
cudaError_t Pool(const PoolParams& params, cudaStream_t stream);

enum class HeadActivation { kIdentity, kTanh, kRelu, kGelu };

// y = act(x·Wᵀ + b), all fp32: one row a sequence.
struct HeadParams {
  int rows = 0;
  int in = 0;
  int out = 0;
  const float* x = nullptr;     // [rows, in]
  const float* w = nullptr;     // [out, in]
  const float* bias = nullptr;  // [out], or null
  HeadActivation activation = HeadActivation::kIdentity;
  float* y = nullptr;  // [rows, out]
};
cudaError_t Head(const HeadParams& params, cudaStream_t stream);

// In place: keeps the first values of each row, as many as options[i] says,
// zeroes the rest and, where options[i] says so, divides by
// max(length, 1e-12).
struct FinishParams {
  int rows = 0;
  int width = 0;
  const int32_t* options = nullptr;  // [rows], by RowOption(), on the device
  float* y = nullptr;                // [rows, width]
};
cudaError_t FinishRows(const FinishParams& params, cudaStream_t stream);

// How many values a row keeps (0: all) and whether it is normalised.
constexpr int32_t RowOption(int dimensions, bool normalize) {
  return dimensions * 2 + (normalize ? 1 : 0);
}

}  // namespace svdserve::cuda

#endif  // SVDSERVE_KERNELS_CUDA_POOL_H_
