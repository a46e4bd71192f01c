// Which fused FFN kernels are compiled, and which of them a launch takes.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/fused_ffn.cuh"
#include "kernels/cuda/fused_ffn.h"
#include "kernels/cuda/hopper/fused_ffn.h"
#include "kernels/cuda/kernel_family.h"
#include "kernels/cuda/launch.cuh"

namespace svdserve::cuda {
namespace {

using fused_ffn::Config;

template <typename C>
__global__ void __launch_bounds__(C::kThreads, 1)
    FusedFfnKernel(const FusedFfnParams params) {
  fused_ffn::Block<C>(params).Run();
}

// GELU alone but for Short and Gated, since each activation would be all these
// kernels again. Milliseconds: H100, bf16, intermediate 3072.
//
// Many rows: the more columns a step has, the fewer fragments of p are read and
// the fewer barriers passed. 16384 rows of 192 -> 192: 0.115, Tall 0.130. Sums
// of 128 columns and wider z do not fit registers together.
template <typename T, int kOut>
using Wide = Config<T, 128, 128, kOut, false, true>;
// 320 -> 320: 0.191.
template <typename T, int kOut>
using Tall = Config<T, 128, 64, kOut, false, true>;
// Few rows, each block alone on its multiprocessor. 8192 rows of 192 -> 192:
// 0.071 with eight warps, 0.077 with four, 0.089 by steps of 64, Wide 0.112.
template <typename T, int kOut>
using LowWide = Config<T, 64, 128, kOut, false, true, 4>;
// 320 -> 320: 0.122, with eight warps 0.132, Tall 0.189.
template <typename T, int kOut>
using Low = Config<T, 64, 64, kOut, false, true>;
// Any activation, and 99 KB. Two blocks share a multiprocessor where it has the
// memory.
template <typename T, int kOut>
using Short = Config<T, 64, 32, kOut, false, false>;
// 32 columns of two weights take the registers of 64 of one.
template <typename T, int kOut>
using Gated = Config<T, 64, 32, kOut, true, false>;

template <typename C>
constexpr int SharedBytes(int in_rank) {
  return fused_ffn::Layout<C>(in_rank).SharedBytes();
}
static_assert(SharedBytes<Wide<__half, 192>>(192) <= 227 << 10);     // sm_90
static_assert(SharedBytes<Tall<__half, 320>>(384) <= 227 << 10);     // sm_90
static_assert(SharedBytes<Tall<__half, 192>>(192) <= 163 << 10);     // sm_80
static_assert(SharedBytes<LowWide<__half, 192>>(192) <= 163 << 10);  // sm_80
static_assert(SharedBytes<Low<__half, 320>>(320) <= 163 << 10);      // sm_80
static_assert(SharedBytes<Short<__half, 320>>(320) <= 99 << 10);     // sm_86
static_assert(SharedBytes<Gated<__half, 320>>(384) <= 163 << 10);    // sm_80
static_assert(SharedBytes<Gated<__half, 320>>(256) <= 99 << 10);     // sm_86

struct Kernel {
  void (*run)(FusedFfnParams);
  int (*shared_bytes)(int in_rank);
  int rows;  // of a block
  int threads;
  int out_columns;
  bool gated;
  bool gelu_only;
};

template <typename C>
constexpr Kernel Compiled() {
  return {FusedFfnKernel<C>, SharedBytes<C>,   C::kRows,    C::kThreads,
          C::kOutColumns,    C::kWeights == 2, C::kGeluOnly};
}

// The first that fits is taken. Widths are ranks of published BERT and MiniLM
// models at half and a third of their parameters; others are padded to them.
template <typename T>
const Kernel kKernels[] = {
    Compiled<Wide<T, 128>>(),    Compiled<Wide<T, 160>>(),
    Compiled<Wide<T, 192>>(),    Compiled<Tall<T, 128>>(),
    Compiled<Tall<T, 160>>(),    Compiled<Tall<T, 192>>(),
    Compiled<Tall<T, 256>>(),    Compiled<Tall<T, 320>>(),
    Compiled<LowWide<T, 128>>(), Compiled<LowWide<T, 192>>(),
    Compiled<Low<T, 192>>(),     Compiled<Low<T, 256>>(),
    Compiled<Low<T, 320>>(),     Compiled<Short<T, 128>>(),
    Compiled<Short<T, 160>>(),   Compiled<Short<T, 192>>(),
    Compiled<Short<T, 256>>(),   Compiled<Short<T, 320>>(),
    Compiled<Gated<T, 192>>(),   Compiled<Gated<T, 256>>(),
    Compiled<Gated<T, 320>>(),
};

// Null if no kernel of the table takes these ranks. `rows` and `gelu` say only
// which of several is the faster.
template <typename T>
const Kernel* Find(int in_rank, int out_rank, bool gated, int rows, bool gelu,
                   const DeviceLimits& limits) {
  for (const Kernel& kernel : kKernels<T>) {
    if (kernel.gated != gated || kernel.out_columns < out_rank ||
        kernel.shared_bytes(in_rank) > limits.shared_bytes) {
      continue;
    }
    // Where each block has a multiprocessor to itself, half the rows are done
    // sooner.
    const bool few = (rows + 63) / 64 <= limits.multiprocessors;
    if (kernel.rows > 64 && few) continue;
    if (kernel.gelu_only && !gelu) continue;
    return &kernel;
  }
  return nullptr;
}

bool Valid(const FusedFfnParams& p) {
  return p.rows >= 0 && p.in_rank > 0 && p.in_rank % 16 == 0 &&
         p.out_rank > 0 && p.out_rank % 16 == 0 && p.intermediate > 0 &&
         p.intermediate % 32 == 0 && p.p_stride >= p.in_rank &&
         p.p_stride % 8 == 0 && p.z_stride >= p.out_rank && p.z_stride % 8 == 0;
}

}  // namespace

bool FusedFfnTakes(int in_rank, int out_rank, bool gated,
                   const DeviceLimits& limits) {
  return in_rank > 0 && in_rank % 16 == 0 && out_rank > 0 &&
         out_rank % 16 == 0 &&
         Find<__nv_bfloat16>(in_rank, out_rank, gated, 0, false, limits) !=
             nullptr;
}

cudaError_t FusedFfn(const FusedFfnParams& params, const DeviceLimits& limits,
                     cudaStream_t stream) {
  if (!Valid(params)) return cudaErrorInvalidValue;
  if constexpr (kHopperLinked) {
    if (TakesHopperKernels(limits) && hopper::FusedFfnTakes(params, limits)) {
      return hopper::FusedFfn(params, limits, stream);
    }
  }
  const auto find =
      params.type == Type::kBF16 ? Find<__nv_bfloat16> : Find<__half>;
  const Kernel* kernel =
      find(params.in_rank, params.out_rank, params.gate != nullptr, params.rows,
           params.activation == Activation::kGelu, limits);
  if (kernel == nullptr) return cudaErrorNotSupported;
  if (params.rows == 0) return cudaSuccess;
  const int blocks = (params.rows + kernel->rows - 1) / kernel->rows;
  return LaunchDependent(kernel->run, dim3(blocks), kernel->threads,
                         kernel->shared_bytes(params.in_rank), stream, params);
}

}  // namespace svdserve::cuda
