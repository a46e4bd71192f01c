// The GPU that the tests of the CUDA backend run on. emulated/ has another
// version of this header: kernels on the CPU, memory of the host.
#ifndef SVDSERVE_TESTS_ENGINE_DEVICE_CUDA_TEST_DEVICE_H_
#define SVDSERVE_TESTS_ENGINE_DEVICE_CUDA_TEST_DEVICE_H_

#include <memory>

#include "engine/device/cuda_runtime.h"
#include "gtest/gtest.h"

namespace svdserve {

inline std::unique_ptr<CudaRuntime> OpenTestDevice() {
  auto runtime = OpenCudaDevice(0);
  EXPECT_TRUE(runtime.ok()) << runtime.status();
  return runtime.ok() ? *std::move(runtime) : nullptr;
}

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_ENGINE_DEVICE_CUDA_TEST_DEVICE_H_
