// What the tests of CUDA kernels share. One source of a test runs emulated (the
// default) or, built by nvcc, on a GPU; kOnDevice says which. kLarge says
// whether large shapes are run.
//
//   Random random;                                  // prints its seed
//   const auto x = Rounded(type, random.Normal(rows * in));
//   DeviceBuffer<uint16_t> x_device(Encode(type, x));
//   DeviceBuffer<uint16_t> y_device(rows * out);    // NaN
//   ASSERT_TRUE(Ran(Gemm(params, TestLimits(), nullptr)));
//   EXPECT_LT(RelativeError(Decode(type, y_device.ToHost()), exact), 4e-3);
#ifndef SVDSERVE_TESTS_KERNELS_CUDA_DEVICE_BUFFER_H_
#define SVDSERVE_TESTS_KERNELS_CUDA_DEVICE_BUFFER_H_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <ostream>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/types.h"
#include "tests/kernels/cuda/device_memory.h"

namespace svdserve::cuda {

// Elements in the device's memory, aligned as cudaMalloc() aligns.
template <typename T>
class DeviceBuffer {
 public:
  // NaN patterns.
  explicit DeviceBuffer(size_t count)
      : count_(count), data_(AllocateDevice(count * sizeof(T))) {}
  explicit DeviceBuffer(const std::vector<T>& values)
      : DeviceBuffer(values.size()) {
    CopyToDevice(data_.get(), values.data(), count_ * sizeof(T));
  }

  size_t size() const { return count_; }
  T* data() { return static_cast<T*>(data_.get()); }
  const T* data() const { return static_cast<const T*>(data_.get()); }
  std::vector<T> ToHost() const {
    std::vector<T> values(count_);
    CopyToHost(values.data(), data_.get(), count_ * sizeof(T));
    return values;
  }

 private:
  struct Free {
    void operator()(void* memory) const { FreeDevice(memory); }
  };
  size_t count_;
  std::unique_ptr<void, Free> data_;
};

// Whether a launch was accepted and ran to its end.
inline ::testing::AssertionResult Ran(cudaError_t launched) {
  if (launched != cudaSuccess) {
    return ::testing::AssertionFailure() << "launch: error " << launched;
  }
  const cudaError_t error = WaitForDevice();
  if (error == cudaSuccess) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "run: error " << error;
}

// ---- Values ----

inline void PrintTo(Type type, std::ostream* out) {
  *out << (type == Type::kBF16 ? "bf16" : "f16");
}

// A new seed each time, printed; SVDSERVE_SEED repeats one.
class Random {
 public:
  Random() : Random(Seed()) {}
  explicit Random(uint32_t seed) : generator_(seed) {
    std::printf("SVDSERVE_SEED=%u\n", seed);
  }

  std::vector<float> Normal(size_t count, float deviation = 1) {
    std::normal_distribution<float> normal(0, deviation);
    std::vector<float> values(count);
    for (float& value : values) value = normal(generator_);
    return values;
  }
  // Both bounds included.
  int Integer(int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(generator_);
  }

 private:
  static uint32_t Seed() {
    const char* seed = std::getenv("SVDSERVE_SEED");
    return seed ? static_cast<uint32_t>(std::strtoul(seed, nullptr, 10))
                : std::random_device()();
  }
  std::mt19937 generator_;
};

inline std::vector<uint16_t> Encode(Type type,
                                    const std::vector<float>& values) {
  std::vector<uint16_t> bits(values.size());
  for (size_t i = 0; i < bits.size(); ++i) {
    bits[i] = type == Type::kBF16
                  ? __bfloat16_as_ushort(__float2bfloat16_rn(values[i]))
                  : __half_as_ushort(__float2half_rn(values[i]));
  }
  return bits;
}

inline std::vector<float> Decode(Type type, const std::vector<uint16_t>& bits) {
  std::vector<float> values(bits.size());
  for (size_t i = 0; i < bits.size(); ++i) {
    values[i] = type == Type::kBF16
                    ? __bfloat162float(__ushort_as_bfloat16(bits[i]))
                    : __half2float(__ushort_as_half(bits[i]));
  }
  return values;
}

// As stored.
inline std::vector<float> Rounded(Type type, const std::vector<float>& values) {
  return Decode(type, Encode(type, values));
}

// ||values - exact|| / ||exact||, or ||values|| where all of `exact` is 0; NaN
// if any value is.
inline double RelativeError(const std::vector<float>& values,
                            const std::vector<double>& exact) {
  EXPECT_EQ(values.size(), exact.size());
  double errors = 0;
  double squares = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    errors += (values[i] - exact[i]) * (values[i] - exact[i]);
    squares += exact[i] * exact[i];
  }
  return std::sqrt(squares > 0 ? errors / squares : errors);
}

}  // namespace svdserve::cuda

#endif  // SVDSERVE_TESTS_KERNELS_CUDA_DEVICE_BUFFER_H_
