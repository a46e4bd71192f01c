// How kernels are launched and where their shared memory is. A kernel takes one
// struct by value and uses dynamic shared memory only.
#ifndef SVDSERVE_KERNELS_CUDA_LAUNCH_CUH_
#define SVDSERVE_KERNELS_CUDA_LAUNCH_CUH_

#include <cuda_runtime_api.h>

namespace svdserve::cuda {

// Launches beyond this many bytes need the attribute.
inline constexpr int kDefaultSharedBytes = 48 << 10;

template <typename Params>
cudaError_t Launch(void (*kernel)(Params), dim3 grid, int threads,
                   int shared_bytes, cudaStream_t stream,
                   const Params& params) {
  const void* function = reinterpret_cast<const void*>(kernel);
  if (shared_bytes > kDefaultSharedBytes) {
    const cudaError_t error = cudaFuncSetAttribute(
        function, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess) return error;
  }
  void* arguments[] = {const_cast<Params*>(&params)};
  return cudaLaunchKernel(function, grid, dim3(threads), arguments,
                          shared_bytes, stream);
}

#ifdef __CUDACC__
__device__ inline unsigned char* SharedMemory() {
  extern __shared__ __align__(128) unsigned char svdserve_shared[];
  return svdserve_shared;
}
#endif

}  // namespace svdserve::cuda

#endif  // SVDSERVE_KERNELS_CUDA_LAUNCH_CUH_
