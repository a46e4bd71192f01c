// A dense row-major tensor in host memory. Copies share the bytes, which are
// immutable once the tensor is built.
#ifndef SVDSERVE_ENGINE_MODEL_TENSOR_H_
#define SVDSERVE_ENGINE_MODEL_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace svdserve {

enum class DType { kF32, kF16, kBF16 };

inline int BytesOf(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }
const char* DTypeName(DType dtype);  // "F32", as in safetensors

class Tensor {
 public:
  Tensor() = default;
  // `bytes` holds exactly the product of `shape` elements of `dtype`.
  Tensor(DType dtype, std::vector<int64_t> shape,
         std::shared_ptr<const std::byte[]> bytes);
  static Tensor FromF32(std::vector<int64_t> shape,
                        const std::vector<float>& values);

  bool empty() const { return bytes_ == nullptr; }
  DType dtype() const { return dtype_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  int64_t size() const;  // elements
  uint64_t byte_size() const { return size() * BytesOf(dtype_); }
  const std::byte* data() const { return bytes_.get(); }
  const std::shared_ptr<const std::byte[]>& bytes() const { return bytes_; }

  std::vector<float> ToF32() const;  // exact widening

 private:
  DType dtype_ = DType::kF32;
  std::vector<int64_t> shape_;
  std::shared_ptr<const std::byte[]> bytes_;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_MODEL_TENSOR_H_
