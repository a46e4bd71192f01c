// y = act(x·Wᵀ + b) by wgmma, of up to three products that differ in x, W, b
// and y. Blocks stay for all tiles: a warp keeps a ring of stages of x and W
// full by tensor copies, two warpgroups multiply from it. What they finish goes
// through shared memory to tensor stores, piece by piece.
//
// Apart, the warpgroups take turns: each has tiles of its own, and finishes one
// while the other multiplies the next. Together, they share a tile, half of its
// rows each: for few tiles.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/hopper/gemm.h"
#include "kernels/cuda/hopper/instructions.cuh"
#include "kernels/cuda/hopper/tensor_map.h"
#include "kernels/cuda/hopper/wgmma.cuh"
#include "kernels/cuda/launch.cuh"

namespace svdserve::cuda::hopper {
namespace {

constexpr int kWarpgroup = 128;
constexpr int kConsumers = 2;                            // warpgroups
constexpr int kThreads = (kConsumers + 1) * kWarpgroup;  // and the producer
constexpr int kDepth = 64;                               // of k, of a stage
constexpr int kRowBytes = kDepth * kElementBytes;
constexpr int kAlignment = 1024;  // of swizzled tiles

constexpr int DivideUp(int a, int b) { return (a + b - 1) / b; }

// ---- The table ----

struct Tile {
  int rows;
  int columns;
  int stages;
  bool together;  // whether the warpgroups share it

  constexpr int WarpgroupRows() const {
    return together ? rows / kConsumers : rows;
  }
  // Columns of a tensor store, and that are stored at once.
  constexpr int Box() const {
    return columns % 64 == 0 ? 64 : columns % 32 == 0 ? 32 : 16;
  }
  constexpr int Piece() const { return Box() == 16 ? columns : Box(); }
  constexpr int StageBytes() const { return (rows + columns) * kRowBytes; }
  // Of one piece of a warpgroup; it has two.
  constexpr int PieceBytes() const {
    return WarpgroupRows() * Piece() * kElementBytes;
  }
  constexpr int SharedBytes() const {
    return stages * StageBytes() + 2 * kConsumers * PieceBytes() +
           2 * stages * int{sizeof(uint64_t)} +
           kConsumers * columns * int{sizeof(float)};
  }
};

constexpr Tile kTiles[kGemmTiles] = {
    // Most shapes of many rows.
    {128, 192, 4, false},
    // Ranks of 160 and 320, and where 192 columns would end inside a tile.
    {128, 160, 5, false},
    {128, 128, 5, false},
    // Few tiles: more of them, each done sooner. A rank of 320 by 80 columns:
    // 4,096 rows are 128 tiles, 1,024 rows by the last one 64.
    {128, 96, 6, true},
    {128, 80, 7, true},
    {128, 64, 8, true},
    {64, 80, 9, false},
};
// Smaller products end sooner by portable kernels: of fewer rows than kManyRows
// all but the widest. But beyond kFewRows those let no kernel start early,
// which costs more: MiniLM 8x64 took 0.223 ms with three of them a layer.
constexpr int kLeastRows = 128;
constexpr int kManyRows = 256;
constexpr int64_t kLeastResults = 96 << 10;
constexpr int64_t kLeastResultsOfFewRows = 256 << 10;

constexpr int MostSharedBytes() {
  int most = 0;
  for (const Tile& tile : kTiles) most = std::max(most, tile.SharedBytes());
  return most;
}
constexpr int kMostSharedBytes = MostSharedBytes();
static_assert(kMostSharedBytes <= 227 << 10);

// ---- The kernel ----

struct Part {
  CUtensorMap x;  // boxes of the tile's rows x kDepth
  CUtensorMap w;  // of its columns x kDepth
  CUtensorMap y;  // of a warpgroup's rows x a piece
  const float* bias;
  int in;
  Activation activation;
};

struct KernelParams {
  Part parts[kGemmGroup];
  int count;  // of parts
  int rows, out;
};

template <typename T, int kTile>
struct Config {
  using Element = T;
  static constexpr Tile kShape = kTiles[kTile];
  static constexpr int kRows = kShape.rows;
  static constexpr int kColumns = kShape.columns;
  static constexpr int kStages = kShape.stages;
  static constexpr int kXBytes = kRows * kRowBytes;
  static constexpr int kStageBytes = kShape.StageBytes();
  static constexpr int kWarpgroupRows = kShape.WarpgroupRows();
  static constexpr int kRowPieces = kWarpgroupRows / 64;
  static constexpr int kBox = kShape.Box();
  static constexpr int kPiece = kShape.Piece();
  static constexpr int kPieceBytes = kShape.PieceBytes();
  static_assert(kStageBytes % kAlignment == 0 && kColumns % kPiece == 0);
  // Warps that must have read a stage before it is loaded again.
  static constexpr int kReaders = kShape.together ? 4 * kConsumers : 4;
};

// A thread's part of a block's work.
template <typename C>
class GemmBlock {
  using T = typename C::Element;

 public:
  __device__ explicit GemmBlock(const KernelParams& params)
      : params_(params),
        across_((params.out + C::kColumns - 1) / C::kColumns),
        part_tiles_((params.rows + C::kRows - 1) / C::kRows * across_),
        tiles_(params.count * part_tiles_) {
    stages_ = SwizzledSharedMemory();
    pieces_ = stages_ + C::kStages * C::kStageBytes;
    full_ =
        reinterpret_cast<uint64_t*>(pieces_ + 2 * kConsumers * C::kPieceBytes);
    empty_ = full_ + C::kStages;
    bias_ = reinterpret_cast<float*>(empty_ + C::kStages) +
            Warpgroup() * C::kColumns;
  }

  __device__ void Run() {
    if (threadIdx.x == 0) {
      const Part& part = *Find(blockIdx.x).part;
      PrefetchTensorMap(&part.w);
      PrefetchTensorMap(&part.x);
      PrefetchTensorMap(&part.y);
      for (int i = 0; i < C::kStages; ++i) {
        BarrierInit(&full_[i], 1);
        BarrierInit(&empty_[i], C::kReaders);
      }
      BarrierInitFence();
    }
    __syncthreads();
    if (threadIdx.x >= kConsumers * kWarpgroup) {
      ReturnRegisters<24>();
      if (threadIdx.x < kConsumers * kWarpgroup + 32 && ElectOne()) {
        Produce();
      } else {
        WaitForPriorKernels();
      }
    } else {
      TakeRegisters<240>();
      WaitForPriorKernels();
      LetNextKernelStart();
      Consume();
    }
  }

 private:
  // A tile of all parts.
  struct Place {
    const Part* part;
    int row, column;  // the first

    __device__ int Steps() const { return (part->in + kDepth - 1) / kDepth; }
  };
  // Neighbouring blocks share rows of x; W stays in the cache.
  __device__ Place Find(int tile) const {
    int part = 0;
    for (; tile >= part_tiles_; tile -= part_tiles_) ++part;
    return {&params_.parts[part], tile / across_ * C::kRows,
            tile % across_ * C::kColumns};
  }

  // Keeps the ring full. W does not wait for prior kernels.
  __device__ void Produce() {
    const Place first = Find(blockIdx.x);
    int ahead = min(first.Steps(), C::kStages);  // stages that have W
    for (int i = 0; i < ahead; ++i) LoadWeights(i, i, first);
    WaitForPriorKernels();
    int stage = 0;
    uint32_t parity = 1;
#pragma unroll 1
    for (int tile = blockIdx.x; tile < tiles_; tile += gridDim.x) {
      const Place place = Find(tile);
      const int steps = place.Steps();
#pragma unroll 1
      for (int step = 0; step < steps; ++step) {
        BarrierWait(&empty_[stage], parity);
        if (--ahead < 0) LoadWeights(stage, step, place);
        TensorCopy(stages_ + stage * C::kStageBytes, &place.part->x,
                   step * kDepth, place.row, &full_[stage]);
        if (++stage == C::kStages) {
          stage = 0;
          parity ^= 1;
        }
      }
    }
  }

  __device__ void LoadWeights(int stage, int step, const Place& place) const {
    ArriveExpect(&full_[stage], C::kStageBytes);
    TensorCopy(stages_ + stage * C::kStageBytes + C::kXBytes, &place.part->w,
               step * kDepth, place.column, &full_[stage]);
  }

  __device__ void Consume() {
    constexpr bool kTogether = C::kShape.together;
    const int warpgroup = Warpgroup();
    if (!kTogether && warpgroup == 1) HandOver();
    int done = 0;  // stages of earlier tiles
    int turn = 0;
#pragma unroll 1
    for (int tile = blockIdx.x; tile < tiles_; tile += gridDim.x) {
      const Place place = Find(tile);
      const int steps = place.Steps();
      if (kTogether || turn++ % kConsumers == warpgroup) {
        const float2 bias = LoadBias(place);
        if (!kTogether) {
          NamedBarrierWait(kTurnBarrier + warpgroup, kConsumers * kWarpgroup);
        }
        Multiply(done, steps, tile + gridDim.x < tiles_);
        KeepBias(bias);
        Finish(place, kTogether ? warpgroup * C::kWarpgroupRows : 0);
      }
      done += steps;
    }
    if (threadIdx.x % kWarpgroup == 0) BulkWaitRead<0>();
  }

  // Named barriers: of each warpgroup alone; of each one's turn, at which the
  // other arrives. (A wait for a stage cannot tell its rounds apart, so that
  // only who has waited for all stages before may wait for the next.)
  static constexpr int kOwnBarrier = 1;
  static constexpr int kTurnBarrier = kOwnBarrier + kConsumers;
  __device__ static void HandOver() {
    NamedBarrierArrive(kTurnBarrier + 1 - Warpgroup(), kConsumers * kWarpgroup);
  }

  __device__ static int Warpgroup() {
    return __shfl_sync(0xffffffffu, threadIdx.x / kWarpgroup, 0);
  }
  __device__ static int Lane() { return threadIdx.x % 32; }

  // sum = x·Wᵀ; the tile's stages come after `done` earlier ones. `more`: of
  // the other warpgroup, afterwards.
  __device__ void Multiply(int done, int steps, bool more) {
    int stage = done % C::kStages;
    uint32_t parity = done / C::kStages & 1;
    int read_stage = 0;
    const int first_row =
        C::kShape.together ? Warpgroup() * C::kWarpgroupRows : 0;
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      BarrierWait(&full_[stage], parity);
      const unsigned char* tile = stages_ + stage * C::kStageBytes;
      const uint64_t x = Descriptor128(tile + first_row * kRowBytes);
      const uint64_t w = Descriptor128(tile + C::kXBytes);
      WgmmaFence();
#pragma unroll
      for (int k = 0; k < kDepth / 16; ++k) {
#pragma unroll
        for (int m = 0; m < C::kRowPieces; ++m) {
          Wgmma<T>(sum_[m], x + m * (64 * kRowBytes / 16) + 2 * k, w + 2 * k,
                   step + k > 0);
        }
      }
      WgmmaCommit();
      if (!C::kShape.together && more && step + 1 == steps) HandOver();
      WgmmaWait<1>();
      if (step > 0) Release(read_stage);
      read_stage = stage;
      if (++stage == C::kStages) {
        stage = 0;
        parity ^= 1;
      }
    }
    WgmmaWait<0>();
    Release(read_stage);
  }
  __device__ void Release(int stage) const {
    if (Lane() == 0) Arrive(&empty_[stage]);
  }

  // Two columns of a thread, fetched before the products, kept after them.
  __device__ float2 LoadBias(const Place& place) const {
    const int column = place.column + threadIdx.x % kWarpgroup * 2;
    const float* bias = place.part->bias;
    if (bias == nullptr || column >= params_.out) return {0, 0};
    return __ldg(reinterpret_cast<const float2*>(bias + column));
  }
  __device__ void KeepBias(float2 bias) const {
    const int column = threadIdx.x % kWarpgroup * 2;
    if (column < C::kColumns) *reinterpret_cast<float2*>(bias_ + column) = bias;
  }

  // `row`: of the tile, the warpgroup's first.
  __device__ void Finish(const Place& place, int row) {
    switch (place.part->activation) {
      case Activation::kNone:
        return FinishAs<Activation::kNone>(place, row);
      case Activation::kGelu:
        return FinishAs<Activation::kGelu>(place, row);
      case Activation::kGeluTanh:
        return FinishAs<Activation::kGeluTanh>(place, row);
      case Activation::kRelu:
        return FinishAs<Activation::kRelu>(place, row);
      case Activation::kSilu:
        return FinishAs<Activation::kSilu>(place, row);
    }
  }

  // y = act(sum + bias), rounded.
  template <Activation kActivation>
  __device__ void FinishAs(const Place& place, int row) {
    const bool stores = threadIdx.x % kWarpgroup == 0;
    const int barrier = kOwnBarrier + Warpgroup();
#pragma unroll
    for (int p = 0; p < C::kColumns / C::kPiece; ++p) {
      const int first_column = place.column + p * C::kPiece;
      if (first_column >= params_.out) break;
      unsigned char* const piece =
          pieces_ + (Warpgroup() * 2 + piece_) * C::kPieceBytes;
      piece_ ^= 1;
      if (stores) BulkWaitRead<1>();
      NamedBarrierWait(barrier, kWarpgroup);
      FinishPiece<kActivation>(p, piece);
      FenceSharedForAsync();
      NamedBarrierWait(barrier, kWarpgroup);
      if (stores) {
#pragma unroll
        for (int box = 0; box < C::kPiece; box += C::kBox) {
          TensorStore(&place.part->y, first_column + box, place.row + row,
                      piece + box * C::kWarpgroupRows * kElementBytes);
        }
        BulkCommit();
      }
    }
  }

  template <Activation kActivation>
  __device__ void FinishPiece(int p, unsigned char* piece) {
    constexpr int kBoxRowBytes = C::kBox * kElementBytes;
    constexpr int kBoxChunks = C::kBox / 8;
    const int row = threadIdx.x % kWarpgroup / 32 * 16 + Lane() % 16;
    const int permutation = row * kBoxRowBytes / 128 % kBoxChunks;
    unsigned char* const to = piece + row * kBoxRowBytes;
    const float* const bias = bias_ + p * C::kPiece + Lane() % 4 * 2;
    float2 low[2], high[2];  // of this and the next columns
    LoadPair(bias, low[0], high[0]);
#pragma unroll
    for (int j = 0; j < C::kPiece / 16; ++j) {
      const int box = 2 * j / kBoxChunks;
      const int chunk = (2 * j % kBoxChunks + Lane() / 16) ^ permutation;
      if (j + 1 < C::kPiece / 16) {
        LoadPair(bias + (j + 1) * 16, low[(j + 1) % 2], high[(j + 1) % 2]);
      }
#pragma unroll
      for (int m = 0; m < C::kRowPieces; ++m) {
        const float* s = &sum_[m][(p * C::kPiece + j * 16) / 2];
        StoreMatrix4(
            to + (box * C::kWarpgroupRows + m * 64) * kBoxRowBytes + chunk * 16,
            Finished<kActivation>(s[0], s[1], low[j % 2]),
            Finished<kActivation>(s[2], s[3], low[j % 2]),
            Finished<kActivation>(s[4], s[5], high[j % 2]),
            Finished<kActivation>(s[6], s[7], high[j % 2]));
      }
    }
  }
  __device__ static void LoadPair(const float* from, float2& low,
                                  float2& high) {
    low = *reinterpret_cast<const float2*>(from);
    high = *reinterpret_cast<const float2*>(from + 8);
  }
  template <Activation kActivation>
  __device__ static uint32_t Finished(float low, float high, float2 bias) {
    return Pack<T>(Activate<T>(kActivation, low + bias.x),
                   Activate<T>(kActivation, high + bias.y));
  }

  const KernelParams& params_;
  const int across_;      // tiles
  const int part_tiles_;  // of each part
  const int tiles_;
  unsigned char* stages_;  // x [C::kRows, kDepth], W [C::kColumns, kDepth] each
  unsigned char* pieces_;  // of y, two for each warpgroup
  uint64_t* full_;         // of each stage
  uint64_t* empty_;
  float* bias_;    // of the warpgroup's tile
  int piece_ = 0;  // the next
  float sum_[C::kRowPieces][C::kColumns / 2];
};

template <typename C>
__global__ void __launch_bounds__(kThreads, 1)
    GemmKernel(const __grid_constant__ KernelParams params) {
  GemmBlock<C>(params).Run();
}

// ---- On the host ----

using Kernel = void (*)(KernelParams);

template <typename T, size_t... kTile>
Kernel Find(int tile, std::index_sequence<kTile...> /*all*/) {
  static constexpr Kernel kKernels[] = {GemmKernel<Config<T, kTile>>...};
  return kKernels[tile];
}

constexpr auto kAllTiles = std::make_index_sequence<kGemmTiles>();

cudaError_t MakePart(const GemmParams& p, const Tile& tile, Part* part) {
  part->bias = p.bias;
  part->in = p.in;
  part->activation = p.activation;
  return MakeTensorMaps({
      {&part->x, {p.type, p.x, p.rows, p.in, p.x_stride}, {tile.rows, kDepth}},
      {&part->w, {p.type, p.w, p.out, p.in, p.in}, {tile.columns, kDepth}},
      {&part->y,
       {p.type, p.y, p.rows, p.out, p.y_stride},
       {tile.WarpgroupRows(), tile.Box(),
        tile.Box() == 64   ? Swizzle::k128Bytes
        : tile.Box() == 32 ? Swizzle::k64Bytes
                           : Swizzle::k32Bytes}},
  });
}

// Products of one launch, the longest sum of them.
struct Group {
  int count, rows, in, out;
};

Group GroupOf(const GemmParams* parts, int count) {
  Group group = {count, parts[0].rows, 0, parts[0].out};
  for (int i = 0; i < count; ++i) group.in = std::max(group.in, parts[i].in);
  return group;
}

int64_t Tiles(const Tile& tile, const Group& g) {
  return int64_t{g.count} * DivideUp(g.rows, tile.rows) *
         DivideUp(g.out, tile.columns);
}

// Of a multiprocessor. A model: copies, of at most 47 bytes a cycle and 5,100
// of all multiprocessors together, or 1,500 multiply-adds a cycle; then bias,
// activation and stores, which warpgroups apart do beside the products of the
// next tile. Fitted to 18 products of 1,024 to 4,096 rows, of which it loses
// 0.2 of 3 to 20 us in the mean; of more rows it takes the tiles that a model
// took which was within 1 % of the fastest in the mean of 76 shapes.
int64_t Cycles(const Tile& tile, const Group& group,
               const DeviceLimits& limits) {
  const int64_t multiprocessors = std::max(1, limits.multiprocessors);
  const int64_t tiles = Tiles(tile, group);
  const int64_t turns = (tiles + multiprocessors - 1) / multiprocessors;
  const int64_t rate =
      std::min<int64_t>(47, 5100 / std::min<int64_t>(tiles, multiprocessors));
  const int64_t stage =
      std::max<int64_t>(tile.StageBytes() / std::max<int64_t>(1, rate),
                        tile.rows * tile.columns * kDepth / 1500);
  const int64_t products = DivideUp(group.in, kDepth) * stage;
  const int64_t finish = 750 + 6 * tile.columns * tile.WarpgroupRows() / 64;
  if (tile.together) return turns * (products + finish);
  return turns * std::max(products, (products + finish) / 2) + finish;
}

// Of few rows those by both warpgroups together.
int FastestTile(const Group& group, const DeviceLimits& limits) {
  int fastest = -1;
  for (int i = 0; i < kGemmTiles; ++i) {
    if (group.rows < kManyRows && !kTiles[i].together) continue;
    if (fastest < 0 || Cycles(kTiles[i], group, limits) <
                           Cycles(kTiles[fastest], group, limits)) {
      fastest = i;
    }
  }
  return fastest;
}

}  // namespace

bool GemmTakes(const GemmParams& params, const DeviceLimits& limits) {
  const int64_t least = params.rows < kManyRows   ? kLeastResultsOfFewRows
                        : params.rows <= kFewRows ? kLeastResults
                                                  : 0;
  return params.rows >= kLeastRows &&
         int64_t{params.rows} * params.out >= least && params.gate == nullptr &&
         params.sums == nullptr && limits.shared_bytes >= kMostSharedBytes;
}

bool GemmGroupTakes(const GemmParams* parts, int count,
                    const DeviceLimits& limits) {
  return std::all_of(parts, parts + count, [&](const GemmParams& params) {
    return GemmTakes(params, limits);
  });
}

cudaError_t Gemm(const GemmParams& params, const DeviceLimits& limits,
                 cudaStream_t stream) {
  return hopper::GemmGroup(&params, 1, limits, stream);
}

cudaError_t GemmGroup(const GemmParams* parts, int count,
                      const DeviceLimits& limits, cudaStream_t stream) {
  return GemmGroupWithTile(FastestTile(GroupOf(parts, count), limits), parts,
                           count, limits, stream);
}

cudaError_t GemmWithTile(int tile, const GemmParams& params,
                         const DeviceLimits& limits, cudaStream_t stream) {
  return GemmGroupWithTile(tile, &params, 1, limits, stream);
}

cudaError_t GemmGroupWithTile(int index, const GemmParams* parts, int count,
                              const DeviceLimits& limits, cudaStream_t stream) {
  if (parts[0].rows == 0) return cudaSuccess;
  const Tile& tile = kTiles[index];
  KernelParams params = {};
  params.count = count;
  params.rows = parts[0].rows;
  params.out = parts[0].out;
  for (int i = 0; i < count; ++i) {
    const cudaError_t error = MakePart(parts[i], tile, &params.parts[i]);
    if (error != cudaSuccess) return error;
  }
  const int64_t blocks = std::min<int64_t>(Tiles(tile, GroupOf(parts, count)),
                                           std::max(1, limits.multiprocessors));
  // Of any number of rows: a block has a multiprocessor to itself, so that
  // those that start early crowd none.
  return LaunchDependent(parts[0].type == Type::kBF16
                             ? Find<__nv_bfloat16>(index, kAllTiles)
                             : Find<__half>(index, kAllTiles),
                         dim3(static_cast<unsigned>(blocks)), kThreads,
                         tile.SharedBytes(), stream, params);
}

}  // namespace svdserve::cuda::hopper
