// Which fused FFN kernels are compiled for Hopper, and which a launch takes.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/hopper/fused_ffn.cuh"
#include "kernels/cuda/hopper/fused_ffn.h"
#include "kernels/cuda/hopper/tensor_map.h"
#include "kernels/cuda/launch.cuh"

namespace svdserve::cuda::hopper {
namespace {

using row_blocks::Arguments;
using row_blocks::Config;
using row_blocks::kPanel;
using row_blocks::kRows;
using row_blocks::Layout;

template <typename C>
__global__ void __launch_bounds__(row_blocks::kThreads, 1)
    FusedFfnKernel(const __grid_constant__ Arguments arguments) {
  row_blocks::Block<C>(arguments).Run();
}

struct Kernel {
  void (*run)(Arguments);
  int step;
  int in_columns;  // 0: any
  int out_columns;
  int piece_columns;
  Activation activation;
};

template <typename C>
constexpr Kernel Compiled() {
  return {FusedFfnKernel<C>, C::kStep,         C::kInColumns,
          C::kOutColumns,    C::kPieceColumns, C::kActivation};
}

// Milliseconds: H100, bf16, 16384 rows, intermediate 3072.
//
// Both ranks the same. 192 -> 192: 0.060, Wide 0.062, Narrow 0.063.
template <typename T, int kRank, Activation kAct>
using Exact = Config<T, 128, kRank, kRank, kAct>;
template <typename T, int kOut, Activation kAct>
using Wide = Config<T, 128, 0, kOut, kAct>;
// 320 -> 320: 0.092. Steps of 128 columns and wider z do not fit registers
// together.
template <typename T, int kOut, Activation kAct>
using Narrow = Config<T, 64, 0, kOut, kAct>;

// The first that fits is taken; other ranks are padded to it.
template <typename T>
const Kernel kKernels[] = {
    Compiled<Exact<T, 128, Activation::kGelu>>(),
    Compiled<Wide<T, 128, Activation::kGelu>>(),
    Compiled<Exact<T, 160, Activation::kGelu>>(),
    Compiled<Wide<T, 160, Activation::kGelu>>(),
    Compiled<Exact<T, 192, Activation::kGelu>>(),
    Compiled<Wide<T, 192, Activation::kGelu>>(),
    Compiled<Narrow<T, 192, Activation::kGelu>>(),
    Compiled<Narrow<T, 224, Activation::kGelu>>(),
    Compiled<Narrow<T, 256, Activation::kGelu>>(),
    Compiled<Narrow<T, 288, Activation::kGelu>>(),
    Compiled<Narrow<T, 320, Activation::kGelu>>(),
    Compiled<Wide<T, 192, Activation::kGeluTanh>>(),
    Compiled<Narrow<T, 256, Activation::kGeluTanh>>(),
    Compiled<Narrow<T, 320, Activation::kGeluTanh>>(),
    Compiled<Wide<T, 192, Activation::kRelu>>(),
    Compiled<Narrow<T, 256, Activation::kRelu>>(),
    Compiled<Narrow<T, 320, Activation::kRelu>>(),
};

Layout LayoutOf(const Kernel& kernel, const FusedFfnParams& params,
                const DeviceLimits& limits) {
  return Layout(params.in_rank, kernel.step, kernel.out_columns,
                row_blocks::PanelsOf(params.in_rank), row_blocks::kMostStages,
                limits.shared_bytes);
}

template <typename T>
const Kernel* Find(const FusedFfnParams& params, const DeviceLimits& limits) {
  if (params.gate != nullptr) return nullptr;
  const Kernel* tight = nullptr;
  for (const Kernel& kernel : kKernels<T>) {
    if (kernel.out_columns < params.out_rank ||
        (kernel.in_columns != 0 && kernel.in_columns != params.in_rank) ||
        kernel.activation != params.activation) {
      continue;
    }
    const Layout layout = LayoutOf(kernel, params, limits);
    if (layout.end > limits.shared_bytes) continue;
    // A step takes two tiles; a third is on its way meanwhile.
    if (layout.stages >= 3) return &kernel;
    if (layout.stages == 2 && tight == nullptr) tight = &kernel;
  }
  return tight;
}

const Kernel* FindOf(const FusedFfnParams& params, const DeviceLimits& limits) {
  return params.type == Type::kBF16 ? Find<__nv_bfloat16>(params, limits)
                                    : Find<__half>(params, limits);
}

}  // namespace

bool FusedFfnTakes(const FusedFfnParams& params, const DeviceLimits& limits) {
  return FindOf(params, limits) != nullptr;
}

cudaError_t FusedFfn(const FusedFfnParams& params, const DeviceLimits& limits,
                     cudaStream_t stream) {
  const Kernel* kernel = FindOf(params, limits);
  if (kernel == nullptr) return cudaErrorNotSupported;
  if (params.rows == 0) return cudaSuccess;
  Arguments arguments;
  arguments.loop.b1 = params.b1;
  arguments.loop.in_rank = params.in_rank;
  arguments.loop.intermediate = params.intermediate;
  arguments.rows = params.rows;
  arguments.shared_bytes = limits.shared_bytes;
  const cudaError_t error = MakeTensorMaps({
      {&arguments.p,
       {params.type, params.p, params.rows, params.in_rank, params.p_stride},
       {kRows, kPanel}},
      {&arguments.loop.v1,
       {params.type, params.v1, params.intermediate, params.in_rank,
        params.in_rank},
       {kernel->step, kPanel}},
      {&arguments.loop.u2,
       {params.type, params.u2, params.out_rank, params.intermediate,
        params.intermediate},
       {kernel->piece_columns, kPanel}},
      {&arguments.z,
       {params.type, params.z, params.rows, params.out_rank, params.z_stride},
       {row_blocks::kGroupRows, kPanel}},
  });
  if (error != cudaSuccess) return error;
  // Of any number of rows: a block has a multiprocessor to itself.
  return LaunchDependent(kernel->run, dim3((params.rows + kRows - 1) / kRows),
                         row_blocks::kThreads,
                         LayoutOf(*kernel, params, limits).end, stream,
                         arguments);
}

}  // namespace svdserve::cuda::hopper
