// Memory of the GPU that the tests run on. The emulator has its own version of
// this header: memory of the host.
#ifndef SVDSERVE_TESTS_KERNELS_CUDA_DEVICE_MEMORY_H_
#define SVDSERVE_TESTS_KERNELS_CUDA_DEVICE_MEMORY_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>

#include "kernels/cuda/types.h"

namespace svdserve::cuda {

inline constexpr bool kOnDevice = true;

// Whether large shapes are worth running: not under a sanitizer, which makes a
// kernel 10 to 1000 times slower (tests/gpu/run_all sets the variable then).
inline const bool kLarge = std::getenv("SVDSERVE_SMALL_SHAPES") == nullptr;

inline void Check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(error));
  std::abort();
}

// Filled with NaN patterns.
inline void* AllocateDevice(size_t bytes) {
  void* memory = nullptr;
  if (bytes == 0) return nullptr;
  Check(cudaMalloc(&memory, bytes));
  Check(cudaMemset(memory, 0xff, bytes));
  return memory;
}
inline void FreeDevice(void* memory) { Check(cudaFree(memory)); }
inline void CopyToDevice(void* device, const void* host, size_t bytes) {
  if (bytes == 0) return;
  Check(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice));
}
inline void CopyToHost(void* host, const void* device, size_t bytes) {
  if (bytes == 0) return;
  Check(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost));
}
inline cudaError_t WaitForDevice() { return cudaDeviceSynchronize(); }

inline DeviceLimits TestLimits() {
  const auto get = [](cudaDeviceAttr attribute) {
    int value = 0;
    Check(cudaDeviceGetAttribute(&value, attribute, 0));
    return value;
  };
  return {get(cudaDevAttrComputeCapabilityMajor) * 10 +
              get(cudaDevAttrComputeCapabilityMinor),
          get(cudaDevAttrMultiProcessorCount),
          get(cudaDevAttrMaxSharedMemoryPerBlockOptin)};
}

}  // namespace svdserve::cuda

#endif  // SVDSERVE_TESTS_KERNELS_CUDA_DEVICE_MEMORY_H_
