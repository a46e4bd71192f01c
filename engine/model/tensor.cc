#include "engine/model/tensor.h"

#include <cassert>
#include <cstring>
#include <utility>

namespace svdserve {
namespace {

float HalfToF32(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  uint32_t exponent = (half >> 10) & 0x1f;
  uint32_t mantissa = half & 0x3ff;
  if (exponent == 0x1f) {  // Inf, NaN
    exponent = 0xff;
  } else if (exponent != 0) {
    exponent += 127 - 15;
  } else if (mantissa != 0) {  // subnormal in half, normal in float
    exponent = 127 - 15 + 1;
    while ((mantissa & 0x400) == 0) {
      mantissa <<= 1;
      --exponent;
    }
    mantissa &= 0x3ff;
  }
  const uint32_t bits = sign | (exponent << 23) | (mantissa << 13);
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

float BFloat16ToF32(uint16_t bf16) {
  const uint32_t bits = static_cast<uint32_t>(bf16) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace

const char* DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
  }
  return "?";
}

Tensor::Tensor(DType dtype, std::vector<int64_t> shape,
               std::shared_ptr<const std::byte[]> bytes)
    : dtype_(dtype), shape_(std::move(shape)), bytes_(std::move(bytes)) {}

Tensor Tensor::FromF32(std::vector<int64_t> shape,
                       const std::vector<float>& values) {
  const size_t bytes = values.size() * sizeof(float);
  std::shared_ptr<std::byte[]> copy(new std::byte[bytes]);
  if (bytes > 0) std::memcpy(copy.get(), values.data(), bytes);
  Tensor tensor(DType::kF32, std::move(shape), std::move(copy));
  assert(tensor.size() == static_cast<int64_t>(values.size()));
  return tensor;
}

int64_t Tensor::size() const {
  if (empty()) return 0;
  int64_t size = 1;
  for (const int64_t extent : shape_) size *= extent;
  return size;
}

std::vector<float> Tensor::ToF32() const {
  std::vector<float> values(size());
  if (values.empty()) return values;
  if (dtype_ == DType::kF32) {
    std::memcpy(values.data(), data(), byte_size());
    return values;
  }
  const bool half = dtype_ == DType::kF16;
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, data() + i * sizeof(bits), sizeof(bits));
    values[i] = half ? HalfToF32(bits) : BFloat16ToF32(bits);
  }
  return values;
}

}  // namespace svdserve
