// What a block of threads of Attention() works on.
#ifndef SVDSERVE_KERNELS_CUDA_ATTENTION_OPERANDS_CUH_
#define SVDSERVE_KERNELS_CUDA_ATTENTION_OPERANDS_CUH_

#include "kernels/cuda/attention.h"

namespace svdserve::cuda {

// One sequence and head. Rows are counted in q, k, v and out: pointers to each
// would take registers that the loop needs.
template <typename T>
struct Operands {
  int first_row;
  int end_row;
  const T* q;
  const T* k;
  const T* v;
  T* out;
};

// A tile of queries.
struct Position {
  int tile;
  int head;
  int sequence;
};

template <typename T>
__device__ Operands<T> FindOperands(const AttentionParams& params,
                                    const Position& position) {
  const int kv_head = position.head / (params.heads / params.kv_heads);
  const int32_t* starts = params.cu_seqlens + position.sequence;
  return {starts[0] - params.first_row,
          starts[1] - params.first_row,
          static_cast<const T*>(params.q) + position.head * params.qk_dim,
          static_cast<const T*>(params.k) + kv_head * params.qk_dim,
          static_cast<const T*>(params.v) + kv_head * params.v_dim,
          static_cast<T*>(params.out) + position.head * params.v_dim};
}

}  // namespace svdserve::cuda

#endif  // SVDSERVE_KERNELS_CUDA_ATTENTION_OPERANDS_CUH_
