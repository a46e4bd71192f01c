// One fp32 row from the rows of a sequence: their mean, their maximum, or the
// first one.
#ifndef SVDSERVE_KERNELS_POOL_H_
#define SVDSERVE_KERNELS_POOL_H_

#include <cstdint>

#include "kernels/data_type.h"
#include "kernels/status.h"

namespace svdserve::kernels {

enum class PoolKind { kMean, kCls, kMax };

struct PoolParams {
  PoolKind kind = PoolKind::kMean;
  int rows = 0;  // >= 1
  int width = 0;
  DataType type = DataType::kF32;
  const void* x = nullptr;  // [rows, width]
  int64_t x_stride = 0;     // elements from row to row
  float* y = nullptr;       // [width]
};

// NaN in a column gives NaN in y, for the maximum too.
KernelStatus Pool(const PoolParams& params);

}  // namespace svdserve::kernels

#endif  // SVDSERVE_KERNELS_POOL_H_
