#include "kernels/normalize.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace svdserve::kernels {

void Normalize(float* x, int count) {
  double squares = 0;
  for (int i = 0; i < count; ++i) squares += double{x[i]} * x[i];
  const double norm = std::max(std::sqrt(squares), 1e-12);
  for (int i = 0; i < count; ++i) x[i] = static_cast<float>(x[i] / norm);
}

bool AllFinite(const float* x, int count) {
  constexpr uint32_t kExponent = 0x7f800000;
  uint32_t bad = 0;
  for (int i = 0; i < count; ++i) {
    bad |= (std::bit_cast<uint32_t>(x[i]) & kExponent) == kExponent;
  }
  return bad == 0;
}

}  // namespace svdserve::kernels
