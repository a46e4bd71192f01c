// Attention whose Q, K and V exist on chip only (FlashSVD, arXiv 2508.01506):
//   Q_h = P_q·V_q,h + b_q,h   K_h = P_k·V_k,h + b_k,h   V_h = P_v·V_v,h + b_v,h
// A block owns one head of one sequence: it builds K_h and V_h of the whole
// sequence once in shared memory, then runs the loop of Attention() over them.
// Q, K and V are rounded to `type` as Gemm() would round them, and blocks of
// keys are the same, so the bits are those of Gemm() and Attention().
#ifndef SVDSERVE_KERNELS_CUDA_LOWRANK_ATTENTION_H_
#define SVDSERVE_KERNELS_CUDA_LOWRANK_ATTENTION_H_

#include "kernels/cuda/types.h"

namespace svdserve::cuda {

struct LowRankAttentionParams {
  Type type = Type::kBF16;
  int sequences = 0;   // 0 launches nothing
  int max_tokens = 0;  // no sequence is longer
  int heads = 0;
  int head_dim = 0;  // 32, 64 or 128
  int q_rank = 0;    // multiples of 8
  int k_rank = 0;
  int v_rank = 0;
  float scale = 1;
  const int32_t* cu_seqlens = nullptr;  // [sequences + 1], on the device
  int first_row = 0;  // the row of the batch that p and out point at
  // P = x·[U_q U_k U_v] of each row, its three parts wherever they lie in it.
  const void* p = nullptr;  // rows p_stride elements apart, a multiple of 8
  int64_t p_stride = 0;
  int q_column = 0;  // multiples of 8
  int k_column = 0;
  int v_column = 0;
  const void* q_factor = nullptr;  // [heads * head_dim, q_rank]
  const void* k_factor = nullptr;  // [heads * head_dim, k_rank]
  const void* v_factor = nullptr;  // [heads * head_dim, v_rank]
  const float* q_bias = nullptr;   // [heads * head_dim], or null
  const float* k_bias = nullptr;
  const float* v_bias = nullptr;
  void* out = nullptr;  // [rows, heads * head_dim]
  int64_t out_stride = 0;
};

// The longest sequence that the kernel takes on such a device; 0 if the head
// dimension or a rank is not in its table.
int LowRankAttentionMaxTokens(int head_dim, int max_rank,
                              const DeviceLimits& limits);

cudaError_t LowRankAttention(const LowRankAttentionParams& params,
                             const DeviceLimits& limits, cudaStream_t stream);

}  // namespace svdserve::cuda

#endif  // SVDSERVE_KERNELS_CUDA_LOWRANK_ATTENTION_H_
