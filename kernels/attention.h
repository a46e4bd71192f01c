// Bidirectional attention of one head of one sequence:
//   out[i] = sum_j softmax_j(scale * q[i]·k[j]) v[j]
//
// FlashAttention-style: online softmax over blocks of keys anchored at the
// sequence's first key, so no length x length matrix exists. A query's bits
// depend on its own values and the sequence's keys and values only: queries may
// be split over threads at will.
//
//   AttentionParams p{.queries = s, .keys = s, .qk_dim = 32, .v_dim = 32, ...};
//   KernelStatus status = Attention(p, scratch);
#ifndef SVDSERVE_KERNELS_ATTENTION_H_
#define SVDSERVE_KERNELS_ATTENTION_H_

#include <cstddef>
#include <cstdint>

#include "kernels/data_type.h"
#include "kernels/status.h"

namespace svdserve::kernels {

struct AttentionParams {
  int queries = 0;  // rows of q and out
  int keys = 0;     // rows of k and v
  int qk_dim = 0;   // a multiple of 16, 16 to 128
  int v_dim = 0;    // a multiple of 16, 16 to 128
  DataType type = DataType::kF32;
  const void* q = nullptr;  // [queries, qk_dim], rows q_stride apart
  const void* k = nullptr;  // [keys, qk_dim]
  const void* v = nullptr;  // [keys, v_dim]
  void* out = nullptr;      // [queries, v_dim]; may be q itself, if as wide
  int64_t q_stride = 0;     // elements from row to row
  int64_t k_stride = 0;
  int64_t v_stride = 0;
  int64_t out_stride = 0;
  float scale = 1.0f;
};

// Scratch of one call; it does not depend on the sequence's length.
size_t AttentionScratchBytes(int qk_dim, int v_dim);

KernelStatus Attention(const AttentionParams& params, void* scratch);

}  // namespace svdserve::kernels

#endif  // SVDSERVE_KERNELS_ATTENTION_H_
