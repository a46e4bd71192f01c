#include "kernels/cuda/attention_loop.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/lowrank_attention.h"
#include "kernels/cuda/lowrank_projection.cuh"

namespace svdserve::cuda {
namespace {

constexpr int kMostStages = 4;
// The grid's second dimension.
constexpr int kMostSequences = 65535;

// A block of threads builds, and then attends for, kBlockRows rows at a time.
template <typename T, int kDim, int kWarpCount, int kTiles>
struct Config : AttentionShape<T, kDim, kDim, kTiles> {
  using Shape = AttentionShape<T, kDim, kDim, kTiles>;
  static constexpr int kHeadDim = kDim;
  static constexpr int kThreads = 32 * kWarpCount;
  static constexpr int kBlockRows = kWarpCount * Shape::kRows;
  // For 16 rows of up to 64 dimensions 128 registers a thread are enough.
  static constexpr int kBlocksPerMultiprocessor =
      kTiles == 1 && kDim <= 64 ? (kWarpCount == 4 ? 3 : 2) : 1;
  static constexpr int kFactorOffset =
      kBlockRows * SharedTile<kChunk>::kRowBytes;
  static constexpr int kStageBytes =
      (kBlockRows + kDim) * SharedTile<kChunk>::kRowBytes;
};

struct Arguments {
  LowRankAttentionParams params;
  int padded_tokens;  // rows of keys and values in shared memory
  int stages;         // of chunks, 2 to kMostStages
};

template <class C>
__device__ Place FindPlace(const LowRankAttentionParams& params) {
  const int first = params.cu_seqlens[blockIdx.y];
  const int length = params.cu_seqlens[blockIdx.y + 1] - first;
  return {static_cast<int>(blockIdx.x), first - params.first_row, length,
          (length + C::kBlockRows - 1) / C::kBlockRows};
}

// Keys and values of the whole sequence, a tile of both after the other, then
// queries: three projections a tile.
template <class C>
__device__ Projection<typename C::Element> ProjectionAt(
    const LowRankAttentionParams& params, const Place& place, int index) {
  const int tile = index - 2 * place.tiles;
  if (tile >= 0) return MakeProjection<C>(params, place, kQuery, tile);
  return MakeProjection<C>(params, place, index % 2 == 0 ? kKey : kValue,
                           index / 2);
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
  const Place place = FindPlace<C>(params);
  if (place.length <= 0) return;
  const int lane = threadIdx.x % 32;
  const int warp_row = threadIdx.x / 32 * C::kRows;
  const int tile_bytes =
      arguments.padded_tokens * SharedTile<C::kHeadDim>::kRowBytes;
  unsigned char* keys = SharedMemory();
  unsigned char* values = keys + tile_bytes;
  Ring ring = {values + tile_bytes, arguments.stages, 0, 0};

  const int projections = 3 * place.tiles;
  StartProjection<C>(ring, params, place, ProjectionAt<C>(params, place, 0));
#pragma unroll 1
  for (int i = 0; i < projections; ++i) {
    const Projection<typename C::Element> projection =
        ProjectionAt<C>(params, place, i);
    const int first_row = projection.first_row + warp_row;
    Sums<C> sums;
    FinishProjection<C>(sums, ring, params, place, projection, warp_row, lane);
    if (i + 1 < projections) {
      StartProjection<C>(ring, params, place,
                         ProjectionAt<C>(params, place, i + 1));
    }
    // Keys and values beyond the sequence's end are the bias: finite, and never
    // seen. The first barrier of the queries' projection is after all of them.
    if (i >= 2 * place.tiles) {
      AttendRows<C>(sums, params, place, keys, values, first_row, lane);
    } else {
      StoreTileRows<C>(sums, i % 2 == 0 ? keys : values, first_row,
                       arguments.padded_tokens, lane);
    }
  }
}

// ---- Host ----

using Launcher = cudaError_t (*)(const LowRankAttentionParams&, int padded,
                                 int stages, int shared_bytes, cudaStream_t);

template <class C>
cudaError_t LaunchConfig(const LowRankAttentionParams& params, int padded,
                         int stages, int shared_bytes, cudaStream_t stream) {
  return Launch(LowRankAttentionKernel<C>, dim3(params.heads, params.sequences),
                C::kThreads, shared_bytes, stream,
                Arguments{params, padded, stages});
}

struct Instance {
  int head_dim;
  int most_tokens;
  int stage_bytes;
  Launcher launch[2];  // bf16, fp16
};

template <int kDim, int kWarps, int kRowTiles>
constexpr Instance MakeInstance(int most_tokens) {
  return {kDim,
          most_tokens,
          Config<__half, kDim, kWarps, kRowTiles>::kStageBytes,
          {LaunchConfig<Config<__nv_bfloat16, kDim, kWarps, kRowTiles>>,
           LaunchConfig<Config<__half, kDim, kWarps, kRowTiles>>}};
}

constexpr int kAnyLength = 1 << 20;

// The committed list of instances. The first that takes the length and fits
// into shared memory runs: short sequences in blocks of as many rows, several
// to a multiprocessor; long ones with 32 rows a warp, so that each fragment
// read from shared memory feeds four mma; with 16 where memory is short (a
// stage is smaller), or where 32 rows of 128 dimensions would not fit into the
// registers.
constexpr Instance kInstances[] = {
    MakeInstance<32, 4, 1>(64),         MakeInstance<32, 8, 1>(128),
    MakeInstance<32, 8, 2>(kAnyLength),

    MakeInstance<64, 4, 1>(64),         MakeInstance<64, 8, 1>(128),
    MakeInstance<64, 8, 2>(kAnyLength), MakeInstance<64, 8, 1>(kAnyLength),

    MakeInstance<128, 4, 1>(64),        MakeInstance<128, 8, 1>(kAnyLength),
};

struct Choice {
  const Instance* instance = nullptr;
  int padded_tokens = 0;
  int stages = 0;
  int shared_bytes = 0;
};

// No instance: the shape is not in the table.
Choice Choose(int head_dim, int max_tokens, const DeviceLimits& limits) {
  const int padded =
      (max_tokens + kAttentionKeys - 1) / kAttentionKeys * kAttentionKeys;
  const int tile_bytes = 2 * padded * head_dim * kElementBytes;
  for (const Instance& instance : kInstances) {
    if (instance.head_dim != head_dim || instance.most_tokens < max_tokens) {
      continue;
    }
    for (int stages = kMostStages; stages >= 2; --stages) {
      const int bytes = tile_bytes + stages * instance.stage_bytes;
      if (bytes <= limits.shared_bytes) {
        return {&instance, padded, stages, bytes};
      }
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
  int tokens = 0;
  while (Choose(head_dim, tokens + kAttentionKeys, limits).instance) {
    tokens += kAttentionKeys;
  }
  return tokens;
}

cudaError_t LowRankAttention(const LowRankAttentionParams& params,
                             const DeviceLimits& limits, cudaStream_t stream) {
  if (!MakesSense(params)) return cudaErrorInvalidValue;
  if (params.sequences == 0 || params.max_tokens == 0) return cudaSuccess;
  if (params.sequences > kMostSequences) return cudaErrorNotSupported;
  const Choice choice = Choose(params.head_dim, params.max_tokens, limits);
  if (choice.instance == nullptr) return cudaErrorNotSupported;
  return choice.instance->launch[params.type == Type::kBF16 ? 0 : 1](
      params, choice.padded_tokens, choice.stages, choice.shared_bytes, stream);
}

}  // namespace svdserve::cuda
