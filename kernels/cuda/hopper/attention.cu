#include <algorithm>
#include <cstdint>
#include <iterator>
#include <limits>
#include <utility>

#include "kernels/cuda/hopper/attention.h"
#include "kernels/cuda/hopper/attention_loop.cuh"
#include "kernels/cuda/hopper/attention_tiles.h"
#include "kernels/cuda/hopper/attention_work.cuh"
#include "kernels/cuda/hopper/tensor_map.h"
#include "kernels/cuda/launch.cuh"

namespace svdserve::cuda::hopper {
namespace {

using Arguments = AttentionArguments;

// kGroups warpgroups attend to 64 queries each, and wait for no other of them.
// One more, which has few registers, asks the copy engine: one of its warps for
// queries, one for keys and values, as many blocks ahead as memory has stages.
// Blocks of threads stay on their multiprocessor and take tile after tile: the
// next tile's copies are under way while this one is finished.
template <typename T, int kQk, int kV, int kGroups, int kBlocks>
struct Config : AttentionShape<T, kQk, kV, 1> {
  using Shape = AttentionShape<T, kQk, kV, 1>;
  using QueryPanels = PanelTile<kQk>;
  using ValuePanels = PanelTile<kV>;
  static constexpr int kWarpgroups = kGroups;
  static constexpr int kThreads = (kGroups + 1) * kWarpgroupThreads;
  static constexpr int kTileRows = kGroups * kWarpgroupRows;
  static constexpr int kBlocksPerMultiprocessor = kBlocks;

  // Registers at the launch, and how the warpgroups share them.
  static constexpr int kLaunchRegisters = 65536 / (kThreads * kBlocks) / 8 * 8;
  static constexpr int kProducerRegisters = 24;
  static constexpr int kAllRegisters = kLaunchRegisters * (kGroups + 1);
  static constexpr int kFairRegisters =
      (kAllRegisters - kProducerRegisters) / kGroups / 8 * 8;
  static constexpr int kConsumerRegisters = std::min(240, kFairRegisters);
  // Of sums, scores, two blocks' weights, queries, and all else: where there
  // are so many, queries are kept in registers, and a block's output is
  // computed while the next one's weights are.
  static constexpr bool kOverlaps =
      kV / 2 + 32 + 32 + kQk / 4 + 32 <= kConsumerRegisters;

  static constexpr int kQueryBytes = kGroups * QueryPanels::kTileBytes;
  static constexpr int kKeyBytes = QueryPanels::kTileBytes;
  static constexpr int kStageBytes = kKeyBytes + ValuePanels::kTileBytes;
  // Of a multiprocessor's memory, but for what the device takes of it, and for
  // barriers. The next tile's queries have a place where three stages are left.
  static constexpr int kRoom = (228 << 10) / kBlocks - 1024 - 512;
  static constexpr int kQueryBuffers =
      (kRoom - 2 * kQueryBytes) / kStageBytes >= 3 ? 2 : 1;
  static constexpr int kStages =
      std::min(8, (kRoom - kQueryBuffers * kQueryBytes) / kStageBytes);
  static_assert(kStages >= 2);
  static constexpr int kTileBytes =
      kQueryBuffers * kQueryBytes + kStages * kStageBytes;
  static constexpr int kSharedBytes =
      kTileBytes + kQueryBuffers * sizeof(Work) +
      (2 * (kStages + kQueryBuffers) + 1) * sizeof(uint64_t);
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
  // What the queries are of.
  __device__ Work* WorkOf(int buffer) const {
    return reinterpret_cast<Work*>(bytes + C::kTileBytes) + buffer;
  }
  // Full: copied. Empty: read.
  __device__ uint64_t* FullStage(int stage) const {
    return reinterpret_cast<uint64_t*>(WorkOf(C::kQueryBuffers)) + stage;
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
  // A sequence's last block was copied, and is to be cleared beyond its end.
  __device__ uint64_t* LastBlock() const {
    return FullQueries(2 * C::kQueryBuffers);
  }
};

// ---- Copies, each by a warp ----

// kRows rows of one head, by one thread.
template <class Panels, int kRows>
__device__ void CopyPanels(unsigned char* tile, const CUtensorMap* map,
                           int head, int row, uint64_t* full) {
#pragma unroll
  for (int panel = 0; panel < Panels::kPanels; ++panel) {
    TensorCopy(tile + panel * kRows * Panels::kRowBytes, map,
               panel * Panels::kPanelColumns, head, row, full);
  }
}

// Queries of tile after tile, and what they are of. The first tile is found
// while prior kernels run: no kernel writes where sequences start.
template <class C>
__device__ void ProduceQueries(const Arguments& arguments,
                               const Memory<C>& memory) {
  Ring<C::kQueryBuffers> buffers;
  int item = blockIdx.x;
  Work work = FindWork<C::kTileRows>(arguments, item);
  WaitForPriorKernels();
#pragma unroll 1
  for (;;) {
    uint64_t* const full = memory.FullQueries(buffers.index);
    BarrierWait(memory.EmptyQueries(buffers.index), buffers.parity ^ 1);
    if (threadIdx.x % 32 == 0) {
      *memory.WorkOf(buffers.index) = work;
      if (work.IsEmpty()) {
        Arrive(full);
      } else {
        ArriveExpect(full, C::kQueryBytes);
        CopyPanels<typename C::QueryPanels, C::kTileRows>(
            memory.Queries(buffers.index), &arguments.queries, work.head,
            work.first_row + work.tile_row, full);
      }
    }
    buffers.Next();
    item += gridDim.x;
    if (item >= arguments.items) return;
    work = FindWork<C::kTileRows>(arguments, item);
  }
}

// Rows of values from `row` on, which belong to the next sequence: their
// weights are zeros, but they might be NaN.
template <class Panels>
__device__ void ClearRows(unsigned char* tile, int row) {
  constexpr int kChunks = Panels::kRowBytes / 16;
#pragma unroll
  for (int panel = 0; panel < Panels::kPanels; ++panel) {
    uint4* const chunks =
        reinterpret_cast<uint4*>(tile + panel * Panels::kPanelBytes);
#pragma unroll 1
    for (int i = row * kChunks + threadIdx.x % 32; i < 64 * kChunks; i += 32) {
      chunks[i] = {};
    }
  }
}

// Keys and values of tile after tile.
template <class C>
__device__ void ProduceBlocks(const Arguments& arguments,
                              const Memory<C>& memory) {
  Ring<C::kStages> stages;
  uint32_t last_parity = 0;
  int item = blockIdx.x;
  Work work = FindWork<C::kTileRows>(arguments, item);
  WaitForPriorKernels();
#pragma unroll 1
  for (;;) {
    if (work.IsEmpty()) work.end_block = work.first_block;
    const int head = arguments.kv_group.Quotient(work.head);
#pragma unroll 1
    for (int block = work.first_block; block < work.end_block; ++block) {
      const int keys = work.length - block * kAttentionKeys;
      const bool whole = keys >= kAttentionKeys;
      uint64_t* const full = memory.FullStage(stages.index);
      BarrierWait(memory.EmptyStage(stages.index), stages.parity ^ 1);
      if (threadIdx.x % 32 == 0) {
        uint64_t* const copied = whole ? full : memory.LastBlock();
        const int row = work.first_row + block * kAttentionKeys;
        ArriveExpect(copied, C::kStageBytes);
        CopyPanels<typename C::QueryPanels, kAttentionKeys>(
            memory.Keys(stages.index), &arguments.keys, head, row, copied);
        CopyPanels<typename C::ValuePanels, kAttentionKeys>(
            memory.Values(stages.index), &arguments.values, head, row, copied);
      }
      if (!whole) {
        BarrierWait(memory.LastBlock(), last_parity);
        last_parity ^= 1;
        ClearRows<typename C::ValuePanels>(memory.Values(stages.index), keys);
        FenceSharedForAsync();
        __syncwarp();
        if (threadIdx.x % 32 == 0) Arrive(full);
      }
      stages.Next();
    }
    item += gridDim.x;
    if (item >= arguments.items) return;
    work = FindWork<C::kTileRows>(arguments, item);
  }
}

// ---- Attention ----

// By each warp, when its products have read what is to be overwritten.
__device__ inline void Release(uint64_t* empty) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) Arrive(empty);
}

// What the whole warp has in common.
__device__ inline Work ReadWork(const Work* work) {
  return {Uniform(work->head),        Uniform(work->first_row),
          Uniform(work->length),      Uniform(work->tile_row),
          Uniform(work->first_block), Uniform(work->end_block)};
}

template <class C>
__device__ void LoadQueries(QueryRegisters<typename C::Shape>& queries,
                            const unsigned char* tile) {
  using Panels = typename C::QueryPanels;
  constexpr int kSteps = Panels::kPanelColumns / 16;
  const PieceReader<Panels::kPanelColumns, Piece::kA> reader(
      tile + threadIdx.x / 32 * C::kRows * Panels::kRowBytes, threadIdx.x % 32);
#pragma unroll
  for (int step = 0; step < C::kQkSteps; ++step) {
    reader.Load(queries.fragments[0][step], 0, step % kSteps,
                step / kSteps * C::kTileRows * Panels::kRowBytes);
  }
}

// The blocks of keys and values, as a warp takes them one after another.
template <class C>
class BlockStream {
 public:
  __device__ explicit BlockStream(const Memory<C>& memory) : memory_(memory) {}

  // Waits for the next one.
  __device__ BlockTiles Take() {
    BarrierWait(memory_.FullStage(full_.index), full_.parity);
    const BlockTiles tiles = {SharedAddress(memory_.Keys(full_.index)),
                              SharedAddress(memory_.Values(full_.index))};
    full_.Next();
    return tiles;
  }
  // The oldest that was taken was read.
  __device__ void Release() {
    hopper::Release(memory_.EmptyStage(read_.index));
    read_.Next();
  }
  __device__ void Pass(int count) {
#pragma unroll 1
    for (int i = 0; i < count; ++i) {
      Take();
      Release();
    }
  }

 private:
  const Memory<C> memory_;
  Ring<C::kStages> full_;
  Ring<C::kStages> read_;
};

// The warpgroup's rows of a tile meet all blocks of keys that they see.
template <class C>
__device__ void AttendTile(AttentionState<typename C::Shape>& state,
                           const AttentionParams& params, const Work& work,
                           const unsigned char* query_tile,
                           BlockStream<C>& stream) {
  using Shape = typename C::Shape;
  const int group_row = WarpgroupOf() * kWarpgroupRows;
  const int warp_row = work.tile_row + threadIdx.x / 32 * Shape::kRows;
  const float scale_log2 = params.scale * kLog2E;
  const KeyWindow window = {work.length, params.window_left,
                            params.window_right};
  const BlockRange blocks =
      FindBlocks(window, work.tile_row + group_row, warp_row);
  // Rows beyond the sequence's end see nothing.
  if (work.tile_row + group_row >= work.length || blocks.begin >= blocks.end) {
    return stream.Pass(work.end_block - work.first_block);
  }
  stream.Pass(blocks.begin - work.first_block);
  const auto take = [&](int) { return stream.Take(); };
  const auto release = [&] { stream.Release(); };
  if constexpr (C::kOverlaps) {
    QueryRegisters<Shape> queries;
    LoadQueries<C>(queries, query_tile);
    AttendBlocksOverlapped<Shape>(state, RegisterQueries<Shape>{queries},
                                  window, blocks, warp_row, scale_log2, take,
                                  release);
  } else {
    const SharedQueries<Shape, C::kTileRows> queries = {
        SharedAddress(query_tile) + group_row * C::QueryPanels::kRowBytes};
    AttendBlocks<Shape>(state, queries, window, blocks, warp_row, scale_log2,
                        take, release);
  }
  stream.Pass(work.end_block - blocks.end);
}

template <class C>
__device__ void Consume(const Arguments& arguments, const Memory<C>& memory) {
  using Shape = typename C::Shape;
  const AttentionParams& params = arguments.params;
  BlockStream<C> stream(memory);
  Ring<C::kQueryBuffers> buffers;
#pragma unroll 1
  for (int item = blockIdx.x; item < arguments.items; item += gridDim.x) {
    const int buffer = buffers.index;
    BarrierWait(memory.FullQueries(buffer), buffers.parity);
    buffers.Next();
    Work work = ReadWork(memory.WorkOf(buffer));
    if (work.IsEmpty()) {
      Release(memory.EmptyQueries(buffer));
      continue;
    }
    AttentionState<Shape> state;
    ClearState<Shape>(state);
    AttendTile<C>(state, params, work, memory.Queries(buffer), stream);
    // Again: the loop has no registers to keep it in.
    work = ReadWork(memory.WorkOf(buffer));
    Release(memory.EmptyQueries(buffer));
    FinishRows<Shape>(state);
    auto* const out = static_cast<typename C::Element*>(params.out);
    WriteRows<Shape>(
        state, out + work.head * params.v_dim, params.out_stride, params.v_dim,
        work.first_row + work.tile_row + threadIdx.x / 32 * Shape::kRows,
        work.first_row + work.length, threadIdx.x % 32);
  }
}

template <class C>
__global__ void __launch_bounds__(C::kThreads, C::kBlocksPerMultiprocessor)
    AttentionKernel(const __grid_constant__ Arguments arguments) {
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
    BarrierInit(memory.LastBlock(), 1);
    BarrierInitFence();
  }
  __syncthreads();
  if (WarpgroupOf() == C::kWarpgroups) {
    ReturnRegisters<C::kProducerRegisters>();
    const int warp = Uniform(threadIdx.x / 32 % 4);
    if (warp == 0) {
      PrefetchTensorMap(&arguments.keys);
      PrefetchTensorMap(&arguments.values);
      ProduceBlocks<C>(arguments, memory);
    } else if (warp == 1) {
      PrefetchTensorMap(&arguments.queries);
      ProduceQueries<C>(arguments, memory);
    } else {
      WaitForPriorKernels();
    }
  } else {
    TakeRegisters<C::kConsumerRegisters>();
    WaitForPriorKernels();
    LetNextKernelStart();
    Consume<C>(arguments, memory);
  }
}

// ---- Host ----

using Launcher = cudaError_t (*)(Arguments&, int blocks, const DeviceLimits&,
                                 cudaStream_t);

cudaError_t MakeMap(const AttentionParams& params, const void* data, int heads,
                    int dim, int64_t stride, int box_rows, int panel_columns,
                    CUtensorMap* map) {
  const int64_t rows = params.rows > 0
                           ? params.rows
                           : int64_t{1} * params.sequences * params.max_tokens;
  return MakeHeadsTensorMap(
      HeadsView{params.type, data, rows, heads, dim, stride},
      {box_rows, panel_columns,
       panel_columns == 32 ? Swizzle::k64Bytes : Swizzle::k128Bytes},
      map);
}

template <class C>
cudaError_t LaunchConfig(Arguments& arguments, int blocks,
                         const DeviceLimits& limits, cudaStream_t stream) {
  constexpr int kQkPanel = C::QueryPanels::kPanelColumns;
  constexpr int kVPanel = C::ValuePanels::kPanelColumns;
  const AttentionParams& p = arguments.params;
  const cudaError_t errors[] = {
      MakeMap(p, p.q, p.heads, p.qk_dim, p.q_stride, C::kTileRows, kQkPanel,
              &arguments.queries),
      MakeMap(p, p.k, p.kv_heads, p.qk_dim, p.k_stride, kAttentionKeys,
              kQkPanel, &arguments.keys),
      MakeMap(p, p.v, p.kv_heads, p.v_dim, p.v_stride, kAttentionKeys, kVPanel,
              &arguments.values)};
  for (cudaError_t error : errors) {
    if (error != cudaSuccess) return error;
  }
  return LaunchDependent(AttentionKernel<C>, dim3(blocks), C::kThreads,
                         SpreadBytes(C::kSharedBytes, blocks, limits), stream,
                         arguments);
}

template <typename T, int kHeads, int kTile>
constexpr Launcher LauncherOf() {
  constexpr AttentionTiles kOf = kAttentionTilesOfHeads[kHeads];
  constexpr AttentionTile kRows = kOf.tiles[kTile];
  return LaunchConfig<Config<T, kOf.qk_dim, kOf.v_dim,
                             kRows.rows / kWarpgroupRows, kRows.places>>;
}

template <int kHeads>
struct HeadLaunchers {
  static constexpr Launcher kLaunchers[kAttentionTiles][2] = {
      {LauncherOf<__nv_bfloat16, kHeads, 0>(), LauncherOf<__half, kHeads, 0>()},
      {LauncherOf<__nv_bfloat16, kHeads, 1>(), LauncherOf<__half, kHeads, 1>()},
      {LauncherOf<__nv_bfloat16, kHeads, 2>(),
       LauncherOf<__half, kHeads, 2>()}};
};

// By the place in kAttentionTilesOfHeads, tile and type.
template <int... kHeads>
Launcher FindLauncher(std::integer_sequence<int, kHeads...>, int heads,
                      int tile, Type type) {
  constexpr const Launcher(*kAll[])[2] = {HeadLaunchers<kHeads>::kLaunchers...};
  return kAll[heads][tile][type == Type::kBF16 ? 0 : 1];
}

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
  const AttentionTiles* tiles = FindAttentionTiles(params.qk_dim, params.v_dim);
  if (tiles == nullptr) return cudaErrorNotSupported;
  const int chosen = ChooseAttentionTile(*tiles, params, limits);
  const AttentionTile& tile = tiles->tiles[chosen];
  const int64_t items = CountAttentionTiles(params, tile);
  if (items > std::numeric_limits<int>::max()) return cudaErrorNotSupported;
  const int blocks = static_cast<int>(
      std::min<int64_t>(items, MostBlocks(tile, params, limits)));
  const int tiles_of_head = (params.max_tokens + tile.rows - 1) / tile.rows;
  const int heads = params.heads * params.sequences;
  const int group = std::min(heads, limits.multiprocessors * tile.places);
  const int groups = (heads + group - 1) / group;
  Arguments arguments = {.params = params,
                         .items = static_cast<int>(items),
                         .tiles = Divisor(tiles_of_head),
                         .heads = Divisor(params.heads),
                         .kv_group = Divisor(params.heads / params.kv_heads),
                         .group_items = Divisor(group * tiles_of_head),
                         .group = Divisor(group),
                         .last_group = Divisor(heads - (groups - 1) * group),
                         .groups = groups};
  const Launcher launch = FindLauncher(
      std::make_integer_sequence<int, std::size(kAttentionTilesOfHeads)>(),
      static_cast<int>(tiles - kAttentionTilesOfHeads), chosen, params.type);
  return launch(arguments, blocks, limits, stream);
}

}  // namespace svdserve::cuda::hopper
