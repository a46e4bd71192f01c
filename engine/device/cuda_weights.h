// A model's weights as the CUDA kernels want them: matrices [out, in] in
// bfloat16 or float16, everything added in fp32, all in one block of device
// memory. Packed once, then immutable.
//
// Ranks and the intermediate width are CudaShape()'s: padded with zeros.
//
//   auto weights = PackForCuda(model, cuda::Type::kBF16, &runtime);
#ifndef SVDSERVE_ENGINE_DEVICE_CUDA_WEIGHTS_H_
#define SVDSERVE_ENGINE_DEVICE_CUDA_WEIGHTS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/device/cuda_memory.h"
#include "engine/device/cuda_runtime.h"
#include "engine/model/model.h"
#include "kernels/cuda/pool.h"
#include "kernels/cuda/types.h"

namespace svdserve {

// Null: there is no such matrix.
struct CudaMatrix {
  int in = 0;
  int out = 0;
  const void* w = nullptr;      // [out, in]
  const float* bias = nullptr;  // [out]; null: none
  explicit operator bool() const { return w != nullptr; }
};

// y = x·W, or (x·U)·V. `first` is absent from a dense matrix.
struct CudaLinear {
  CudaMatrix first;   // U
  CudaMatrix second;  // V or W; has the bias
};

// One of Q, K and V.
struct CudaProjection {
  CudaMatrix matrix;  // from the joint factors, or from x if it is dense
  bool factored = false;
  int factor_column = 0;  // where its factors start in a row of the joint ones
  int head_dim = 0;       // columns of a head: Q's and K's are the same
};

struct CudaNorm {
  const float* gamma = nullptr;  // [hidden]
  const float* beta = nullptr;   // [hidden]
};

struct CudaLayer {
  CudaMatrix qkv_factors;         // [U_q U_k U_v]; absent if all are dense
  CudaProjection projections[3];  // Q, K, V
  CudaLinear attention_output;
  CudaNorm attention_norm;
  CudaLinear ffn_in;
  CudaLinear ffn_out;
  CudaNorm ffn_norm;
};

struct CudaHead {
  int in = 0;
  int out = 0;
  const float* w = nullptr;     // [out, in]
  const float* bias = nullptr;  // [out]; null: none
  cuda::HeadActivation activation = cuda::HeadActivation::kIdentity;
};

struct CudaWeights {
  cuda::Type type = cuda::Type::kBF16;
  const void* word = nullptr;        // [vocab, hidden]
  const void* position = nullptr;    // [max_positions, hidden]
  const void* token_type = nullptr;  // [type_vocab, hidden]
  CudaNorm embedding_norm;
  float norm_eps = 1e-12f;
  std::vector<CudaLayer> layers;
  std::vector<CudaHead> head;
  DeviceMemory memory;  // everything above
};

// INVALID_ARGUMENT for a value that `type` does not have.
absl::StatusOr<CudaWeights> PackForCuda(const Model& model, cuda::Type type,
                                        CudaRuntime* runtime);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_DEVICE_CUDA_WEIGHTS_H_
