// Which half-layer kernels are compiled for Hopper, and which a launch takes.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "kernels/cuda/hopper/ffn_layer.cuh"
#include "kernels/cuda/hopper/ffn_layer.h"
#include "kernels/cuda/hopper/tensor_map.h"
#include "kernels/cuda/launch.cuh"

namespace svdserve::cuda::hopper {
namespace {

using row_blocks::Config;
using row_blocks::kPanel;
using row_blocks::kRows;
using row_blocks::LayerArguments;
using row_blocks::LayerConfig;
using row_blocks::Layout;

template <typename C>
__global__ void __launch_bounds__(row_blocks::kThreads, 1)
    FfnLayerKernel(const __grid_constant__ LayerArguments arguments) {
  row_blocks::LayerBlock<C>(arguments).Run();
}

struct Kernel {
  void (*run)(LayerArguments);
  Layout (*layout)(int in_rank, int shared_bytes);
  int hidden;
  int step;
  int in_columns;  // 0: any up to out_columns
  int out_columns;
  int piece_columns;
  int chunk;
  int tail_bytes;
  Activation activation;
};

template <typename C>
constexpr Kernel Compiled() {
  return {FfnLayerKernel<C>, C::LayoutFor,   C::kHidden,       C::kStep,
          C::kInColumns,     C::kOutColumns, C::kPieceColumns, C::kChunk,
          C::kTailBytes,     C::kActivation};
}

template <typename T, int kHidden, int kRank>
using Exact =
    LayerConfig<Config<T, 128, kRank, kRank, Activation::kGelu>, kHidden>;
template <typename T, int kHidden, int kOut, Activation kAct>
using Wide = LayerConfig<Config<T, 128, 0, kOut, kAct>, kHidden>;
template <typename T, int kHidden, int kOut, Activation kAct>
using Narrow = LayerConfig<Config<T, 64, 0, kOut, kAct>, kHidden>;

// The first that fits is taken; other ranks are padded to it. fused_ffn.cu says
// what each form is for; a stage of steps of 64 columns is too small below 256.
template <typename T>
const Kernel kKernels[] = {
    Compiled<Wide<T, 384, 128, Activation::kGelu>>(),
    Compiled<Exact<T, 384, 160>>(),
    Compiled<Wide<T, 384, 192, Activation::kGelu>>(),
    Compiled<Narrow<T, 384, 256, Activation::kGelu>>(),
    Compiled<Wide<T, 384, 192, Activation::kGeluTanh>>(),
    Compiled<Wide<T, 384, 192, Activation::kRelu>>(),
    Compiled<Wide<T, 768, 128, Activation::kGelu>>(),
    Compiled<Exact<T, 768, 192>>(),
    Compiled<Wide<T, 768, 192, Activation::kGelu>>(),
    Compiled<Narrow<T, 768, 256, Activation::kGelu>>(),
    Compiled<Narrow<T, 768, 288, Activation::kGelu>>(),
    Compiled<Narrow<T, 768, 320, Activation::kGelu>>(),
    Compiled<Wide<T, 768, 192, Activation::kGeluTanh>>(),
    Compiled<Narrow<T, 768, 256, Activation::kGeluTanh>>(),
    Compiled<Narrow<T, 768, 320, Activation::kGeluTanh>>(),
    Compiled<Wide<T, 768, 192, Activation::kRelu>>(),
    Compiled<Narrow<T, 768, 256, Activation::kRelu>>(),
    Compiled<Narrow<T, 768, 320, Activation::kRelu>>(),
};

template <typename T>
const Kernel* Find(int hidden, int in_rank, int out_rank, Activation activation,
                   const DeviceLimits& limits) {
  for (const Kernel& kernel : kKernels<T>) {
    if (kernel.hidden != hidden || kernel.activation != activation ||
        kernel.out_columns < std::max(in_rank, out_rank) ||
        (kernel.in_columns != 0 && kernel.in_columns != in_rank)) {
      continue;
    }
    const Layout layout = kernel.layout(in_rank, limits.shared_bytes);
    if (layout.end + kernel.tail_bytes <= limits.shared_bytes &&
        layout.stages >= 3) {
      return &kernel;
    }
  }
  return nullptr;
}

}  // namespace

bool FfnLayerTakes(int hidden, int in_rank, int out_rank, Activation activation,
                   const DeviceLimits& limits) {
  return Find<__half>(hidden, in_rank, out_rank, activation, limits) != nullptr;
}

cudaError_t FfnLayer(const FfnLayerParams& params, const DeviceLimits& limits,
                     cudaStream_t stream) {
  const auto find =
      params.type == Type::kBF16 ? Find<__nv_bfloat16> : Find<__half>;
  const Kernel* kernel = find(params.hidden, params.in_rank, params.out_rank,
                              params.activation, limits);
  if (kernel == nullptr) return cudaErrorNotSupported;
  if (params.rows == 0) return cudaSuccess;
  LayerArguments arguments;
  arguments.loop.b1 = params.b1;
  arguments.loop.in_rank = params.in_rank;
  arguments.loop.intermediate = params.intermediate;
  arguments.tail.bias = params.b2;
  arguments.tail.gamma = params.gamma;
  arguments.tail.beta = params.beta;
  arguments.tail.eps = params.eps;
  arguments.tail.rank = params.out_rank;
  arguments.shared_bytes = limits.shared_bytes;
  const auto matrix = [&params](const void* data, int64_t rows,
                                int64_t columns) {
    return MatrixView{params.type, data, rows, columns, columns};
  };
  const MatrixView x = matrix(params.x, params.rows, params.hidden);
  const cudaError_t error = MakeTensorMaps({
      {&arguments.u1,
       matrix(params.u1, params.in_rank, params.hidden),
       {kernel->piece_columns, kPanel}},
      {&arguments.loop.v1,
       matrix(params.v1, params.intermediate, params.in_rank),
       {kernel->step, kPanel}},
      {&arguments.loop.u2,
       matrix(params.u2, params.out_rank, params.intermediate),
       {kernel->piece_columns, kPanel}},
      {&arguments.tail.w,
       matrix(params.v2, params.hidden, params.out_rank),
       {kernel->chunk, kPanel}},
      {&arguments.tail.x, x, {row_blocks::kGroupRows, kPanel}},
      {&arguments.tail.result, x, {row_blocks::kWarpRows, kPanel}},
  });
  if (error != cudaSuccess) return error;
  const Layout layout = kernel->layout(params.in_rank, limits.shared_bytes);
  // Of any number of rows: a block has a multiprocessor to itself.
  return LaunchDependent(kernel->run, dim3((params.rows + kRows - 1) / kRows),
                         row_blocks::kThreads, layout.end + kernel->tail_bytes,
                         stream, arguments);
}

}  // namespace svdserve::cuda::hopper
