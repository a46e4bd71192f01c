// Descriptions of matrices in global memory for the copy engine. A map is made
// on the host in less than a microsecond and handed to the kernel inside its
// parameters, declared `const __grid_constant__`: nothing to keep or to free,
// and a captured graph holds its copy.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_TENSOR_MAP_H_
#define SVDSERVE_KERNELS_CUDA_HOPPER_TENSOR_MAP_H_

#include <cuda.h>

#include <initializer_list>

#include "kernels/cuda/types.h"

namespace svdserve::cuda::hopper {

// How 16-byte chunks of a box's rows are permuted in shared memory: a box is so
// many bytes wide, chunk c of row r goes to c ^ (r % 8), with 64 bytes to
// c ^ (r / 2 % 4), with 32 to c ^ (r / 4 % 2). Boxes start at multiples of 1024
// bytes.
enum class Swizzle { kNone, k32Bytes, k64Bytes, k128Bytes };

// [rows, columns] of 2-byte elements, `stride` elements from row to row.
struct MatrixView {
  Type type = Type::kBF16;
  const void* data = nullptr;  // 16-byte aligned
  int64_t rows = 0;            // at least 1
  int64_t columns = 0;         // at least 1
  int64_t stride = 0;          // a multiple of 8
};

// [rows, heads, dim]: heads of a row are packed.
struct HeadsView {
  Type type = Type::kBF16;
  const void* data = nullptr;  // 16-byte aligned
  int64_t rows = 0;            // at least 1
  int64_t heads = 0;           // at least 1
  int64_t dim = 0;             // a multiple of 8
  int64_t stride = 0;          // from row to row, a multiple of 8
};

// What one copy moves: at most 256 rows; with a swizzle its columns. A box may
// be wider than the matrix.
struct Box {
  int rows = 0;
  int columns = 0;
  Swizzle swizzle = Swizzle::k128Bytes;
};

// cudaErrorNotSupported if the driver has no tensor maps.
cudaError_t MakeTensorMap(const MatrixView& matrix, const Box& box,
                          CUtensorMap* map);
// Rows and columns of one head are a box.
cudaError_t MakeHeadsTensorMap(const HeadsView& view, const Box& box,
                               CUtensorMap* map);

// All that a kernel takes; the first error.
struct TensorMapRequest {
  CUtensorMap* map;
  MatrixView matrix;
  Box box;
};
cudaError_t MakeTensorMaps(std::initializer_list<TensorMapRequest> requests);

}  // namespace svdserve::cuda::hopper

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_TENSOR_MAP_H_
