// x = LayerNorm(word[id] + type[type_id] + position[place in its sequence]).
#ifndef SVDSERVE_KERNELS_CUDA_EMBED_H_
#define SVDSERVE_KERNELS_CUDA_EMBED_H_

#include "kernels/cuda/types.h"

namespace svdserve::cuda {

// Tables, gamma, beta and x are aligned to 16 bytes.
struct EmbedParams {
  Type type = Type::kBF16;
  int rows = 0;  // 0 launches nothing
  int sequences = 0;
  int hidden = 0;                       // a multiple of 8, at most 1024
  const int32_t* ids = nullptr;         // [rows], on the device
  const uint8_t* type_ids = nullptr;    // [rows]
  const int32_t* cu_seqlens = nullptr;  // [sequences + 1]
  const void* word = nullptr;           // [vocab, hidden]
  const void* position = nullptr;       // [max_positions, hidden]
  const void* token_type = nullptr;     // [type_vocab, hidden]
  const float* gamma = nullptr;         // [hidden]
  const float* beta = nullptr;
  float eps = 1e-12f;
  void* x = nullptr;  // [rows, hidden]
};

// Rows past the last sequence's end (a bucket's padding) become zeros.
cudaError_t Embed(const EmbedParams& params, cudaStream_t stream);

}  // namespace svdserve::cuda

#endif  // SVDSERVE_KERNELS_CUDA_EMBED_H_
