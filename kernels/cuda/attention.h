// Exact attention over packed sequences of any length: FlashAttention-2 (arXiv
// 2307.08691) for inference. No length x length matrix exists.
//   out[i] = sum_j softmax_j(scale * q[i]·k[j]) v[j]
//
// Blocks of kAttentionKeys keys are anchored at the sequence's first key; a
// query's bits depend on its own values and its sequence's keys only. Softmax
// statistics are fp32; the weights are rounded to `type` before they meet v.
#ifndef SVDSERVE_KERNELS_CUDA_ATTENTION_H_
#define SVDSERVE_KERNELS_CUDA_ATTENTION_H_

#include "kernels/cuda/types.h"

namespace svdserve::cuda {

inline constexpr int kAttentionKeys = 64;  // keys of one softmax block

struct AttentionParams {
  Type type = Type::kBF16;
  int sequences = 0;   // 0 launches nothing
  int max_tokens = 0;  // no sequence is longer
  // Of all sequences, or a bound that q, k and v have memory for: tells which
  // tiles are fast too. 0: all sequences are as long.
  int rows = 0;
  int heads = 0;     // of queries
  int kv_heads = 0;  // divides heads: grouped-query attention
  int qk_dim = 0;    // a multiple of 16, 16 to 128
  int v_dim = 0;     // a multiple of 16, 16 to 128
  bool causal = false;
  // Keys further than these from the query are not seen; -1: no limit.
  int window_left = -1;
  int window_right = -1;
  float scale = 1;
  // On the device: where each sequence starts, in rows of q, k, v and out
  // after first_row was subtracted. An empty sequence is skipped.
  const int32_t* cu_seqlens = nullptr;  // [sequences + 1]
  int first_row = 0;        // q, k, v and out point at this row of the batch
  const void* q = nullptr;  // [rows, heads, qk_dim]
  const void* k = nullptr;  // [rows, kv_heads, qk_dim]
  const void* v = nullptr;  // [rows, kv_heads, v_dim]
  void* out = nullptr;      // [rows, heads, v_dim]; may be q, if as wide
  // Elements from row to row; multiples of 8. Heads of a row are packed.
  int64_t q_stride = 0;
  int64_t k_stride = 0;
  int64_t v_stride = 0;
  int64_t out_stride = 0;
};

cudaError_t Attention(const AttentionParams& params, const DeviceLimits& limits,
                      cudaStream_t stream);

}  // namespace svdserve::cuda

#endif  // SVDSERVE_KERNELS_CUDA_ATTENTION_H_
