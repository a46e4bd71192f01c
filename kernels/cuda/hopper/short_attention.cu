// Low-rank attention of short sequences. A block has one head of one sequence,
// with all of its rows of P and all factors in shared memory at once: factors
// come while prior kernels run, and of P everything is on its way before the
// first product. Keys and values take the place of the rows that they are of.
#include "kernels/cuda/hopper/lowrank_attention.cuh"
#include "kernels/cuda/hopper/short_attention.h"
#include "kernels/cuda/launch.cuh"

namespace svdserve::cuda::hopper {
namespace {

constexpr int kPanel = 64;  // columns of P and of factors

int CountPanels(int rank) { return (rank + kPanel - 1) / kPanel; }

// A warpgroup has 64 rows.
template <typename T, int kDim, int kWarpgroups>
struct Config : AttentionShape<T, kDim, kDim, 1> {
  using Shape = AttentionShape<T, kDim, kDim, 1>;
  static constexpr int kHeadDim = kDim;
  static constexpr int kThreads = kWarpgroups * kWarpgroupThreads;
  static constexpr int kBlockRows = kWarpgroups * kWarpgroupRows;
  static constexpr int kChunk = kPanel;
  static constexpr int kRowBytes = SharedTile<kChunk>::kRowBytes;
  static constexpr int kFactorChunkBytes = kDim * kRowBytes;
  static constexpr int kRowsChunkBytes = kBlockRows * kRowBytes;
};

// Where the parts' rows of P and their factors lie, in bytes.
struct Layout {
  int rows[kParts];
  int factors[kParts];
  int bytes;
};

struct Arguments {
  LowRankAttentionParams params;
  Layout layout;
};

// Starts copying a part's rows of P; zeros past the sequence's end.
template <class C>
__device__ void CopyRows(unsigned char* memory,
                         const LowRankAttentionParams& params,
                         const Place& place, int part) {
  const auto operand = OperandOf<C>(params, place, part);
#pragma unroll 1
  for (int column = 0; column < operand.rank; column += C::kChunk) {
    CopyTile<C::kChunk, C::kBlockRows, C::kThreads>(
        memory, operand.p + column, params.p_stride, operand.rank - column, 0,
        place.length);
    memory += C::kRowsChunkBytes;
  }
}

// The warpgroup's rows of P times the factor, with bias.
template <class C>
__device__ void MultiplyRows(Sums<C>& sums, uint32_t rows, uint32_t factor,
                             int rank, const float* bias) {
  float2 pairs[C::kValueColumns] = {};
  LoadBias<C>(pairs, bias);  // under way while products are computed
#pragma unroll
  for (int n = 0; n < C::kValueColumns; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[0][n][i] = 0;
  }
  WgmmaFence();
#pragma unroll 1
  for (int column = 0; column < rank; column += C::kChunk) {
#pragma unroll
    for (int step = 0; step < C::kChunk / 16; ++step) {
      using Tile = PanelTile<C::kChunk>;
      Wgmma<typename C::Element>(
          Flat(sums[0]), Tile::template Operand<C::kBlockRows>(rows, step),
          Tile::template Operand<C::kHeadDim>(factor, step), true);
    }
    rows += C::kRowsChunkBytes;
    factor += C::kFactorChunkBytes;
  }
  WgmmaCommit();
  WgmmaWait<0>();
  KeepAfterWait(Flat(sums[0]));
  AddBias<C>(sums, pairs, bias);
}

template <class C>
__global__ void __launch_bounds__(C::kThreads)
    ShortAttentionKernel(const __grid_constant__ Arguments arguments) {
  const LowRankAttentionParams& params = arguments.params;
  const Layout& layout = arguments.layout;
  unsigned char* const memory = SwizzledSharedMemory();
  Place place = {static_cast<int>(blockIdx.x), 0, 0, 0};
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    CopyFactor<C>(memory + layout.factors[part],
                  OperandOf<C>(params, place, part));
  }
  place = FindPlace<C>(params);
  WaitForPriorKernels();
  LetNextKernelStart();
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    CopyRows<C>(memory + layout.rows[part], params, place, part);
    CopyCommit();
  }
  const int warpgroup_row = WarpgroupOf() * kWarpgroupRows;
  const int warp_row = WarpRowOf<C>();
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    if (part == kKey) CopyWait<2>();
    if (part == kValue) CopyWait<1>();
    if (part == kQuery) CopyWait<0>();
    FenceSharedForAsync();
    // Of all threads; and keys and values.
    __syncthreads();
    const auto operand = OperandOf<C>(params, place, part);
    Sums<C> sums;
    MultiplyRows<C>(sums,
                    SharedAddress(memory + layout.rows[part]) +
                        warpgroup_row * C::kRowBytes,
                    SharedAddress(memory + layout.factors[part]), operand.rank,
                    operand.bias);
    if (part == kQuery) {
      if (warpgroup_row < place.length) {
        AttendRows<C>(sums, params, place,
                      SharedAddress(memory + layout.rows[kKey]),
                      SharedAddress(memory + layout.rows[kValue]),
                      warpgroup_row, warp_row);
      }
    } else {
      __syncthreads();  // all have read the rows
      // Beyond the sequence's end they are the bias: finite, and never seen.
      StoreTileRows<C>(sums, memory + layout.rows[part], warp_row,
                       warpgroup_row + kWarpgroupRows, LaneOf());
    }
  }
}

// ---- Host ----

using Launcher = cudaError_t (*)(const Arguments&, const DeviceLimits&,
                                 cudaStream_t);

template <class C>
cudaError_t LaunchConfig(const Arguments& arguments, const DeviceLimits& limits,
                         cudaStream_t stream) {
  const LowRankAttentionParams& params = arguments.params;
  const int64_t blocks = int64_t{1} * params.heads * params.sequences;
  return LaunchDependent(ShortAttentionKernel<C>,
                         dim3(params.heads, params.sequences), C::kThreads,
                         SpreadBytes(arguments.layout.bytes, blocks, limits),
                         stream, arguments);
}

struct Instance {
  int head_dim;
  int rows;
  Launcher launch[2];  // bf16, fp16
};

template <int kDim, int kWarpgroups>
constexpr Instance MakeInstance() {
  return {kDim,
          kWarpgroups * kWarpgroupRows,
          {LaunchConfig<Config<__nv_bfloat16, kDim, kWarpgroups>>,
           LaunchConfig<Config<__half, kDim, kWarpgroups>>}};
}

constexpr Instance kInstances[] = {MakeInstance<64, 1>(), MakeInstance<64, 2>(),
                                   MakeInstance<32, 1>(),
                                   MakeInstance<32, 2>()};

Layout MakeLayout(const Instance& instance,
                  const LowRankAttentionParams& params) {
  constexpr int kRowBytes = kPanel * kElementBytes;
  int ranks[kParts];
  ranks[kKey] = params.k_rank;
  ranks[kValue] = params.v_rank;
  ranks[kQuery] = params.q_rank;
  Layout layout = {};
  for (int part = 0; part < kParts; ++part) {
    const int panels = CountPanels(ranks[part]);
    layout.rows[part] = layout.bytes;
    layout.bytes += panels * instance.rows * kRowBytes;
    layout.factors[part] = layout.bytes;
    layout.bytes += panels * instance.head_dim * kRowBytes;
  }
  return layout;
}

// Where each block has a multiprocessor to itself: of more blocks some would
// come second, and the other kernel has several at once.
const Instance* Find(const LowRankAttentionParams& params,
                     const DeviceLimits& limits) {
  if (int64_t{1} * params.sequences * params.heads > limits.multiprocessors) {
    return nullptr;
  }
  for (const Instance& instance : kInstances) {
    if (instance.head_dim == params.head_dim &&
        instance.rows >= params.max_tokens) {
      return MakeLayout(instance, params).bytes <= limits.shared_bytes
                 ? &instance
                 : nullptr;
    }
  }
  return nullptr;
}

}  // namespace

bool ShortAttentionTakes(const LowRankAttentionParams& params,
                         const DeviceLimits& limits) {
  return Find(params, limits) != nullptr;
}

cudaError_t ShortAttention(const LowRankAttentionParams& params,
                           const DeviceLimits& limits, cudaStream_t stream) {
  const Instance* instance = Find(params, limits);
  if (instance == nullptr) return cudaErrorNotSupported;
  return instance->launch[params.type == Type::kBF16 ? 0 : 1](
      {params, MakeLayout(*instance, params)}, limits, stream);
}

}  // namespace svdserve::cuda::hopper
