// x = LayerNorm(x + t·Wᵀ + b) with t = y·Nᵀ. A block owns 64 rows; each of its
// two warpgroups has a half of the columns, of t as well as of x. Panels of y
// and N, then of W and x, come through one ring; t stays in shared memory.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "kernels/cuda/hopper/lowrank_norm.h"
#include "kernels/cuda/hopper/norm_tail.cuh"
#include "kernels/cuda/hopper/tensor_map.h"
#include "kernels/cuda/launch.cuh"

namespace svdserve::cuda::hopper {
namespace {

using row_blocks::kConsumers;
using row_blocks::kGroupRows;
using row_blocks::kMostStages;
using row_blocks::kPanel;
using row_blocks::kPanelBytes;
using row_blocks::kThreadsThatCompute;
using row_blocks::NormTail;
using row_blocks::PanelsOf;
using row_blocks::Ring;
using row_blocks::RingLayout;
using row_blocks::TailArguments;
using row_blocks::TailShape;

// What a kernel is compiled for: ranks up to kMostRank.
template <typename T, int kHiddenWidth, int kMostRank>
struct Config : TailShape<kHiddenWidth, kGroupRows, kConsumers> {
  using Tail = TailShape<kHiddenWidth, kGroupRows, kConsumers>;
  using Element = T;
  static constexpr int kRank = kMostRank;
  static constexpr int kGroupColumns = kRank / kConsumers;  // of t
  static_assert(kGroupColumns % 16 == 0);
  static constexpr int kRowPanels =
      std::max(PanelsOf(kRank), Tail::kMinRowPanels);
  static constexpr int kNarrowBytes = kRank * kPanelBytes;  // a panel of N

  static constexpr int kStageBytes =
      std::max(kNarrowBytes + Tail::kRowPanelBytes, Tail::kTailStageBytes);
};

struct Arguments {
  RingLayout ring;  // behind t
  int tail_place;   // behind the ring
  TailArguments tail;
  CUtensorMap narrow;  // boxes of [kRank, kPanel]
  CUtensorMap y;       // [kGroupRows, kPanel]
  int in;
};

// A thread's part of a block's work.
template <typename C>
class Block : NormTail<C, Ring> {
  using T = typename C::Element;
  using Tail = NormTail<C, Ring>;

 public:
  __device__ explicit Block(const Arguments& arguments)
      : Tail(arguments.tail, arguments.tail_place, arguments.ring),
        args_(arguments),
        panels_(PanelsOf(arguments.in)) {}

  __device__ void Run() {
    Begin();
    this->ShareWork([&] { Produce(); }, [&] { Consume(); });
  }

 private:
  __device__ void Begin() {
    this->LoadVectors();
    ClearRows();
    if (threadIdx.x == 0) {
      PrefetchTensorMap(&args_.narrow);
      PrefetchTensorMap(&args_.y);
      this->PrefetchTailMaps();
      this->InitRing();
      BarrierInitFence();
    }
    __syncthreads();
  }
  // t is multiplied in whole panels; past its columns it is zero.
  __device__ void ClearRows() {
    for (int at = threadIdx.x * 16; at < C::kRowPanels * C::kRowPanelBytes;
         at += row_blocks::kThreads * 16) {
      *reinterpret_cast<uint4*>(this->shared_ + at) = uint4{};
    }
    FenceSharedForAsync();
  }

  // The first panels of N do not wait for prior kernels.
  __device__ void Produce() {
    uint64_t* full[kMostStages];
    const int ahead = min(this->ring_.stages, panels_);
#pragma unroll
    for (int panel = 0; panel < kMostStages; ++panel) {
      if (panel < ahead) full[panel] = LoadNarrow(panel);
    }
    WaitForPriorKernels();
#pragma unroll
    for (int panel = 0; panel < kMostStages; ++panel) {
      if (panel < ahead) LoadRows(panel, panel, full[panel]);
    }
#pragma unroll 1
    for (int panel = ahead; panel < panels_; ++panel) {
      const int stage = this->place_.stage();
      LoadRows(panel, stage, LoadNarrow(panel));
    }
    this->LoadTail();
  }
  // A panel of N; the same of y will come behind it.
  __device__ uint64_t* LoadNarrow(int panel) {
    uint64_t* full = this->Claim(C::kNarrowBytes + C::kRowPanelBytes);
    unsigned char* tile = this->Stage(this->place_);
#pragma unroll
    for (int group = 0; group < kConsumers; ++group) {
      const int row = group * C::kGroupColumns;
      TensorCopy(tile + row * kPanelBytes, &args_.narrow, panel * kPanel, row,
                 full);
    }
    this->place_.Advance();
    return full;
  }
  __device__ void LoadRows(int panel, int stage, uint64_t* full) {
    TensorCopy(this->shared_ + this->ring_.ring +
                   stage * this->ring_.stage_bytes + C::kNarrowBytes,
               &args_.y, panel * kPanel, blockIdx.x * kGroupRows, full);
  }

  __device__ __forceinline__ void Consume() {
    MultiplyNarrow();
    NamedBarrierWait(Ring::kAll, kThreadsThatCompute);
    this->FinishRows();
  }

  // The warpgroup's columns of t = y·Nᵀ, to shared memory.
  __device__ __forceinline__ void MultiplyNarrow() {
    float sums[C::kGroupColumns / 2];
    const int first = this->group_ * C::kGroupColumns;
    this->MultiplyPanels(panels_, [&](int panel, const unsigned char* tile) {
      const uint64_t narrow = Descriptor128(tile + first * kPanelBytes);
      const uint64_t y = Descriptor128(tile + C::kNarrowBytes);
#pragma unroll
      for (int k = 0; k < kPanel / 16; ++k) {
        Wgmma<T>(sums, y + 2 * k, narrow + 2 * k, panel + k > 0);
      }
    });
    row_blocks::StoreRounded<T, kGroupRows, C::kGroupColumns>(sums, first, 1,
                                                              this->shared_);
    FenceSharedForAsync();
  }

  const Arguments& args_;
  const int panels_;  // of y
};

template <typename C>
__global__ void __launch_bounds__(row_blocks::kThreads, 1)
    LowRankNormKernel(const __grid_constant__ Arguments arguments) {
  Block<C>(arguments).Run();
}

// ---- On the host ----

struct Kernel {
  void (*run)(Arguments);
  int hidden;
  int rank;  // at most
  int chunk;
  int rows_bytes;  // of t
  int stage_bytes;
  int tail_bytes;
};

template <typename C>
constexpr Kernel Compiled() {
  return {LowRankNormKernel<C>,
          C::kHidden,
          C::kRank,
          C::kChunk,
          C::kRowPanels * C::kRowPanelBytes,
          C::kStageBytes,
          C::kTailBytes};
}

RingLayout RingOf(const Kernel& kernel, const DeviceLimits& limits) {
  const int room = limits.shared_bytes - kernel.rows_bytes -
                   RingLayout::kBarrierBytes - kernel.tail_bytes;
  RingLayout ring;
  ring.ring = kernel.rows_bytes;
  ring.stage_bytes = kernel.stage_bytes;
  ring.stages = std::min(room / kernel.stage_bytes, kMostStages);
  ring.barriers = ring.ring + ring.stages * ring.stage_bytes;
  return ring;
}

// The first that fits is taken; other ranks are padded to it. Of width 768 more
// were built, up to 320, and were no faster than two launches (README.md).
template <typename T>
const Kernel kKernels[] = {
    Compiled<Config<T, 384, 96>>(),
    Compiled<Config<T, 384, 192>>(),
    Compiled<Config<T, 768, 128>>(),
};

template <typename T>
const Kernel* Find(int hidden, int rank, const DeviceLimits& limits) {
  for (const Kernel& kernel : kKernels<T>) {
    if (kernel.hidden == hidden && kernel.rank >= rank &&
        RingOf(kernel, limits).stages >= 3) {
      return &kernel;
    }
  }
  return nullptr;
}

}  // namespace

bool LowRankNormTakes(const LowRankNormParams& params,
                      const DeviceLimits& limits) {
  return Find<__half>(params.hidden, params.rank, limits) != nullptr;
}

cudaError_t LowRankNorm(const LowRankNormParams& params,
                        const DeviceLimits& limits, cudaStream_t stream) {
  const auto find =
      params.type == Type::kBF16 ? Find<__nv_bfloat16> : Find<__half>;
  const Kernel* kernel = find(params.hidden, params.rank, limits);
  if (kernel == nullptr) return cudaErrorNotSupported;
  if (params.rows == 0) return cudaSuccess;
  Arguments arguments;
  arguments.ring = RingOf(*kernel, limits);
  arguments.tail_place = arguments.ring.barriers + RingLayout::kBarrierBytes;
  arguments.in = params.in;
  arguments.tail.bias = params.bias;
  arguments.tail.gamma = params.gamma;
  arguments.tail.beta = params.beta;
  arguments.tail.eps = params.eps;
  arguments.tail.rank = params.rank;
  const auto matrix = [&params](const void* data, int64_t rows,
                                int64_t columns) {
    return MatrixView{params.type, data, rows, columns, columns};
  };
  const MatrixView x = matrix(params.x, params.rows, params.hidden);
  const cudaError_t error = MakeTensorMaps({
      {&arguments.narrow,
       matrix(params.narrow, params.rank, params.in),
       {kernel->rank / kConsumers, kPanel}},
      {&arguments.y,
       matrix(params.y, params.rows, params.in),
       {kGroupRows, kPanel}},
      {&arguments.tail.w,
       matrix(params.w, params.hidden, params.rank),
       {kernel->chunk, kPanel}},
      {&arguments.tail.x, x, {kGroupRows, kPanel}},
      {&arguments.tail.result, x, {row_blocks::kWarpRows, kPanel}},
  });
  if (error != cudaSuccess) return error;
  return LaunchDependent(
      kernel->run, dim3((params.rows + kGroupRows - 1) / kGroupRows),
      row_blocks::kThreads, arguments.tail_place + kernel->tail_bytes, stream,
      arguments);
}

}  // namespace svdserve::cuda::hopper
