// A model's weights as the CPU kernels want them: packed once, then immutable.
//
//   absl::StatusOr<CpuWeights> weights = PackForCpu(model, compute, threads);
#ifndef SVDSERVE_ENGINE_DEVICE_CPU_WEIGHTS_H_
#define SVDSERVE_ENGINE_DEVICE_CPU_WEIGHTS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/device/backend.h"
#include "engine/model/model.h"
#include "kernels/packed_matmul.h"

namespace svdserve {

// A packed matrix, and how far apart rows are in what it reads and writes.
struct PackedMatrix {
  std::unique_ptr<kernels::PackedMatmul> matmul;  // null: there is no such one
  int64_t x_row_bytes = 0;
  int y_element_bytes = 0;
  explicit operator bool() const { return matmul != nullptr; }
};

// y = x·W, or (x·U)·V. `first` is absent from a dense matrix.
struct CpuLinear {
  PackedMatrix first;   // U
  PackedMatrix second;  // V or W; adds bias and activation
};

// One of Q, K and V. Its column panels are groups of heads, and each panel is
// written to a block of its own, [rows, panel width].
struct CpuProjection {
  PackedMatrix matrix;  // from the joint factors, or from x if it is dense
  bool factored = false;
  int factor_column = 0;  // where its factors start in a row of the joint ones
  int head_dim = 0;       // columns of a head: Q's and K's are the same
};

struct CpuNorm {
  std::vector<float> gamma;  // [hidden]
  std::vector<float> beta;   // [hidden]
};

struct CpuLayer {
  PackedMatrix qkv_factors;      // x·[U_q U_k U_v]; absent if all are dense
  CpuProjection projections[3];  // Q, K, V
  CpuLinear attention_output;
  CpuNorm attention_norm;
  CpuLinear ffn_in;
  CpuLinear ffn_out;
  CpuNorm ffn_norm;
};

// An embedding table in the compute type.
struct CpuTable {
  std::vector<float> f32;      // [rows, hidden], or
  std::vector<uint16_t> bf16;  // [rows, hidden]
  int rows = 0;
  const void* data() const;
  uint64_t bytes() const;
};

struct CpuWeights {
  kernels::DataType type = kernels::DataType::kF32;
  CpuTable word, position, token_type;
  CpuNorm embedding_norm;
  float norm_eps = 1e-12f;
  std::vector<CpuLayer> layers;
  std::vector<PackedMatrix> head;  // fp32
  int heads_per_panel = 1;
  uint64_t bytes = 0;          // everything above
  uint64_t scratch_bytes = 0;  // the most that one kernel call needs
};

// `workers` threads may use the weights at once.
absl::StatusOr<CpuWeights> PackForCpu(const Model& model, ComputeType compute,
                                      int workers);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_DEVICE_CPU_WEIGHTS_H_
