#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/cuda/attention_operands.cuh"
#include "kernels/cuda/hopper/attention.h"
#include "kernels/cuda/hopper/attention_loop.cuh"
#include "kernels/cuda/hopper/attention_tiles.h"
#include "kernels/cuda/launch.cuh"

namespace svdserve::cuda::hopper {
namespace {

// A warpgroup copies queries, keys and values to shared memory: one of its
// warps queries, each other one what belongs into its stage. kConsumers others
// attend, 64 queries each, and wait for no other of them. Blocks of threads
// stay on their multiprocessor and take tile after tile: the next tile's copies
// are under way while this one is finished.
template <typename T, int kQk, int kV, int kConsumers, int kBlocks>
struct Config : AttentionShape<T, kQk, kV, 1> {
  using Shape = AttentionShape<T, kQk, kV, 1>;
  static constexpr int kWarpgroups = kConsumers;
  static constexpr int kStages = 3;
  static constexpr int kQueryBuffers = kBlocks == 1 ? 2 : 1;
  static constexpr int kThreads = (kConsumers + 1) * kWarpgroupThreads;
  static constexpr int kTileRows = kConsumers * kWarpgroupRows;
  static constexpr int kBlocksPerMultiprocessor = kBlocks;

  // Registers at the launch, and how the warpgroups share them.
  static constexpr int kLaunchRegisters = 65536 / (kThreads * kBlocks) / 8 * 8;
  static constexpr int kProducerRegisters = 32;
  static constexpr int kAllRegisters = kLaunchRegisters * (kConsumers + 1);
  static constexpr int kFairRegisters =
      (kAllRegisters - kProducerRegisters) / kConsumers / 8 * 8;
  static constexpr int kConsumerRegisters =
      kFairRegisters > 240 ? 240 : kFairRegisters;

  static constexpr int kQueryBytes = kTileRows * kQk * kElementBytes;
  static constexpr int kStageBytes = Shape::kKeyBytes + Shape::kValueBytes;
  static constexpr int kTileBytes =
      kQueryBuffers * kQueryBytes + kStages * kStageBytes;
  static constexpr int kSharedBytes =
      kTileBytes + 2 * (kStages + kQueryBuffers) * sizeof(uint64_t);
  static_assert(kBlocks * (kSharedBytes + 1024) <= 228 << 10);
};

// What lies in shared memory.
template <class C>
struct Memory {
  unsigned char* bytes;

  __device__ unsigned char* Queries(int buffer) const {
    return bytes + buffer * C::kQueryBytes;
  }
  __device__ unsigned char* Keys(int stage) const {
    return bytes + C::kQueryBuffers * C::kQueryBytes + stage * C::kStageBytes;
  }
  __device__ unsigned char* Values(int stage) const {
    return Keys(stage) + C::kKeyBytes;
  }
  // Full: copied. Empty: read.
  __device__ uint64_t* FullStage(int stage) const {
    return reinterpret_cast<uint64_t*>(bytes + C::kTileBytes) + stage;
  }
  __device__ uint64_t* EmptyStage(int stage) const {
    return FullStage(C::kStages) + stage;
  }
  __device__ uint64_t* FullQueries(int buffer) const {
    return FullStage(2 * C::kStages) + buffer;
  }
  __device__ uint64_t* EmptyQueries(int buffer) const {
    return FullQueries(C::kQueryBuffers) + buffer;
  }
};

// A tile of queries and the blocks of keys that it sees; empty if the tile is
// beyond the sequence's end.
template <class C>
struct Work {
  Operands<typename C::Element> operands;
  KeyWindow window;
  int tile_row;
  int first_block;
  int end_block;

  __device__ bool IsEmpty() const { return tile_row >= window.length; }
};

__device__ inline int CountTiles(const AttentionParams& params, int rows) {
  return (params.max_tokens + rows - 1) / rows;
}

// Tiles in order: where attention is causal those that see the most keys first,
// else a head's together.
template <class C>
__device__ Work<C> FindWork(const AttentionParams& params, int item) {
  const int tiles = CountTiles(params, C::kTileRows);
  Position position;
  if (params.causal) {
    position.head = item % params.heads;
    item /= params.heads;
    position.sequence = item % params.sequences;
    position.tile = tiles - 1 - item / params.sequences;
  } else {
    position.tile = item % tiles;
    item /= tiles;
    position.head = item % params.heads;
    position.sequence = item / params.heads;
  }
  Work<C> work;
  work.operands = FindOperands<typename C::Element>(params, position);
  work.operands.first_row = Uniform(work.operands.first_row);
  work.operands.end_row = Uniform(work.operands.end_row);
  work.window = {work.operands.end_row - work.operands.first_row,
                 params.window_left, params.window_right};
  work.tile_row = position.tile * C::kTileRows;
  work.first_block = work.window.First(work.tile_row) / kAttentionKeys;
  const int end = work.window.End(work.tile_row + C::kTileRows - 1);
  work.end_block = (end + kAttentionKeys - 1) / kAttentionKeys;
  return work;
}

// Copies rows [row, row + kRows), zeros at and beyond end_row, by a warp, in
// few registers.
template <int kColumns, int kRows, typename T>
__device__ void CopyPanels(unsigned char* tile, const T* matrix, int64_t stride,
                           int row, int end_row) {
  using Panel = PanelTile<kColumns>;
  using Tile = SharedTile<Panel::kPanelColumns>;
  constexpr int kDown = 32 / Tile::kChunks;
  const int lane = threadIdx.x % 32;
  const int chunk = lane % Tile::kChunks;
  matrix += (row + lane / Tile::kChunks) * stride + chunk * 8;
#pragma unroll 4
  for (int r = lane / Tile::kChunks; r < kRows; r += kDown) {
    unsigned char* to = tile + Tile::Offset(r, chunk);
#pragma unroll
    for (int panel = 0; panel < Panel::kPanels; ++panel) {
      CopyAsync16(to + panel * kRows * Tile::kRowBytes,
                  matrix + panel * Panel::kPanelColumns, row + r < end_row);
    }
    matrix += kDown * stride;
  }
}

// A warp's copies are complete, and seen by wgmma of those who wait.
__device__ inline void FillCopied(uint64_t* full) {
  CopyCommit();
  CopyWait<0>();
  FenceSharedForAsync();
  __syncwarp();
  if (threadIdx.x % 32 == 0) Arrive(full);
}

template <class C>
__device__ void ProduceQueries(const AttentionParams& params,
                               const Memory<C>& memory, int items) {
  Ring<C::kQueryBuffers> buffers;
#pragma unroll 1
  for (int item = blockIdx.x; item < items; item += gridDim.x) {
    const Work<C> work = FindWork<C>(params, item);
    if (work.IsEmpty()) continue;
    BarrierWait(memory.EmptyQueries(buffers.index), buffers.parity ^ 1);
    CopyPanels<C::kQkDim, C::kTileRows>(
        memory.Queries(buffers.index), work.operands.q, params.q_stride,
        work.operands.first_row + work.tile_row, work.operands.end_row);
    FillCopied(memory.FullQueries(buffers.index));
    buffers.Next();
  }
}

// Keys and values of the blocks that belong into a stage: each kStages-th.
template <class C>
__device__ void ProduceStage(const AttentionParams& params,
                             const Memory<C>& memory, int items, int stage) {
  uint32_t parity = 0;
  int ahead = stage;  // blocks until the next of this stage
#pragma unroll 1
  for (int item = blockIdx.x; item < items; item += gridDim.x) {
    const Work<C> work = FindWork<C>(params, item);
    if (work.IsEmpty()) continue;
    const auto& operands = work.operands;
    int block = work.first_block + ahead;
#pragma unroll 1
    for (; block < work.end_block; block += C::kStages) {
      const int row = operands.first_row + block * kAttentionKeys;
      BarrierWait(memory.EmptyStage(stage), parity ^ 1);
      CopyPanels<C::kQkDim, kAttentionKeys>(memory.Keys(stage), operands.k,
                                            params.k_stride, row,
                                            operands.end_row);
      CopyPanels<C::kVDim, kAttentionKeys>(memory.Values(stage), operands.v,
                                           params.v_stride, row,
                                           operands.end_row);
      FillCopied(memory.FullStage(stage));
      parity ^= 1;
    }
    ahead = block - work.end_block;
  }
}

// By each warp, when its products have read what is to be overwritten.
__device__ inline void Release(uint64_t* empty) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) Arrive(empty);
}

template <class C>
__device__ void Consume(const AttentionParams& params, const Memory<C>& memory,
                        int items) {
  using Shape = typename C::Shape;
  const int warpgroup_row = WarpgroupOf() * kWarpgroupRows;
  const int warp_row = threadIdx.x / 32 * Shape::kRows;
  const float scale_log2 = params.scale * kLog2E;
  Ring<C::kStages> full;
  Ring<C::kStages> read;
  Ring<C::kQueryBuffers> buffers;
#pragma unroll 1
  for (int item = blockIdx.x; item < items; item += gridDim.x) {
    const Work<C> work = FindWork<C>(params, item);
    if (work.IsEmpty()) continue;
    const int first_row = work.tile_row + warpgroup_row;
    // Rows beyond the sequence's end see nothing.
    BlockRange blocks =
        FindBlocks(work.window, first_row, work.tile_row + warp_row);
    if (first_row >= work.window.length) blocks.end = blocks.begin;
    const SharedQueries<Shape, C::kTileRows> queries = {
        SharedAddress(memory.Queries(buffers.index)) +
        warpgroup_row * PanelTile<C::kQkDim>::kRowBytes};
    AttentionState<Shape> state;
    ClearState<Shape>(state);
    BarrierWait(memory.FullQueries(buffers.index), buffers.parity);
    const auto take = [&](int) -> BlockTiles {
      BarrierWait(memory.FullStage(full.index), full.parity);
      const BlockTiles tiles = {SharedAddress(memory.Keys(full.index)),
                                SharedAddress(memory.Values(full.index))};
      full.Next();
      return tiles;
    };
    const auto release = [&] {
      Release(memory.EmptyStage(read.index));
      read.Next();
    };
    const auto pass = [&](int count) {
#pragma unroll 1
      for (int i = 0; i < count; ++i) {
        take(0);
        release();
      }
    };
    if (blocks.begin < blocks.end) {
      pass(blocks.begin - work.first_block);
      AttendBlocks<Shape>(state, queries, work.window, blocks,
                          work.tile_row + warp_row, scale_log2, take, release);
      pass(work.end_block - blocks.end);
    } else {
      pass(work.end_block - work.first_block);
    }
    Release(memory.EmptyQueries(buffers.index));
    buffers.Next();
    FinishRows<Shape>(state);
    const auto& operands = work.operands;
    WriteRows<Shape>(state, operands.out, params.out_stride, params.v_dim,
                     operands.first_row + work.tile_row + warp_row,
                     operands.end_row, threadIdx.x % 32);
  }
}

struct Arguments {
  AttentionParams params;
  int items;
};

template <class C>
__global__ void __launch_bounds__(C::kThreads, C::kBlocksPerMultiprocessor)
    AttentionKernel(Arguments arguments) {
  const Memory<C> memory = {SwizzledSharedMemory()};
  if (threadIdx.x == 0) {
    for (int i = 0; i < C::kStages; ++i) {
      BarrierInit(memory.FullStage(i), 1);
      BarrierInit(memory.EmptyStage(i), 4 * C::kWarpgroups);
    }
    for (int i = 0; i < C::kQueryBuffers; ++i) {
      BarrierInit(memory.FullQueries(i), 1);
      BarrierInit(memory.EmptyQueries(i), 4 * C::kWarpgroups);
    }
    BarrierInitFence();
  }
  __syncthreads();
  if (WarpgroupOf() == C::kWarpgroups) {
    ReturnRegisters<C::kProducerRegisters>();
    WaitForPriorKernels();
    const int warp = Uniform(threadIdx.x / 32 % 4);
    if (warp < C::kStages) {
      ProduceStage<C>(arguments.params, memory, arguments.items, warp);
    } else {
      ProduceQueries<C>(arguments.params, memory, arguments.items);
    }
  } else {
    TakeRegisters<C::kConsumerRegisters>();
    WaitForPriorKernels();
    LetNextKernelStart();
    Consume<C>(arguments.params, memory, arguments.items);
  }
}

// ---- Host ----

using Launcher = cudaError_t (*)(const AttentionParams&, int items, int blocks,
                                 const DeviceLimits&, cudaStream_t);

template <class C>
cudaError_t LaunchConfig(const AttentionParams& params, int items, int blocks,
                         const DeviceLimits& limits, cudaStream_t stream) {
  return LaunchDependent(AttentionKernel<C>, dim3(blocks), C::kThreads,
                         SpreadBytes(C::kSharedBytes, blocks, limits), stream,
                         Arguments{params, items});
}

template <typename T, int kDim, int kTile>
constexpr Launcher LauncherOf() {
  constexpr AttentionTile kOf = FindAttentionTiles(kDim)->tiles[kTile];
  return LaunchConfig<
      Config<T, kDim, kDim, kOf.rows / kWarpgroupRows, kOf.places>>;
}

struct HeadShape {
  int dim;
  Launcher launch[kAttentionTiles][2];  // bf16, fp16
};

template <int kDim>
constexpr HeadShape MakeHeadShape() {
  return {
      kDim,
      {{LauncherOf<__nv_bfloat16, kDim, 0>(), LauncherOf<__half, kDim, 0>()},
       {LauncherOf<__nv_bfloat16, kDim, 1>(), LauncherOf<__half, kDim, 1>()},
       {LauncherOf<__nv_bfloat16, kDim, 2>(), LauncherOf<__half, kDim, 2>()}}};
}

constexpr HeadShape kShapes[] = {MakeHeadShape<32>(), MakeHeadShape<64>(),
                                 MakeHeadShape<128>()};

// Blocks that stay and take one tile after the other, or, where tiles differ, a
// block for each: then the device gives the next one to whichever
// multiprocessor is free. Of short causal sequences starts would cost more.
int MostBlocks(const AttentionTile& tile, const AttentionParams& params,
               const DeviceLimits& limits) {
  return IsRagged(params) || (params.causal && params.max_tokens >= 2048)
             ? std::numeric_limits<int>::max()
             : limits.multiprocessors * tile.places;
}

}  // namespace

cudaError_t Attention(const AttentionParams& params, const DeviceLimits& limits,
                      cudaStream_t stream) {
  for (const HeadShape& shape : kShapes) {
    if (shape.dim != params.qk_dim || shape.dim != params.v_dim) continue;
    const AttentionTiles& tiles = *FindAttentionTiles(shape.dim);
    const int chosen = ChooseAttentionTile(tiles, params, limits);
    const AttentionTile& tile = tiles.tiles[chosen];
    const int64_t items = CountAttentionTiles(params, tile);
    if (items > std::numeric_limits<int>::max()) return cudaErrorNotSupported;
    const int blocks = static_cast<int>(
        std::min<int64_t>(items, MostBlocks(tile, params, limits)));
    return shape.launch[chosen][params.type == Type::kBF16 ? 0 : 1](
        params, static_cast<int>(items), blocks, limits, stream);
  }
  return cudaErrorNotSupported;
}

}  // namespace svdserve::cuda::hopper
