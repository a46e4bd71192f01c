#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_loop.cuh"
#include "kernels/cuda/attention_operands.cuh"
#include "kernels/cuda/hopper/attention.h"
#include "kernels/cuda/kernel_family.h"
#include "kernels/cuda/launch.cuh"

namespace svdserve::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
// Keys and values of one block are read while the next ones arrive.
constexpr int kStages = 2;
// Of one block on the smallest device (sm_86 and sm_89).
constexpr int kLeastShared = 99 << 10;

// A dimension of the grid.
constexpr int kMostSequences = 65535;

// kRowTiles 2: each fragment of keys and values that is read from shared memory
// feeds four mma, and 128 queries share what is copied. kRowTiles 1: twice as
// many blocks, for batches that would not fill the device.
template <typename T, int kQk, int kV, int kTiles>
struct Config : AttentionShape<T, kQk, kV, kTiles> {
  using Shape = AttentionShape<T, kQk, kV, kTiles>;
  static constexpr int kBlockRows = kWarps * Shape::kRows;
  static constexpr int kBlocksPerMultiprocessor =
      kTiles == 1 && kQk + kV <= 128 ? 3 : 2;
  // Queries, 32 or fewer registers a thread, else read again at each block.
  static constexpr bool kQueriesInRegisters =
      kTiles * Shape::kQkSteps * 4 <= 32;
  static constexpr int kStageBytes = Shape::kKeyBytes + Shape::kValueBytes;
  static constexpr int kQueryBytes = kBlockRows * SharedTile<kQk>::kRowBytes;
  // Queries that move to registers lie where the second block comes later.
  static constexpr int kSharedBytes =
      kStages * kStageBytes + (kQueriesInRegisters ? 0 : kQueryBytes);
  static_assert(!kQueriesInRegisters || kQueryBytes <= kStageBytes);
  static_assert(kSharedBytes <= kLeastShared);
};

// Where attention is causal the last queries of all sequences and heads, which
// see the most keys, come first: the short blocks fill the gaps at the end.
// Else a head's blocks come together: they share its keys.
__device__ inline Position FindPosition(bool causal) {
  if (causal) {
    return {static_cast<int>(gridDim.z - 1 - blockIdx.z),
            static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y)};
  }
  return {static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y),
          static_cast<int>(blockIdx.z)};
}

dim3 GridOf(const AttentionParams& params, int tiles) {
  return params.causal ? dim3(params.heads, params.sequences, tiles)
                       : dim3(tiles, params.heads, params.sequences);
}

template <class C>
__device__ void CopyBlock(const AttentionParams& params,
                          const Operands<typename C::Element>& operands,
                          unsigned char* stage, int block) {
  const int row = operands.first_row + block * kAttentionKeys;
  CopyTile<C::kQkDim, kAttentionKeys, kThreads>(
      stage, operands.k, params.k_stride, params.qk_dim, row, operands.end_row);
  CopyTile<C::kVDim, kAttentionKeys, kThreads>(stage + C::kKeyBytes, operands.v,
                                               params.v_stride, params.v_dim,
                                               row, operands.end_row);
  CopyCommit();
}

template <class C>
__device__ auto TakeQueries(const unsigned char* warp_queries, int lane) {
  using Shape = typename C::Shape;
  const PieceReader<C::kQkDim, Piece::kA> reader(warp_queries, lane);
  if constexpr (C::kQueriesInRegisters) {
    QueryRegisters<Shape> queries;
#pragma unroll
    for (int m = 0; m < C::kRowTiles; ++m) {
#pragma unroll
      for (int step = 0; step < C::kQkSteps; ++step) {
        reader.Load(queries.fragments[m][step], m, step);
      }
    }
    return queries;
  } else {
    return QueryTile<Shape>{reader};
  }
}

template <class C>
__global__ void __launch_bounds__(kThreads, C::kBlocksPerMultiprocessor)
    AttentionKernel(AttentionParams params) {
  using T = typename C::Element;
  using Shape = typename C::Shape;
  WaitForPriorKernels();
  LetNextKernelStartIfFew(int64_t{1} * params.sequences * params.max_tokens);
  const Position position = FindPosition(params.causal);
  const Operands<T> operands = FindOperands<T>(params, position);
  const KeyWindow window = {operands.end_row - operands.first_row,
                            params.window_left, params.window_right};
  const int tile_row = position.tile * C::kBlockRows;
  if (tile_row >= window.length) return;
  const int last_row = tile_row + C::kBlockRows - 1;
  const int first_block = window.First(tile_row) / kAttentionKeys;
  const int end_block =
      (window.End(last_row) + kAttentionKeys - 1) / kAttentionKeys;

  unsigned char* stages = SharedMemory();
  const auto stage = [stages](int block) {
    return stages + (block & 1) * C::kStageBytes;
  };
  unsigned char* query_tile = C::kQueriesInRegisters
                                  ? stage(first_block + 1)
                                  : stages + kStages * C::kStageBytes;
  CopyTile<C::kQkDim, C::kBlockRows, kThreads>(
      query_tile, operands.q, params.q_stride, params.qk_dim,
      operands.first_row + tile_row, operands.end_row);
  CopyBlock<C>(params, operands, stage(first_block), first_block);
  CopyWait<0>();
  __syncthreads();

  const int lane = threadIdx.x % 32;
  const int warp_row = threadIdx.x / 32 * C::kRows;
  const auto queries = TakeQueries<C>(
      query_tile + warp_row * SharedTile<C::kQkDim>::kRowBytes, lane);
  const float scale_log2 = params.scale * kLog2E;
  AttentionState<Shape> state;
  ClearState<Shape>(state);
#pragma unroll 1
  for (int block = first_block; block < end_block; ++block) {
    CopyWait<0>();
    __syncthreads();  // this block is here; the other stage was read
    if (block + 1 < end_block) {
      CopyBlock<C>(params, operands, stage(block + 1), block + 1);
    }
    const unsigned char* keys = stage(block);
    AttendBlock<Shape>(state, queries, keys, keys + C::kKeyBytes, window,
                       tile_row + warp_row, block * kAttentionKeys, scale_log2,
                       lane);
  }
  FinishRows<Shape>(state);
  WriteRows<Shape>(state, operands.out, params.out_stride, params.v_dim,
                   operands.first_row + tile_row + warp_row, operands.end_row,
                   lane);
}

using Launcher = cudaError_t (*)(const AttentionParams&, const DeviceLimits&,
                                 cudaStream_t);

template <class C>
cudaError_t LaunchConfig(const AttentionParams& params,
                         const DeviceLimits& limits, cudaStream_t stream) {
  const int tiles = (params.max_tokens + C::kBlockRows - 1) / C::kBlockRows;
  const dim3 grid = GridOf(params, tiles);
  const int shared_bytes =
      SpreadIfFew(C::kSharedBytes, int64_t{1} * grid.x * grid.y * grid.z,
                  int64_t{1} * params.sequences * params.max_tokens, limits);
  return LaunchDependent(AttentionKernel<C>, grid, kThreads, shared_bytes,
                         stream, params);
}

// The committed list of instances: an entry holds dimensions up to its own, the
// rest is padded with zeros. 48, 80 and 112 are rare and cost a third, a fifth
// and a seventh more than they must.
struct Instance {
  int qk_dim;
  int v_dim;
  Launcher few_rows[2];   // of 64 queries a block: bf16, fp16
  Launcher many_rows[2];  // of 128
};

template <int kQk, int kV>
constexpr Instance MakeInstance() {
  return {kQk,
          kV,
          {LaunchConfig<Config<__nv_bfloat16, kQk, kV, 1>>,
           LaunchConfig<Config<__half, kQk, kV, 1>>},
          {LaunchConfig<Config<__nv_bfloat16, kQk, kV, 2>>,
           LaunchConfig<Config<__half, kQk, kV, 2>>}};
}

constexpr Instance kInstances[] = {
    MakeInstance<32, 32>(),
    // Absorbed factors: queries and keys of a head's rank, values in full.
    MakeInstance<32, 64>(),
    MakeInstance<64, 64>(),
    MakeInstance<96, 96>(),
    MakeInstance<128, 128>(),
};

bool IsHeadDim(int dim) { return dim >= 16 && dim <= 128 && dim % 16 == 0; }

bool MakesSense(const AttentionParams& p) {
  return p.sequences >= 0 && p.max_tokens >= 0 && p.heads > 0 &&
         p.kv_heads > 0 && p.heads % p.kv_heads == 0 && IsHeadDim(p.qk_dim) &&
         IsHeadDim(p.v_dim) && p.window_left >= -1 && p.window_right >= -1 &&
         p.scale > 0 && p.q_stride % 8 == 0 && p.k_stride % 8 == 0 &&
         p.v_stride % 8 == 0 && p.out_stride % 8 == 0;
}

// No limit becomes a large one; causal is a window that ends at the query.
AttentionParams WithPlainWindow(AttentionParams params) {
  if (params.window_left < 0) params.window_left = KeyWindow::kNoLimit;
  if (params.window_right < 0) params.window_right = KeyWindow::kNoLimit;
  if (params.causal) params.window_right = 0;
  return params;
}

}  // namespace

cudaError_t Attention(const AttentionParams& params, const DeviceLimits& limits,
                      cudaStream_t stream) {
  if (!MakesSense(params)) return cudaErrorInvalidValue;
  if (params.sequences == 0 || params.max_tokens == 0) return cudaSuccess;
  if (params.sequences > kMostSequences) return cudaErrorNotSupported;
  const AttentionParams plain = WithPlainWindow(params);
  if constexpr (kHopperLinked) {
    // Of few rows the portable kernel begins before its predecessor has ended.
    const bool few = params.rows > 0 && params.rows <= kFewRows;
    if (!few && TakesHopperKernels(limits)) {
      const cudaError_t error = hopper::Attention(plain, limits, stream);
      if (error != cudaErrorNotSupported) return error;
    }
  }
  const int type = params.type == Type::kBF16 ? 0 : 1;
  const int64_t blocks_of_many = int64_t{1} * params.sequences * params.heads *
                                 ((params.max_tokens + 127) / 128);
  const bool fills_device = blocks_of_many >= 2 * limits.multiprocessors;
  for (const Instance& instance : kInstances) {
    if (instance.qk_dim < params.qk_dim || instance.v_dim < params.v_dim) {
      continue;
    }
    const Launcher launch =
        fills_device ? instance.many_rows[type] : instance.few_rows[type];
    return launch(plain, limits, stream);
  }
  return cudaErrorNotSupported;
}

}  // namespace svdserve::cuda
