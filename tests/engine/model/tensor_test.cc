#include "engine/model/tensor.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace svdserve {
namespace {

using ::testing::ElementsAre;

Tensor FromBits(DType dtype, const std::vector<uint16_t>& bits) {
  std::shared_ptr<std::byte[]> bytes(new std::byte[bits.size() * 2]);
  std::memcpy(bytes.get(), bits.data(), bits.size() * 2);
  return Tensor(dtype, {static_cast<int64_t>(bits.size())}, bytes);
}

TEST(Tensor, StartsEmpty) {
  const Tensor tensor;
  EXPECT_TRUE(tensor.empty());
  EXPECT_EQ(tensor.size(), 0);
  EXPECT_EQ(tensor.byte_size(), 0);
}

TEST(Tensor, KeepsFloats) {
  const Tensor tensor = Tensor::FromF32({2, 2}, {1, -2.5f, 1e-40f, 3e38f});
  EXPECT_EQ(tensor.size(), 4);
  EXPECT_EQ(tensor.byte_size(), 16);
  EXPECT_THAT(tensor.ToF32(), ElementsAre(1, -2.5f, 1e-40f, 3e38f));
}

TEST(Tensor, WidensHalf) {
  // 1, -2, smallest subnormal, largest subnormal, largest, -0.
  const Tensor tensor =
      FromBits(DType::kF16, {0x3c00, 0xc000, 0x0001, 0x03ff, 0x7bff, 0x8000});
  EXPECT_THAT(tensor.ToF32(),
              ElementsAre(1, -2, std::ldexp(1.f, -24), std::ldexp(1023.f, -24),
                          65504, -0.f));
  EXPECT_TRUE(std::signbit(tensor.ToF32().back()));
}

TEST(Tensor, WidensHalfInfinityAndNan) {
  const std::vector<float> values =
      FromBits(DType::kF16, {0x7c00, 0xfc00, 0x7e00}).ToF32();
  EXPECT_EQ(values[0], INFINITY);
  EXPECT_EQ(values[1], -INFINITY);
  EXPECT_TRUE(std::isnan(values[2]));
}

TEST(Tensor, WidensBFloat16) {
  const Tensor tensor = FromBits(DType::kBF16, {0x3f80, 0xc020, 0x0001});
  EXPECT_THAT(tensor.ToF32(), ElementsAre(1, -2.5f, std::ldexp(1.f, -133)));
}

}  // namespace
}  // namespace svdserve
