// Where a half-layer ends and the next begins, of few rows: all is row by row,
// so that one kernel does what else are three launches.
//
//   t = y·Nᵀ
//   x = LayerNorm(x + t·Wᵀ + b)    in place
//   z = x·Fᵀ
#ifndef SVDSERVE_KERNELS_CUDA_ROW_CHAIN_H_
#define SVDSERVE_KERNELS_CUDA_ROW_CHAIN_H_

#include "kernels/cuda/types.h"

namespace svdserve::cuda {

struct RowChainParams {
  Type type = Type::kBF16;
  int rows = 0;                  // 0 launches nothing
  int in = 0;                    // a multiple of 8
  int rank = 0;                  // a multiple of 8
  int hidden = 0;                // 384, 768 or 1024
  int out = 0;                   // a multiple of 8
  const void* y = nullptr;       // [rows, in], packed
  const void* narrow = nullptr;  // N [rank, in], packed
  const void* w = nullptr;       // W [hidden, rank], packed
  const float* bias = nullptr;   // [hidden], or null
  const float* gamma = nullptr;  // [hidden]
  const float* beta = nullptr;   // [hidden]
  float eps = 1e-12f;
  // [rows, hidden], packed; read and written, in between. Read before prior
  // kernels have ended: what the launch before this one writes is not in it.
  void* x = nullptr;
  const void* next = nullptr;  // F [out, hidden], packed
  void* z = nullptr;           // [rows, out], packed; overlaps nothing else
};                             // all are 16-byte aligned

// Up to so many rows it is faster than the three launches.
inline constexpr int kRowChainRows = 192;

// Whether RowChain() takes such widths (pointers and rows do not count): where
// Hopper kernels run, and the weights fit into the shared memory of a cluster.
bool RowChainTakes(const RowChainParams& params, const DeviceLimits& limits);

// The bits of Gemm(), GemmNorm() and Gemm(). cudaErrorNotSupported where
// RowChainTakes() says no.
cudaError_t RowChain(const RowChainParams& params, const DeviceLimits& limits,
                     cudaStream_t stream);

}  // namespace svdserve::cuda

#endif  // SVDSERVE_KERNELS_CUDA_ROW_CHAIN_H_
