// What the CUDA kernels share: element types, activations, and how launchers
// report. A launcher checks its parameters on the host, enqueues on the stream,
// never synchronises, and returns cudaErrorInvalidValue for parameters that
// make no sense, cudaErrorNotSupported for a shape that its tables refuse, or
// what the runtime said.
#ifndef SVDSERVE_KERNELS_CUDA_TYPES_H_
#define SVDSERVE_KERNELS_CUDA_TYPES_H_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace svdserve::cuda {

// Of activations and weights; sums are fp32 everywhere.
enum class Type { kBF16, kF16 };
inline constexpr int kElementBytes = 2;

enum class Activation { kNone, kGelu, kGeluTanh, kRelu, kSilu };

// What the launchers' tables depend on; read once from the device.
struct DeviceLimits {
  int sm = 80;  // 80, 86, 89, 90
  int multiprocessors = 0;
  int shared_bytes = 0;  // most dynamic shared memory of one block
};

// Batches of up to so many tokens take tiles and launches (launch.cuh) of few
// rows.
inline constexpr int kFewRows = 256;

// Of null, too.
inline bool IsAligned(const void* pointer, uintptr_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

}  // namespace svdserve::cuda

#endif  // SVDSERVE_KERNELS_CUDA_TYPES_H_
