#include "kernels/data_type.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace svdserve::kernels {
namespace {

TEST(Bf16, RoundsToNearestAndTiesToEven) {
  EXPECT_EQ(FloatFromBf16(Bf16FromFloat(1.0f)), 1.0f);
  // bf16 has steps of 2^-7 above one.
  EXPECT_EQ(FloatFromBf16(Bf16FromFloat(1.0f + 0x1p-8f)), 1.0f);
  EXPECT_EQ(FloatFromBf16(Bf16FromFloat(1.0f + 0x3p-8f)), 1.0f + 0x1p-6f);
  EXPECT_EQ(FloatFromBf16(Bf16FromFloat(1.0f + 0x1.1p-8f)), 1.0f + 0x1p-7f);
  EXPECT_EQ(FloatFromBf16(Bf16FromFloat(-1.0f - 0x1.1p-8f)), -1.0f - 0x1p-7f);
}

TEST(Bf16, KeepsSpecialValues) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(FloatFromBf16(Bf16FromFloat(kInf)), kInf);
  EXPECT_EQ(FloatFromBf16(Bf16FromFloat(-kInf)), -kInf);
  EXPECT_EQ(FloatFromBf16(Bf16FromFloat(3.4e38f)), kInf);
  for (uint32_t nan : {0x7fffffffu, 0xffffffffu, 0x7f800001u, 0x7fc00000u}) {
    const float value = std::bit_cast<float>(nan);
    EXPECT_TRUE(std::isnan(FloatFromBf16(Bf16FromFloat(value)))) << nan;
  }
}

TEST(Bf16, EveryValueSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const float value = FloatFromBf16(bits);
    if (!std::isnan(value)) {
      ASSERT_EQ(Bf16FromFloat(value), bits);
    }
  }
}

TEST(Bf16, VectorsConvertLikeScalars) {
  std::vector<float> values;
  for (uint32_t bits = 0; bits < 0xfff00000u; bits += 0x000fedcbu) {
    values.push_back(std::bit_cast<float>(bits));
  }
  std::vector<uint16_t> narrow(values.size());
  std::vector<float> wide(values.size());
  ConvertToBf16(values.data(), narrow.data(), values.size());
  ConvertToFloat(narrow.data(), wide.data(), values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(narrow[i], Bf16FromFloat(values[i])) << values[i];
    ASSERT_EQ(std::bit_cast<uint32_t>(wide[i]),
              std::bit_cast<uint32_t>(FloatFromBf16(narrow[i])));
  }
}

}  // namespace
}  // namespace svdserve::kernels
