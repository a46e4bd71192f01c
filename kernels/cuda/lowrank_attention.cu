#include "kernels/cuda/attention_loop.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/lowrank_attention.h"

namespace svdserve::cuda {
namespace {

constexpr int kChunk = 32;  // columns of P and of a factor that arrive together
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

// One head of one sequence.
struct Place {
  int head;
  int first_row;  // in p and out
  int length;
  int tiles;  // of kBlockRows rows
};

enum Part { kQuery, kKey, kValue };

// rows [tile · kBlockRows, ...) of P_part · factor_partᵀ.
template <typename T>
struct Projection {
  const T* p;         // the part's columns of row 0
  const T* factor;    // [head_dim, rank], the head's rows
  const float* bias;  // [head_dim], or null
  int rank;
  int first_row;  // in the sequence
};

template <class C>
__device__ Projection<typename C::Element> MakeProjection(
    const LowRankAttentionParams& params, const Place& place, Part part,
    int tile) {
  using T = typename C::Element;
  const int column = part == kQuery ? params.q_column
                     : part == kKey ? params.k_column
                                    : params.v_column;
  const int rank = part == kQuery ? params.q_rank
                   : part == kKey ? params.k_rank
                                  : params.v_rank;
  const void* factor = part == kQuery ? params.q_factor
                       : part == kKey ? params.k_factor
                                      : params.v_factor;
  const float* bias = part == kQuery ? params.q_bias
                      : part == kKey ? params.k_bias
                                     : params.v_bias;
  const int first_out = place.head * C::kHeadDim;
  return {static_cast<const T*>(params.p) + column,
          static_cast<const T*>(factor) + int64_t{1} * first_out * rank,
          bias == nullptr ? nullptr : bias + first_out, rank,
          tile * C::kBlockRows};
}

// The stages that chunks of P and of factors go through, one projection after
// the other without a gap: the next one's first chunks are under way while the
// last one's results are stored, or attended to.
struct Ring {
  unsigned char* memory;
  int stages;
  int next_write;
  int next_read;

  __device__ int Advance(int stage) const {
    return stage + 1 == stages ? 0 : stage + 1;
  }
};

template <class C>
__device__ void CopyChunk(Ring& ring, const LowRankAttentionParams& params,
                          const Place& place,
                          const Projection<typename C::Element>& projection,
                          int chunk) {
  const int column = chunk * kChunk;
  if (column < projection.rank) {
    unsigned char* stage = ring.memory + ring.next_write * C::kStageBytes;
    const int columns = projection.rank - column;
    CopyTile<kChunk, C::kBlockRows, C::kThreads>(
        stage, projection.p + column, params.p_stride, columns,
        place.first_row + projection.first_row, place.first_row + place.length);
    CopyTile<kChunk, C::kHeadDim, C::kThreads>(
        stage + C::kFactorOffset, projection.factor + column, projection.rank,
        columns, 0, C::kHeadDim);
    ring.next_write = ring.Advance(ring.next_write);
  }
  CopyCommit();
}

template <class C>
__device__ void StartProjection(
    Ring& ring, const LowRankAttentionParams& params, const Place& place,
    const Projection<typename C::Element>& projection) {
#pragma unroll 1
  for (int chunk = 0; chunk < ring.stages - 1; ++chunk) {
    CopyChunk<C>(ring, params, place, projection, chunk);
  }
}

__device__ inline void WaitForChunk(int stages) {
  if (stages == 2) {
    CopyWait<0>();
  } else if (stages == 3) {
    CopyWait<1>();
  } else {
    CopyWait<2>();
  }
}

template <class S>
using Sums = float[S::kRowTiles][S::kValueColumns][4];

// sums += the warp's rows of one chunk.
template <class C>
__device__ void MultiplyChunk(Sums<C>& sums, const unsigned char* stage,
                              int warp_row, int lane) {
  using T = typename C::Element;
  const PieceReader<kChunk, Piece::kA> rows(
      stage + warp_row * SharedTile<kChunk>::kRowBytes, lane);
  const PieceReader<kChunk, Piece::kB> factor(stage + C::kFactorOffset, lane);
#pragma unroll
  for (int step = 0; step < kChunk / 16; ++step) {
    uint32_t a[C::kRowTiles][4];
#pragma unroll
    for (int m = 0; m < C::kRowTiles; ++m) rows.Load(a[m], m, step);
#pragma unroll
    for (int n = 0; n < C::kValueColumns; n += 2) {
      uint32_t b[4];
      factor.Load(b, n / 2, step);
#pragma unroll
      for (int m = 0; m < C::kRowTiles; ++m) {
        Mma<T>(sums[m][n], a[m], b[0], b[1]);
        Mma<T>(sums[m][n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

template <class C>
__device__ void AddBias(Sums<C>& sums, const float* bias, int lane) {
  if (bias == nullptr) return;
#pragma unroll
  for (int n = 0; n < C::kValueColumns; ++n) {
    const float2 pair =
        *reinterpret_cast<const float2*>(bias + 8 * n + 2 * (lane % 4));
#pragma unroll
    for (int m = 0; m < C::kRowTiles; ++m) {
      sums[m][n][0] += pair.x;
      sums[m][n][1] += pair.y;
      sums[m][n][2] += pair.x;
      sums[m][n][3] += pair.y;
    }
  }
}

// The projection's sums with bias, from the chunks that StartProjection() began
// to fetch.
template <class C>
__device__ void FinishProjection(
    Sums<C>& sums, Ring& ring, const LowRankAttentionParams& params,
    const Place& place, const Projection<typename C::Element>& projection,
    int warp_row, int lane) {
#pragma unroll
  for (int m = 0; m < C::kRowTiles; ++m) {
#pragma unroll
    for (int n = 0; n < C::kValueColumns; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[m][n][i] = 0;
    }
  }
  const bool has_rows = projection.first_row + warp_row < place.length;
  const int chunks = (projection.rank + kChunk - 1) / kChunk;
#pragma unroll 1
  for (int chunk = 0; chunk < chunks; ++chunk) {
    WaitForChunk(ring.stages);
    __syncthreads();  // the chunk is here; the one before it was read
    CopyChunk<C>(ring, params, place, projection, chunk + ring.stages - 1);
    if (has_rows) {
      MultiplyChunk<C>(sums, ring.memory + ring.next_read * C::kStageBytes,
                       warp_row, lane);
    }
    ring.next_read = ring.Advance(ring.next_read);
  }
  AddBias<C>(sums, projection.bias, lane);
}

// Writes the warp's rows, rounded, to rows [first_row, ...) of `tile`, but for
// those at or beyond end_row.
template <class C>
__device__ void StoreTileRows(const Sums<C>& sums, unsigned char* tile,
                              int first_row, int end_row, int lane) {
#pragma unroll
  for (int m = 0; m < C::kRowTiles; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = first_row + 16 * m + 8 * h + lane / 4;
      if (row >= end_row) continue;
#pragma unroll
      for (int n = 0; n < C::kValueColumns; ++n) {
        const int offset = SharedTile<C::kHeadDim>::Offset(row, n);
        *reinterpret_cast<uint32_t*>(tile + offset + 4 * (lane % 4)) =
            Pack<typename C::Element>(sums[m][n][2 * h], sums[m][n][2 * h + 1]);
      }
    }
  }
}

// Accumulators of two tiles of 8 dimensions are, once rounded, the fragment of
// a step of 16.
template <class C>
__device__ void RoundQueries(QueryRegisters<typename C::Shape>& queries,
                             const Sums<C>& sums) {
#pragma unroll
  for (int m = 0; m < C::kRowTiles; ++m) {
#pragma unroll
    for (int step = 0; step < C::kQkSteps; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* pair = &sums[m][2 * step + i / 2][i % 2 * 2];
        queries.fragments[m][step][i] =
            Pack<typename C::Element>(pair[0], pair[1]);
      }
    }
  }
}

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
