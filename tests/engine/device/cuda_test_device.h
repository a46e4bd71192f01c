// The GPUs that the tests of the CUDA backend run on, most of them on number 0.
// emulated/ has another version of this header: kernels on the CPU, memory of
// the host.
#ifndef SVDSERVE_TESTS_ENGINE_DEVICE_CUDA_TEST_DEVICE_H_
#define SVDSERVE_TESTS_ENGINE_DEVICE_CUDA_TEST_DEVICE_H_

#include <memory>

#include "engine/device/cuda_runtime.h"
#include "gtest/gtest.h"

namespace svdserve {

// Of this machine.
inline const int kTestDevices = [] {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}();

inline std::unique_ptr<CudaRuntime> OpenTestDevice(int index = 0) {
  auto runtime = OpenCudaDevice(index);
  EXPECT_TRUE(runtime.ok()) << runtime.status();
  return runtime.ok() ? *std::move(runtime) : nullptr;
}

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_ENGINE_DEVICE_CUDA_TEST_DEVICE_H_
