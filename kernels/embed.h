// y[i] = LayerNorm(word[ids[i]] + position[first_position + i] +
// type[types[i]])
//
// Sums and statistics in fp32. Called for one sequence, or a part of one.
#ifndef SVDSERVE_KERNELS_EMBED_H_
#define SVDSERVE_KERNELS_EMBED_H_

#include <cstdint>

#include "kernels/data_type.h"
#include "kernels/status.h"

namespace svdserve::kernels {

struct EmbedParams {
  int tokens = 0;
  int width = 0;
  int first_position = 0;
  const int32_t* ids = nullptr;    // [tokens], each in [0, vocab)
  const uint8_t* types = nullptr;  // [tokens], each in [0, type_vocab)
  DataType table_type = DataType::kF32;
  const void* word = nullptr;      // [vocab, width]
  const void* position = nullptr;  // [max_positions, width]
  const void* type = nullptr;      // [type_vocab, width]
  int vocab = 0;
  int max_positions = 0;
  int type_vocab = 0;
  const float* gamma = nullptr;  // [width]
  const float* beta = nullptr;   // [width]
  float eps = 1e-12f;
  DataType y_type = DataType::kF32;
  void* y = nullptr;  // [tokens, width]
  int64_t y_stride = 0;
};

// kInvalidArgument if an id, a type or a position is outside its table; y is
// then unspecified.
KernelStatus Embed(const EmbedParams& params);

}  // namespace svdserve::kernels

#endif  // SVDSERVE_KERNELS_EMBED_H_
