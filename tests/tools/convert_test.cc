#include "tools/compress/convert.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace svdserve {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

std::vector<float> RoundTrip(const std::vector<float>& values, DType dtype) {
  const int64_t size = values.size();
  absl::StatusOr<RawTensor> raw = Round(values, {size}, dtype);
  EXPECT_TRUE(raw.ok()) << raw.status();
  absl::StatusOr<Tensor> tensor = ToTensor(*raw);
  EXPECT_TRUE(tensor.ok()) << tensor.status();
  return tensor->ToF32();
}

TEST(ConvertTest, EveryFiniteHalfComesBack) {
  std::vector<float> values;
  for (const float sign : {1.0F, -1.0F}) {
    for (int exponent = 0; exponent < 31; ++exponent) {
      for (int mantissa = 0; mantissa < 1024; ++mantissa) {
        const int whole = exponent == 0 ? mantissa : 1024 + mantissa;
        values.push_back(sign * std::ldexp(static_cast<float>(whole),
                                           std::max(exponent, 1) - 25));
      }
    }
  }
  EXPECT_THAT(RoundTrip(values, DType::kF16), ElementsAreArray(values));
}

TEST(ConvertTest, RoundsToNearestTiesToEven) {
  const float step = std::ldexp(1.0F, -10);  // of halves above 1
  EXPECT_THAT(RoundTrip({1 + 0.5F * step, 1 + 0.51F * step, 1 + 1.5F * step,
                         2 - 0.4F * step, 65519},
                        DType::kF16),
              ElementsAreArray({1.0F, 1 + step, 1 + 2 * step, 2.0F, 65504.0F}));
  const float wide = std::ldexp(1.0F, -7);  // of bfloat16s above 1
  EXPECT_THAT(RoundTrip({1 + 0.5F * wide, 1 + 0.51F * wide, 1 + 1.5F * wide,
                         -2 + 0.2F * wide},
                        DType::kBF16),
              ElementsAreArray({1.0F, 1 + wide, 1 + 2 * wide, -2.0F}));
}

TEST(ConvertTest, KeepsFloatsAsTheyAre) {
  const std::vector<float> values = {1e-45F, -3.4e38F, 0.1F};
  EXPECT_THAT(RoundTrip(values, DType::kF32), ElementsAreArray(values));
}

TEST(ConvertTest, RefusesWhatIsTooLarge) {
  const absl::StatusOr<RawTensor> half = Round({1, 65520}, {2}, DType::kF16);
  EXPECT_EQ(half.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(half.status().message(), HasSubstr("element 1 is 65520"));
  EXPECT_FALSE(
      Round({std::numeric_limits<float>::max()}, {1}, DType::kBF16).ok());
}

TEST(ConvertTest, ParsesNames) {
  EXPECT_EQ(*ParseDType("bf16"), DType::kBF16);
  EXPECT_EQ(*ParseDType("F32"), DType::kF32);
  EXPECT_THAT(ParseDType("int8").status().message(),
              HasSubstr("want F32, F16 or BF16"));
}

}  // namespace
}  // namespace svdserve
