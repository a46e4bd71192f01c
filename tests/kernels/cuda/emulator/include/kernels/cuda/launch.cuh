// In place of kernels/cuda/launch.cuh: a launch runs the grid on the CPU, and
// returns when all of it has run. Streams mean nothing. What is launched as
// dependent must wait, in every thread.
#ifndef SVDSERVE_TESTS_KERNELS_CUDA_EMULATOR_LAUNCH_CUH_
#define SVDSERVE_TESTS_KERNELS_CUDA_EMULATOR_LAUNCH_CUH_

#include "kernels/cuda/types.h"
#include "tests/kernels/cuda/emulator/emulator.h"

namespace svdserve::cuda {

inline constexpr int kDefaultSharedBytes = 48 << 10;

template <typename Params>
cudaError_t Launch(void (*kernel)(Params), dim3 grid, int threads,
                   int shared_bytes, cudaStream_t /*stream*/,
                   const Params& params) {
  return emulator::Run(__PRETTY_FUNCTION__, grid, threads, shared_bytes,
                       [kernel, &params] { kernel(params); });
}

template <typename Params>
cudaError_t LaunchDependent(void (*kernel)(Params), dim3 grid, int threads,
                            int shared_bytes, cudaStream_t /*stream*/,
                            const Params& params) {
  return emulator::Run(
      __PRETTY_FUNCTION__, grid, threads, shared_bytes,
      [kernel, &params] { kernel(params); }, true);
}

inline void WaitForPriorKernels() { emulator::WaitForPriorKernels(); }
inline void LetNextKernelStart() { emulator::LetNextKernelStart(); }
inline void LetNextKernelStartIfFew(int64_t /*rows*/) { LetNextKernelStart(); }
inline int SpreadIfFew(int bytes, int64_t /*blocks*/, int64_t /*rows*/,
                       const DeviceLimits& /*limits*/) {
  return bytes;
}
inline unsigned char* SharedMemory() { return emulator::SharedMemory(); }

}  // namespace svdserve::cuda

#endif  // SVDSERVE_TESTS_KERNELS_CUDA_EMULATOR_LAUNCH_CUH_
