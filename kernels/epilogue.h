// What follows a matrix product: y = activation(c + bias) [+ y].
//
// Kept apart from the product so that it costs one pass over a tile that is
// still in the cache, reads and writes any row stride, rounds to the output's
// type once, and means the same with every version of the matrix library.
#ifndef SVDSERVE_KERNELS_EPILOGUE_H_
#define SVDSERVE_KERNELS_EPILOGUE_H_

#include <cstdint>

#include "kernels/data_type.h"
#include "kernels/status.h"

namespace svdserve::kernels {

// kGelu is the exact one, with erf.
enum class Activation { kNone, kGelu, kGeluTanh, kRelu, kTanh };

struct EpilogueParams {
  int rows = 0;
  int columns = 0;
  const float* c = nullptr;     // [rows, columns]
  int64_t c_stride = 0;         // elements from row to row
  const float* bias = nullptr;  // [columns], or null
  Activation activation = Activation::kNone;
  bool accumulate = false;  // add to what y holds
  DataType y_type = DataType::kF32;
  void* y = nullptr;  // [rows, columns]
  int64_t y_stride = 0;
};

KernelStatus Epilogue(const EpilogueParams& params);

}  // namespace svdserve::kernels

#endif  // SVDSERVE_KERNELS_EPILOGUE_H_
