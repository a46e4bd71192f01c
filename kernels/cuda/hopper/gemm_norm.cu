// Which kernels of gemm_norm.cuh there are, and which a launch takes.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <array>
#include <atomic>

#include "kernels/cuda/hopper/gemm_norm.cuh"
#include "kernels/cuda/hopper/gemm_norm.h"
#include "kernels/cuda/hopper/tensor_map.h"
#include "kernels/cuda/launch.cuh"

namespace svdserve::cuda::hopper {
namespace {

using gemm_norm::Config;
using gemm_norm::DivideUp;
using gemm_norm::GemmNormBlock;
using gemm_norm::kConsumers;
using gemm_norm::kDepth;
using gemm_norm::KernelParams;
using gemm_norm::kMinStages;
using gemm_norm::kPanel;
using gemm_norm::kRows;
using gemm_norm::kSlices;
using gemm_norm::kThreads;
using gemm_norm::kWarpRows;
using gemm_norm::Share;

template <typename C>
__global__ void __cluster_dims__(C::kBlocks, 1, 1)
    __launch_bounds__(kThreads, 1)
        GemmNormKernel(const __grid_constant__ KernelParams params) {
  GemmNormBlock<C>(params).Run();
}

// Clusters that run at once: fewer than multiprocessors would give, since a
// cluster does not span their groups.
template <typename C>
int ClustersAtOnce(int shared_bytes) {
  static std::array<std::atomic<int>, 64> of_device;
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || device >= 64) return 1;
  int clusters = of_device[device];
  if (clusters > 0) return clusters;
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {C::kBlocks, 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(C::kBlocks);
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = shared_bytes;
  config.attrs = &attribute;
  config.numAttrs = 1;
  if (cudaFuncSetAttribute(GemmNormKernel<C>,
                           cudaFuncAttributeMaxDynamicSharedMemorySize,
                           shared_bytes) != cudaSuccess ||
      cudaOccupancyMaxActiveClusters(&clusters, GemmNormKernel<C>, &config) !=
          cudaSuccess) {
    return 1;
  }
  of_device[device] = std::max(1, clusters);
  return std::max(1, clusters);
}

template <typename C>
cudaError_t LaunchAs(const GemmNormParams& p, const DeviceLimits& limits,
                     cudaStream_t stream) {
  KernelParams params;
  const MatrixView x = {p.type, p.x, p.rows, p.hidden, p.hidden};
  const cudaError_t error = MakeTensorMaps({
      {&params.y,
       {p.type, p.y, p.rows, p.in, p.y_stride},
       {C::kTurnRows, kDepth}},
      {&params.w, {p.type, p.w, p.hidden, p.in, p.in}, {C::kColumns, kDepth}},
      {&params.x, x, {C::kTurnRows, kPanel}},
      {&params.result,
       x,
       {kWarpRows, C::kResultPanel,
        C::kResultPanel == 64 ? Swizzle::k128Bytes : Swizzle::k64Bytes}},
  });
  if (error != cudaSuccess) return error;
  params.bias = p.bias;
  params.gamma = p.gamma;
  params.beta = p.beta;
  params.eps = p.eps;
  params.rows = p.rows;
  params.in = p.in;
  params.stages = C::Stages(p.in, limits.shared_bytes);
  const int clusters = std::min(DivideUp(p.rows, C::kTurnRows),
                                ClustersAtOnce<C>(limits.shared_bytes));
  // Of any number of rows: a block has a multiprocessor to itself, so that
  // those that start early crowd none.
  return LaunchDependent(GemmNormKernel<C>, dim3(clusters * C::kBlocks),
                         kThreads, C::SharedBytes(p.in, params.stages), stream,
                         params);
}

template <int kHidden, int kBlocks, bool kStreamed>
bool Fits(const GemmNormParams& p, const DeviceLimits& limits) {
  constexpr Share kShared = kStreamed ? Share::kRows : Share::kTurns;
  using C = Config<__half, kHidden, kBlocks, kStreamed, kShared>;
  return C::Stages(p.in, limits.shared_bytes) >= kMinStages;
}

// Few rows with memory for their update are left to more blocks.
template <int kHidden, int kBlocks>
bool Has(const GemmNormParams& p, const DeviceLimits& limits) {
  return Fits<kHidden, kBlocks, false>(p, limits) ||
         (p.update == nullptr && Fits<kHidden, kBlocks, true>(p, limits));
}

template <int kHidden, int kBlocks, bool kStreamed, Share kShared>
cudaError_t LaunchType(const GemmNormParams& p, const DeviceLimits& limits,
                       cudaStream_t stream) {
  using Half = Config<__half, kHidden, kBlocks, kStreamed, kShared>;
  using BFloat = Config<__nv_bfloat16, kHidden, kBlocks, kStreamed, kShared>;
  return p.type == Type::kF16 ? LaunchAs<Half>(p, limits, stream)
                              : LaunchAs<BFloat>(p, limits, stream);
}

template <int kHidden, int kBlocks, bool kStreamed>
cudaError_t LaunchShare(const GemmNormParams& p, const DeviceLimits& limits,
                        cudaStream_t stream) {
  // A slice of the sums is one warp's, so that a block needs two of them.
  if constexpr (kSlices / kBlocks >= kConsumers) {
    if (DivideUp(p.rows, kRows) * kBlocks <= limits.multiprocessors) {
      return LaunchType<kHidden, kBlocks, kStreamed, Share::kColumns>(p, limits,
                                                                      stream);
    }
  }
  return LaunchType < kHidden, kBlocks, kStreamed,
         kStreamed ? Share::kRows : Share::kTurns > (p, limits, stream);
}

template <int kHidden, int kBlocks>
cudaError_t LaunchOf(const GemmNormParams& p, const DeviceLimits& limits,
                     cudaStream_t stream) {
  return Fits<kHidden, kBlocks, false>(p, limits)
             ? LaunchShare<kHidden, kBlocks, false>(p, limits, stream)
             : LaunchShare<kHidden, kBlocks, true>(p, limits, stream);
}

}  // namespace

bool GemmNormHas(const GemmNormParams& params, const DeviceLimits& limits) {
  switch (params.hidden) {
    case 384:
      return Has<384, 2>(params, limits);
    case 768:
      return Has<768, 4>(params, limits);
    case 1024:
      return Has<1024, 8>(params, limits);
    default:
      return false;
  }
}

cudaError_t GemmNorm(const GemmNormParams& params, const DeviceLimits& limits,
                     cudaStream_t stream) {
  if (!GemmNormHas(params, limits)) return cudaErrorNotSupported;
  if (params.rows == 0) return cudaSuccess;
  switch (params.hidden) {
    case 384:
      return LaunchOf<384, 2>(params, limits, stream);
    case 768:
      return LaunchOf<768, 4>(params, limits, stream);
    default:
      return LaunchOf<1024, 8>(params, limits, stream);
  }
}

}  // namespace svdserve::cuda::hopper
