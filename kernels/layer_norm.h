// y = gamma * (z - mean(z)) / sqrt(variance(z) + eps) + beta, z = x [+
// residual]
//
// One row at a time with fp32 statistics (two-pass variance); in place on x or
// residual is allowed. Rows are independent.
#ifndef SVDSERVE_KERNELS_LAYER_NORM_H_
#define SVDSERVE_KERNELS_LAYER_NORM_H_

#include <cstdint>

#include "kernels/data_type.h"
#include "kernels/status.h"

namespace svdserve::kernels {

struct LayerNormParams {
  int rows = 0;
  int width = 0;
  DataType x_type = DataType::kF32;
  DataType residual_type = DataType::kF32;
  DataType y_type = DataType::kF32;
  const void* x = nullptr;         // [rows, width]
  const void* residual = nullptr;  // [rows, width], or null
  void* y = nullptr;               // [rows, width]
  int64_t x_stride = 0;            // elements from row to row
  int64_t residual_stride = 0;
  int64_t y_stride = 0;
  const float* gamma = nullptr;  // [width]
  const float* beta = nullptr;   // [width]
  float eps = 1e-12f;
};

KernelStatus ResidualLayerNorm(const LayerNormParams& params);

}  // namespace svdserve::kernels

#endif  // SVDSERVE_KERNELS_LAYER_NORM_H_
