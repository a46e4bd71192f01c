// In place of tests/kernels/cuda/device_memory.h: memory of the host.
#ifndef SVDSERVE_TESTS_KERNELS_CUDA_EMULATOR_DEVICE_MEMORY_H_
#define SVDSERVE_TESTS_KERNELS_CUDA_EMULATOR_DEVICE_MEMORY_H_

#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "kernels/cuda/types.h"
#include "tests/kernels/cuda/emulator/emulator.h"

namespace svdserve::cuda {

inline constexpr bool kOnDevice = false;
inline constexpr bool kLarge = false;  // whether large shapes are run

// Aligned as cudaMalloc() aligns, and not a byte longer than asked for, so that
// AddressSanitizer sees what lies outside.
inline void* AllocateDevice(size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 256, bytes) != 0) std::abort();
  std::memset(memory, 0xff, bytes);
  return memory;
}
inline void FreeDevice(void* memory) { std::free(memory); }
inline void CopyToDevice(void* device, const void* host, size_t bytes) {
  std::memcpy(device, host, bytes);
}
inline void CopyToHost(void* host, const void* device, size_t bytes) {
  std::memcpy(host, device, bytes);
}
inline cudaError_t WaitForDevice() { return cudaSuccess; }

// A100, but for its size: small grids are what is tested here.
inline DeviceLimits TestLimits() { return {80, 4, 163 << 10}; }

}  // namespace svdserve::cuda

#endif  // SVDSERVE_TESTS_KERNELS_CUDA_EMULATOR_DEVICE_MEMORY_H_
