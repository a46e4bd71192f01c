// y = activation(x·W + bias) [+ y], with W packed once, by oneDNN.
//
// The grid: the columns of W are cut into fixed panels, and rows come in
// multiples of kRowTile. A caller runs (row range, panel) pairs in any order on
// any thread; the bits of a row depend on the row alone: not on the range it is
// computed in, nor on the thread. For many rows take the panel as the outer
// loop, so that its weights stay in the cache.
//
// x must be addressable up to a multiple of kRowTile rows: Run() reads such pad
// rows, and what they hold never reaches other rows. y is written in `rows`
// only.
//
// Immutable after Create(), except for one context per worker: Run() may be
// called by several threads with different `worker` and `scratch`. It starts no
// threads and throws nothing.
//
//   std::unique_ptr<PackedMatmul> matmul;
//   KernelStatus status = PackedMatmul::Create({.in = 384, ...}, &matmul);
//   matmul->Run(worker, panel, rows, x, y + matmul->PanelBegin(panel),
//   y_stride,
//               scratch);
#ifndef SVDSERVE_KERNELS_PACKED_MATMUL_H_
#define SVDSERVE_KERNELS_PACKED_MATMUL_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/data_type.h"
#include "kernels/epilogue.h"
#include "kernels/status.h"

namespace svdserve::kernels {

struct PackedMatmulSpec {
  int in = 0;                          // columns of x
  int out = 0;                         // columns of y
  DataType type = DataType::kF32;      // of x and the packed weights
  DataType out_type = DataType::kF32;  // of y
  // W(i, j) = weight[i * weight_in_stride + j * weight_out_stride]. A dense
  // [out, in] matrix of Hugging Face has strides 1 and in; a factor
  // [in, out] has out and 1. Not needed after Create().
  const float* weight = nullptr;
  int64_t weight_in_stride = 0;
  int64_t weight_out_stride = 0;
  const float* bias = nullptr;  // [out] or null; copied
  Activation activation = Activation::kNone;
  bool accumulate = false;  // add to what y holds
  int64_t x_stride = 0;     // elements from row to row; 0: in
  // Columns of a panel, the last one may be narrower; 0: a width that suits.
  int panel = 0;
  int workers = 1;  // contexts to prepare
};

class PackedMatmul {
 public:
  static constexpr int kRowTile = 16;

  // Whether this processor multiplies matrices of `type`: bf16 needs AVX-512.
  static bool Supports(DataType type);

  // kUnsupported also if rows do not keep their bits on this processor.
  static KernelStatus Create(const PackedMatmulSpec& spec,
                             std::unique_ptr<PackedMatmul>* matmul);
  ~PackedMatmul();
  PackedMatmul(const PackedMatmul&) = delete;
  PackedMatmul& operator=(const PackedMatmul&) = delete;

  int in() const;
  int out() const;
  int panels() const;
  int PanelBegin(int panel) const;  // first column
  int PanelWidth(int panel) const;
  // Whether many rows go through a larger tile, with the same bits.
  bool PanelHasBulkTile(int panel) const;
  uint64_t weight_bytes() const;  // as packed, bias included
  size_t scratch_bytes() const;   // per worker; may be 0

  // Columns [PanelBegin, PanelBegin + PanelWidth) of rows [0, rows). `y` points
  // at the panel's first column in the first row, and rows are y_stride
  // elements apart. `scratch` has scratch_bytes(), aligned to 64; so should x
  // be.
  KernelStatus Run(int worker, int panel, int rows, const void* x, void* y,
                   int64_t y_stride, void* scratch) const;

 private:
  struct Impl;
  explicit PackedMatmul(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace svdserve::kernels

#endif  // SVDSERVE_KERNELS_PACKED_MATMUL_H_
