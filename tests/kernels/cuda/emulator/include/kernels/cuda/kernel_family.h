// In place of kernels/cuda/kernel_family.h: portable kernels alone.
#ifndef SVDSERVE_TESTS_KERNELS_CUDA_EMULATOR_KERNEL_FAMILY_H_
#define SVDSERVE_TESTS_KERNELS_CUDA_EMULATOR_KERNEL_FAMILY_H_

#include "kernels/cuda/types.h"

namespace svdserve::cuda {

inline constexpr bool kHopperLinked = false;

inline bool TakesHopperKernels(const DeviceLimits& /*limits*/) { return false; }

class ScopedPortableKernels {
 public:
  ScopedPortableKernels() {}
  ~ScopedPortableKernels() {}
  ScopedPortableKernels(const ScopedPortableKernels&) = delete;
  ScopedPortableKernels& operator=(const ScopedPortableKernels&) = delete;
};

}  // namespace svdserve::cuda

#endif  // SVDSERVE_TESTS_KERNELS_CUDA_EMULATOR_KERNEL_FAMILY_H_
