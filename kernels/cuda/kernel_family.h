// Which family of kernels a launcher takes. The portable kernels (mma.sync) run
// on sm_80 and later; those of kernels/cuda/hopper (wgmma, bulk copies) on
// compute capability 9.0 alone. Both give the same bits, so that a choice by
// device changes no result.
#ifndef SVDSERVE_KERNELS_CUDA_KERNEL_FAMILY_H_
#define SVDSERVE_KERNELS_CUDA_KERNEL_FAMILY_H_

#include <atomic>

#include "kernels/cuda/types.h"

namespace svdserve::cuda {

// False where kernels/cuda/hopper is not linked: the emulator has its own
// version of this header. Launchers ask it by `if constexpr`.
inline constexpr bool kHopperLinked = true;

// Whether launchers take Hopper kernels on the current device: `limits` say
// sm_90, the device loads their machine code (with CUDA_FORCE_PTX_JIT=1 it does
// not), and no ScopedPortableKernels lives. Thread-safe; the device is asked
// once. Shapes that a Hopper kernel does not have go to the portable one.
bool TakesHopperKernels(const DeviceLimits& limits);

// While one lives, all threads' launches are portable: for tests and
// benchmarks that compare the families. Kernels already captured in a graph
// stay what they are.
//
//   const ScopedPortableKernels portable;
//   Gemm(params, limits, stream);
class ScopedPortableKernels {
 public:
  ScopedPortableKernels() { ++living_; }
  ~ScopedPortableKernels() { --living_; }
  ScopedPortableKernels(const ScopedPortableKernels&) = delete;
  ScopedPortableKernels& operator=(const ScopedPortableKernels&) = delete;

  static bool Lives() { return living_ > 0; }

 private:
  inline static std::atomic<int> living_ = 0;
};

}  // namespace svdserve::cuda

#endif  // SVDSERVE_KERNELS_CUDA_KERNEL_FAMILY_H_
