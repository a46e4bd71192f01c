#include <algorithm>

#include "kernels/cuda/attention_loop.cuh"
#include "kernels/cuda/hopper/lowrank_attention.h"
#include "kernels/cuda/kernel_family.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/lowrank_attention.h"
#include "kernels/cuda/lowrank_projection.cuh"

namespace svdserve::cuda {
namespace {

// The grid's second dimension.
constexpr int kMostSequences = 65535;

// A block of threads builds, and then attends for, kBlockRows rows at a time.
template <typename T, int kDim, int kWarpCount, int kTiles, int kColumns>
struct Config : AttentionShape<T, kDim, kDim, kTiles> {
  using Shape = AttentionShape<T, kDim, kDim, kTiles>;
  static constexpr int kHeadDim = kDim;
  static constexpr int kThreads = 32 * kWarpCount;
  static constexpr int kBlockRows = kWarpCount * Shape::kRows;
  static constexpr int kBlocksPerMultiprocessor =
      kWarpCount > 4 ? 1 : (kTiles == 1 && kDim <= 64 ? 3 : 2);
  static constexpr int kChunk = kColumns;
  // Of P, for a warp, and of a factor.
  static constexpr int kChunkBytes =
      Shape::kRows * SharedTile<kChunk>::kRowBytes;
  static constexpr int kFactorChunkBytes = kDim * SharedTile<kChunk>::kRowBytes;
};

// Shared memory: keys, values, a factor, perhaps another one, stages of chunks.
struct Layout {
  int key_bytes;
  int value_bytes;  // at least factor_bytes without a second factor
  int factor_bytes;
  bool two_factors;
  int stages;  // 2 to 4

  // The factor of values lies in the first place, that of queries, too, once
  // values are built, unless there is a second. That of keys lies in the second
  // place, or where values will be.
  __device__ int FactorOffset(int part) const {
    const int first = key_bytes + value_bytes;
    if (part == kValue) return first;
    if (two_factors) return first + factor_bytes;
    return part == kKey ? key_bytes : first;
  }
  __host__ __device__ int StagesOffset() const {
    return key_bytes + value_bytes + (two_factors ? 2 : 1) * factor_bytes;
  }
};

struct Arguments {
  LowRankAttentionParams params;
  int padded_tokens;  // rows of keys and values in shared memory
  Layout layout;
};

template <class C>
__device__ Place FindPlace(const LowRankAttentionParams& params) {
  const int first = params.cu_seqlens[blockIdx.y];
  const int length = params.cu_seqlens[blockIdx.y + 1] - first;
  return {static_cast<int>(blockIdx.x), first - params.first_row, length,
          (length + C::kBlockRows - 1) / C::kBlockRows};
}

// The warp's queries, from their sums, meet all keys.
template <class C>
__device__ void AttendRows(const Sums<C>& sums,
                           const LowRankAttentionParams& params,
                           const Place& place, const unsigned char* keys,
                           const unsigned char* values, int first_row,
                           int lane) {
  using Shape = typename C::Shape;
  constexpr int kBlockBytes = Shape::kKeyBytes;
  const KeyWindow window = {place.length, KeyWindow::kNoLimit,
                            KeyWindow::kNoLimit};
  QueryRegisters<Shape> queries;
  RoundQueries<C>(queries, sums);
  AttentionState<Shape> state;
  ClearState<Shape>(state);
  for (int key = 0; key < place.length; key += kAttentionKeys) {
    AttendBlock<Shape>(state, queries, keys, values, window, first_row, key,
                       params.scale * kLog2E, lane);
    keys += kBlockBytes;
    values += kBlockBytes;
  }
  FinishRows<Shape>(state);
  WriteRows<Shape>(
      state,
      static_cast<typename C::Element*>(params.out) + place.head * C::kHeadDim,
      params.out_stride, C::kHeadDim, place.first_row + first_row,
      place.first_row + place.length, lane);
}

template <class C>
__global__ void __launch_bounds__(C::kThreads, C::kBlocksPerMultiprocessor)
    LowRankAttentionKernel(Arguments arguments) {
  const LowRankAttentionParams& params = arguments.params;
  const Layout& layout = arguments.layout;
  unsigned char* keys = SharedMemory();
  unsigned char* values = keys + layout.key_bytes;
  Stream stream = {keys + layout.StagesOffset() +
                       threadIdx.x / 32 * (layout.stages * C::kChunkBytes),
                   layout.stages};
  Place place = {};
  place.head = blockIdx.x;
  const auto copy_factor = [&](int part) {
    CopyFactor<C>(keys + layout.FactorOffset(part),
                  OperandOf<C>(params, place, part));
  };

  copy_factor(kKey);
  WaitForPriorKernels();
  LetNextKernelStartIfFew(int64_t{1} * params.sequences * params.max_tokens);
  place = FindPlace<C>(params);
  if (place.length <= 0) {
    CopyCommit();
    CopyWait<0>();
    return;
  }
#pragma unroll 1
  for (int i = 0; i < layout.stages - 1; ++i) {
    FetchChunk<C>(stream, params, place);
  }
#pragma unroll 1
  for (int part = 0; part < kParts; ++part) {
    if (part == kQuery && !layout.two_factors) {
      __syncthreads();  // the factor of values was read
      copy_factor(kQuery);
      CopyCommit();
    }
    CopyWait<0>();
    // The factor is here, and what the last part built; the last factor was
    // read. The next one arrives meanwhile.
    __syncthreads();
    if (part == kKey || (part == kValue && layout.two_factors)) {
      copy_factor(part + 1);
    }
    const auto operand = OperandOf<C>(params, place, part);
#pragma unroll 1
    for (int tile = 0; tile < place.tiles; ++tile) {
      const int first_row = tile * C::kBlockRows + WarpRowOf<C>();
      Sums<C> sums;
      ProjectRows<C>(sums, stream, params, place, operand,
                     keys + layout.FactorOffset(part), first_row);
      // Keys and values beyond the sequence's end are the bias: finite, and
      // never seen.
      if (part == kQuery) {
        AttendRows<C>(sums, params, place, keys, values, first_row, LaneOf());
      } else {
        StoreTileRows<C>(sums, part == kKey ? keys : values, first_row,
                         arguments.padded_tokens, LaneOf());
      }
    }
  }
}

// ---- Host ----

using Launcher = cudaError_t (*)(const Arguments&, int shared_bytes,
                                 cudaStream_t);

template <class C>
cudaError_t LaunchConfig(const Arguments& arguments, int shared_bytes,
                         cudaStream_t stream) {
  const LowRankAttentionParams& params = arguments.params;
  return LaunchDependent(LowRankAttentionKernel<C>,
                         dim3(params.heads, params.sequences), C::kThreads,
                         shared_bytes, stream, arguments);
}

// How a shape runs: the kernel's tile, and how much it fetches ahead.
struct Instance {
  int head_dim;
  // What it takes: lengths; and this many blocks of threads on each
  // multiprocessor, or, kFew, no more than one on each.
  int most_tokens;
  int blocks;
  bool two_factors;
  int stages;
  int chunk;  // columns
  int stage_bytes;
  Launcher launch[2];  // bf16, fp16
};

constexpr int kAnyLength = 1 << 20;
constexpr int kFew = 0;

template <int kDim, int kWarps, int kRowTiles, int kChunk>
constexpr Instance MakeInstance(int most_tokens, int blocks, int factors,
                                int stages) {
  return {kDim,
          most_tokens,
          blocks,
          factors == 2,
          stages,
          kChunk,
          kWarps * Config<__half, kDim, kWarps, kRowTiles, kChunk>::kChunkBytes,
          {LaunchConfig<Config<__nv_bfloat16, kDim, kWarps, kRowTiles, kChunk>>,
           LaunchConfig<Config<__half, kDim, kWarps, kRowTiles, kChunk>>}};
}

// The committed list of instances: the first that takes the shape runs, by
// measurement. Few blocks: as much ahead as fits. Many short sequences: several
// blocks on a multiprocessor. Long ones: 32 rows a warp, so that each fragment
// read from shared memory feeds four mma, and chunks of 64 columns, whole lines
// of memory. Where memory is short, narrower chunks, then 16 rows a warp. 32
// rows of 128 dimensions would not fit into the registers.
constexpr Instance kInstances[] = {
    MakeInstance<32, 4, 1, 64>(64, 1, 2, 2),
    MakeInstance<32, 8, 1, 64>(128, 1, 2, 2),
    MakeInstance<32, 8, 2, 64>(kAnyLength, 1, 2, 2),
    MakeInstance<32, 8, 2, 32>(kAnyLength, 1, 1, 2),

    MakeInstance<64, 4, 1, 64>(64, kFew, 2, 3),
    MakeInstance<64, 4, 1, 64>(64, 3, 1, 2),
    MakeInstance<64, 8, 1, 64>(128, kFew, 2, 4),
    MakeInstance<64, 4, 2, 64>(128, 2, 2, 2),
    MakeInstance<64, 8, 2, 64>(kAnyLength, kFew, 2, 2),
    MakeInstance<64, 4, 2, 32>(256, 2, 1, 3),
    MakeInstance<64, 8, 2, 64>(kAnyLength, 1, 2, 2),
    MakeInstance<64, 8, 2, 64>(kAnyLength, 1, 1, 2),
    MakeInstance<64, 8, 2, 32>(kAnyLength, 1, 1, 3),
    MakeInstance<64, 8, 1, 32>(kAnyLength, 1, 1, 2),
    MakeInstance<64, 8, 1, 16>(kAnyLength, 1, 1, 2),

    MakeInstance<128, 4, 1, 64>(64, 1, 2, 2),
    MakeInstance<128, 8, 1, 64>(kAnyLength, 1, 1, 2),
    MakeInstance<128, 8, 1, 32>(kAnyLength, 1, 1, 2),
};

// What the device itself takes of a multiprocessor's memory, a block.
constexpr int kReservedBytes = 1 << 10;

int RoundUp(int value, int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

Layout MakeLayout(const Instance& instance, int padded_tokens, int max_rank) {
  const int row_bytes = instance.head_dim * kElementBytes;
  const int tile_bytes = padded_tokens * row_bytes;
  const int factor_bytes = RoundUp(max_rank, instance.chunk) * row_bytes;
  return {
      tile_bytes,
      instance.two_factors ? tile_bytes : std::max(tile_bytes, factor_bytes),
      factor_bytes, instance.two_factors, instance.stages};
}

struct Choice {
  const Instance* instance = nullptr;
  int padded_tokens = 0;
  Layout layout = {};
  int shared_bytes = 0;
};

// No instance: the shape is not in the table.
Choice Choose(int head_dim, int max_tokens, int max_rank, int64_t blocks,
              const DeviceLimits& limits) {
  const int padded = RoundUp(max_tokens, kAttentionKeys);
  for (const Instance& instance : kInstances) {
    if (instance.head_dim != head_dim || instance.most_tokens < max_tokens) {
      continue;
    }
    if (instance.blocks == kFew && blocks > limits.multiprocessors) continue;
    const Layout layout = MakeLayout(instance, padded, max_rank);
    const int bytes =
        layout.StagesOffset() + instance.stages * instance.stage_bytes;
    if (std::max(instance.blocks, 1) * (bytes + kReservedBytes) <=
        limits.shared_bytes + kReservedBytes) {
      return {&instance, padded, layout, bytes};
    }
  }
  return {};
}

bool IsRank(int rank) { return rank >= 8 && rank % 8 == 0; }

bool MakesSense(const LowRankAttentionParams& p) {
  return p.sequences >= 0 && p.max_tokens >= 0 && p.heads > 0 &&
         IsRank(p.q_rank) && IsRank(p.k_rank) && IsRank(p.v_rank) &&
         p.scale > 0 && p.p_stride % 8 == 0 && p.q_column % 8 == 0 &&
         p.k_column % 8 == 0 && p.v_column % 8 == 0 && p.out_stride % 8 == 0;
}

}  // namespace

int LowRankAttentionMaxTokens(int head_dim, int max_rank,
                              const DeviceLimits& limits) {
  if (!IsRank(max_rank)) return 0;
  // Not few: a batch of any size.
  const int64_t blocks = int64_t{limits.multiprocessors} + 1;
  int tokens = 0;
  while (Choose(head_dim, tokens + kAttentionKeys, max_rank, blocks, limits)
             .instance) {
    tokens += kAttentionKeys;
  }
  return tokens;
}

cudaError_t LowRankAttention(const LowRankAttentionParams& params,
                             const DeviceLimits& limits, cudaStream_t stream) {
  if (!MakesSense(params)) return cudaErrorInvalidValue;
  if (params.sequences == 0 || params.max_tokens == 0) return cudaSuccess;
  if (params.sequences > kMostSequences) return cudaErrorNotSupported;
  if constexpr (kHopperLinked) {
    if (TakesHopperKernels(limits)) {
      const cudaError_t error =
          hopper::LowRankAttention(params, limits, stream);
      if (error != cudaErrorNotSupported) return error;
    }
  }
  const Choice choice =
      Choose(params.head_dim, params.max_tokens,
             std::max({params.q_rank, params.k_rank, params.v_rank}),
             int64_t{1} * params.sequences * params.heads, limits);
  if (choice.instance == nullptr) return cudaErrorNotSupported;
  return choice.instance->launch[params.type == Type::kBF16 ? 0 : 1](
      {params, choice.padded_tokens, choice.layout}, choice.shared_bytes,
      stream);
}

}  // namespace svdserve::cuda
