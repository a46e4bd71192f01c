// Rows of floats as the kernels want them.
//
// Aligned to 64 bytes and padded with zero rows to whole row tiles, which
// PackedMatmul reads. Moves, does not copy.
//
//   FloatMatrix states(tokens, hidden);
//   states.row(3)[0] = 1;
#ifndef SVDSERVE_TOOLS_FORWARD_FLOAT_MATRIX_H_
#define SVDSERVE_TOOLS_FORWARD_FLOAT_MATRIX_H_

#include <cstdint>
#include <cstdlib>
#include <memory>

namespace svdserve {

class FloatMatrix {
 public:
  FloatMatrix() = default;
  FloatMatrix(int rows, int width);  // zeros
  FloatMatrix Copy() const;

  int rows() const { return rows_; }
  int width() const { return width_; }
  int64_t size() const { return int64_t{1} * rows_ * width_; }
  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }
  float* row(int i) { return data_.get() + int64_t{1} * i * width_; }
  const float* row(int i) const {
    return data_.get() + int64_t{1} * i * width_;
  }

 private:
  struct Free {
    void operator()(float* data) const { std::free(data); }
  };

  int rows_ = 0;
  int width_ = 0;
  std::unique_ptr<float[], Free> data_;
};

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_FORWARD_FLOAT_MATRIX_H_
