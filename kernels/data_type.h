// Element types of kernels, and conversion between them.
//
// bfloat16 is stored as uint16_t: the upper half of the float. Rounding is to
// nearest even; NaN stays NaN (quiet), overflow goes to infinity as in the
// processor's own instructions. All math in the kernels is fp32.
#ifndef SVDSERVE_KERNELS_DATA_TYPE_H_
#define SVDSERVE_KERNELS_DATA_TYPE_H_

#include <bit>
#include <cstddef>
#include <cstdint>

namespace svdserve::kernels {

enum class DataType { kF32, kBF16 };

constexpr int BytesOf(DataType type) { return type == DataType::kF32 ? 4 : 2; }

// Pointers to buffers and scratch are aligned to this.
inline constexpr int kAlignment = 64;

inline uint16_t Bf16FromFloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (bits >> 16) | 0x40u;
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float FloatFromBf16(uint16_t value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value) << 16);
}

void ConvertToBf16(const float* from, uint16_t* to, size_t count);
void ConvertToFloat(const uint16_t* from, float* to, size_t count);

}  // namespace svdserve::kernels

#endif  // SVDSERVE_KERNELS_DATA_TYPE_H_
