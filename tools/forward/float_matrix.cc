#include "tools/forward/float_matrix.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "kernels/data_type.h"
#include "kernels/packed_matmul.h"

namespace svdserve {
namespace {

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace

FloatMatrix::FloatMatrix(int rows, int width) : rows_(rows), width_(width) {
  const int64_t padded = RoundUp(rows, kernels::PackedMatmul::kRowTile) * width;
  const size_t bytes = RoundUp(std::max<int64_t>(padded, 1) * sizeof(float),
                               kernels::kAlignment);
  data_.reset(
      static_cast<float*>(std::aligned_alloc(kernels::kAlignment, bytes)));
  if (data_ == nullptr) throw std::bad_alloc();
  std::memset(data_.get(), 0, bytes);
}

FloatMatrix FloatMatrix::Copy() const {
  FloatMatrix copy(rows_, width_);
  std::copy_n(data(), size(), copy.data());
  return copy;
}

}  // namespace svdserve
