#include "tools/compress/convert.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace svdserve {
namespace {

uint32_t BitsOf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// `value` is finite. An infinite result means that it was too large.
uint16_t ToBFloat16(float value) {
  const uint32_t bits = BitsOf(value);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

uint16_t ToHalf(float value) {
  const uint16_t sign = static_cast<uint16_t>(BitsOf(value) >> 16) & 0x8000;
  const float magnitude = std::fabs(value);
  if (magnitude >= 65520) return sign | 0x7c00;  // rounds to infinity
  // Counted in steps of its binade (or of the subnormals'), the value is a
  // number below 2048 that rounds to an integer; a carry to the next binade
  // comes out right by itself.
  const int exponent = magnitude == 0 ? -14 : std::max(ilogbf(magnitude), -14);
  const int steps =
      static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  return static_cast<uint16_t>(sign | (((exponent + 14) << 10) + steps));
}

bool IsInfinite(uint16_t bits, DType dtype) {
  return (bits & 0x7fff) == (dtype == DType::kF16 ? 0x7c00 : 0x7f80);
}

}  // namespace

absl::StatusOr<DType> ParseDType(const std::string& name) {
  const std::string upper = absl::AsciiStrToUpper(name);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    if (upper == DTypeName(dtype)) return dtype;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("dtype \"", name, "\" is unknown; want F32, F16 or BF16"));
}

absl::StatusOr<RawTensor> Round(const std::vector<float>& values,
                                std::vector<int64_t> shape, DType dtype) {
  if (dtype == DType::kF32) {
    return ToRawTensor(Tensor::FromF32(std::move(shape), values));
  }
  const uint64_t byte_size = values.size() * sizeof(uint16_t);
  std::shared_ptr<std::byte[]> bytes(new std::byte[byte_size]);
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t bits =
        dtype == DType::kF16 ? ToHalf(values[i]) : ToBFloat16(values[i]);
    if (IsInfinite(bits, dtype)) {
      return absl::OutOfRangeError(
          absl::StrCat("element ", i, " is ", values[i], ", too large for ",
                       DTypeName(dtype), "; choose another --dtype"));
    }
    std::memcpy(bytes.get() + i * sizeof(bits), &bits, sizeof(bits));
  }
  return RawTensor{DTypeName(dtype), std::move(shape), std::move(bytes),
                   byte_size};
}

}  // namespace svdserve
