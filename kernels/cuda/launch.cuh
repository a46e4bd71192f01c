// How kernels are launched and where their shared memory is. A kernel takes one
// struct by value and uses dynamic shared memory only.
//
// From sm_90 on a kernel may start before those before it in the stream have
// ended (programmatic dependent launch): its launch costs no time then, and it
// fetches weights meanwhile. LaunchDependent() allows it; the kernel keeps to
// three rules.
//   1. Every thread calls WaitForPriorKernels() once, whatever its way.
//   2. Before that it writes nothing to global memory, and reads only weights
//      and what a kernel at least two before it, or a copy, has written. What
//      kernels write is never read by __ldg(), which might move up.
//   3. LetNextKernelStart() comes after it, if at all: a block that ends lets
//   it
//      start too. So no more than two kernels are under way at once, and all
//      before those have ended.
#ifndef SVDSERVE_KERNELS_CUDA_LAUNCH_CUH_
#define SVDSERVE_KERNELS_CUDA_LAUNCH_CUH_

#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "kernels/cuda/types.h"

namespace svdserve::cuda {

// Launches beyond this many bytes need the attribute.
inline constexpr int kDefaultSharedBytes = 48 << 10;

// Whether kernels wait in WaitForPriorKernels() on the current device: they
// were compiled for sm_90 or later, which `function` tells of all. PTX of an
// older architecture has no waits.
inline bool KernelsWait(const void* function) {
  enum Answer : signed char { kUnknown, kYes, kNo };
  constexpr int kDevices = 64;
  static std::atomic<Answer> answers[kDevices];
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || device >= kDevices) return false;
  if (answers[device] == kUnknown) {
    cudaFuncAttributes attributes;
    if (cudaFuncGetAttributes(&attributes, function) != cudaSuccess) {
      return false;  // the launch will say why
    }
    answers[device] = attributes.ptxVersion >= 90 ? kYes : kNo;
  }
  return answers[device] == kYes;
}

// `cluster` blocks of neighbouring x form a cluster.
inline cudaError_t LaunchFunction(const void* function, dim3 grid, int threads,
                                  int shared_bytes, cudaStream_t stream,
                                  void* params, bool dependent, int cluster) {
  if (shared_bytes > kDefaultSharedBytes) {
    const cudaError_t error = cudaFuncSetAttribute(
        function, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess) return error;
  }
  cudaLaunchAttribute attributes[2] = {};
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  if (dependent && KernelsWait(function)) {
    cudaLaunchAttribute& early = attributes[config.numAttrs++];
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 1) {
    cudaLaunchAttribute& together = attributes[config.numAttrs++];
    together.id = cudaLaunchAttributeClusterDimension;
    together.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  }
  return cudaLaunchKernelExC(&config, function, &params);
}

// Starts when the kernels before it have ended.
template <typename Params>
cudaError_t Launch(void (*kernel)(Params), dim3 grid, int threads,
                   int shared_bytes, cudaStream_t stream,
                   const Params& params) {
  return LaunchFunction(reinterpret_cast<const void*>(kernel), grid, threads,
                        shared_bytes, stream, const_cast<Params*>(&params),
                        false, 1);
}

// The same of a kernel that keeps to the rules above.
template <typename Params>
cudaError_t LaunchDependent(void (*kernel)(Params), dim3 grid, int threads,
                            int shared_bytes, cudaStream_t stream,
                            const Params& params, int cluster = 1) {
  return LaunchFunction(reinterpret_cast<const void*>(kernel), grid, threads,
                        shared_bytes, stream, const_cast<Params*>(&params),
                        true, cluster);
}

// Of so many blocks that each take `bytes` of shared memory: what they ask for
// so that none starts early beside others while multiprocessors are left.
inline int SpreadBytes(int bytes, int64_t blocks, const DeviceLimits& limits) {
  constexpr int kReserved = 1 << 10;  // of each block, by the device
  const int64_t multiprocessors = std::max(1, limits.multiprocessors);
  const int64_t most = (blocks + multiprocessors - 1) / multiprocessors;
  // One more than `most` does not fit.
  const int64_t spread =
      (limits.shared_bytes + kReserved) / (most + 1) + 16 - kReserved;
  return std::max<int64_t>(
      bytes, std::min<int64_t>(spread / 16 * 16, limits.shared_bytes));
}

// The same of kernels that let the next one start early for few rows alone.
inline int SpreadIfFew(int bytes, int64_t blocks, int64_t rows,
                       const DeviceLimits& limits) {
  return rows <= kFewRows ? SpreadBytes(bytes, blocks, limits) : bytes;
}

#ifdef __CUDACC__
__device__ inline unsigned char* SharedMemory() {
  extern __shared__ __align__(128) unsigned char svdserve_shared[];
  return svdserve_shared;
}

// Until the kernels before this one have ended and what they wrote is seen.
__device__ inline void WaitForPriorKernels() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The next kernel may start once all blocks have called this, or ended.
__device__ inline void LetNextKernelStart() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// The same where a batch, or a part of one, has few rows. Of many, blocks that
// start early crowd the multiprocessors that are free then, while others idle
// later: 1024 rows of BERT-base took 1.12 ms for 0.92.
__device__ inline void LetNextKernelStartIfFew(int64_t rows) {
  if (rows <= kFewRows) LetNextKernelStart();
}
#endif

}  // namespace svdserve::cuda

#endif  // SVDSERVE_KERNELS_CUDA_LAUNCH_CUH_
