// What the kernel tests share: aligned buffers, reproducible random values, and
// the tolerance rule: the error against fp64 is at most twice that of a plain
// implementation in the same precision.
#ifndef SVDSERVE_TESTS_KERNELS_KERNEL_TESTING_H_
#define SVDSERVE_TESTS_KERNELS_KERNEL_TESTING_H_

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/data_type.h"

namespace svdserve::kernels {

// Elements of one storage type, aligned for kernels, read and written as float.
class Storage {
 public:
  Storage(DataType type, size_t count, float value = 0.0f)
      : type_(type), count_(count) {
    const size_t bytes = (count * BytesOf(type) / kAlignment + 1) * kAlignment;
    data_.reset(std::aligned_alloc(kAlignment, bytes));
    for (size_t i = 0; i < count; ++i) Set(i, value);
  }
  Storage(DataType type, const std::vector<float>& values)
      : Storage(type, values.size()) {
    for (size_t i = 0; i < values.size(); ++i) Set(i, values[i]);
  }

  size_t size() const { return count_; }
  void* data() { return data_.get(); }
  const void* data() const { return data_.get(); }
  void* at(size_t i) {
    return static_cast<std::byte*>(data_.get()) + i * BytesOf(type_);
  }
  float* floats() { return static_cast<float*>(data_.get()); }
  float operator[](size_t i) const {
    return type_ == DataType::kF32
               ? static_cast<const float*>(data())[i]
               : FloatFromBf16(static_cast<const uint16_t*>(data())[i]);
  }
  void Set(size_t i, float value) {
    if (type_ == DataType::kF32) {
      static_cast<float*>(data())[i] = value;
    } else {
      static_cast<uint16_t*>(data())[i] = Bf16FromFloat(value);
    }
  }
  std::vector<float> ToFloats() const {
    std::vector<float> values(count_);
    for (size_t i = 0; i < count_; ++i) values[i] = (*this)[i];
    return values;
  }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  DataType type_;
  size_t count_;
  std::unique_ptr<void, Free> data_;
};

inline std::vector<float> RandomNormal(size_t count, uint32_t seed,
                                       float deviation = 1.0f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

// As stored: a bf16 value is the nearest bf16 one.
inline float Rounded(DataType type, float value) {
  return type == DataType::kF32 ? value : FloatFromBf16(Bf16FromFloat(value));
}

inline double RmsError(const std::vector<float>& values,
                       const std::vector<double>& exact) {
  double squares = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    const double error = values[i] - exact[i];
    squares += error * error;
  }
  return std::sqrt(squares / static_cast<double>(exact.size()));
}

inline double MaxError(const std::vector<float>& values,
                       const std::vector<double>& exact) {
  double worst = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    const double error = std::abs(values[i] - exact[i]);
    if (!(error <= worst)) worst = error;  // NaN too
  }
  return worst;
}

// The tolerance rule. `plain` may happen to be exact where little is computed:
// an ulp of the largest value is always granted.
inline void ExpectAsExactAsPlain(const std::vector<float>& values,
                                 const std::vector<float>& plain,
                                 const std::vector<double>& exact,
                                 DataType type = DataType::kF32) {
  ASSERT_EQ(values.size(), exact.size());
  ASSERT_EQ(plain.size(), exact.size());
  double largest = 0;
  for (double value : exact) largest = std::max(largest, std::abs(value));
  const double ulp = std::ldexp(largest, type == DataType::kF32 ? -23 : -7);
  EXPECT_LE(MaxError(values, exact), std::max(2 * MaxError(plain, exact), ulp));
  EXPECT_LE(RmsError(values, exact),
            std::max(2 * RmsError(plain, exact), ulp / 2));
}

inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [](float x, float y) {
           return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y);
         });
}

}  // namespace svdserve::kernels

#endif  // SVDSERVE_TESTS_KERNELS_KERNEL_TESTING_H_
