// y = act(x·Wᵀ + b) by wgmma. Blocks stay for all tiles: a warp keeps a ring of
// stages of x and W full by tensor copies, two warpgroups multiply from it.
// What they finish goes through shared memory to tensor stores, piece by piece.
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
constexpr int kRows = 128;                               // of a tile
constexpr int kDepth = 64;                               // of k, of a stage
constexpr int kRowBytes = kDepth * kElementBytes;
constexpr int kAlignment = 1024;  // of swizzled tiles

constexpr int DivideUp(int a, int b) { return (a + b - 1) / b; }

// ---- The table ----

struct Tile {
  int columns;
  int stages;
  bool together;  // whether the warpgroups share it
  int finish;     // cycles from the last product to the last store

  constexpr int WarpgroupRows() const {
    return together ? kRows / kConsumers : kRows;
  }
  // Columns that are stored at once.
  constexpr int Piece() const { return columns % 64 == 0 ? 64 : 32; }
  constexpr int StageBytes() const { return (kRows + columns) * kRowBytes; }
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
    {192, 4, false, 3500},
    // Ranks of 160 and 320, and where 192 columns would end inside a tile.
    {160, 5, false, 3200},
    {128, 5, false, 2800},
    // Few tiles: more of them, each done sooner.
    {96, 6, true, 1500},
    {64, 8, true, 1300},
};
// Smaller products end sooner by portable kernels.
constexpr int kLeastRows = 256;
constexpr int64_t kLeastResults = 96 << 10;

constexpr int MostSharedBytes() {
  int most = 0;
  for (const Tile& tile : kTiles) most = std::max(most, tile.SharedBytes());
  return most;
}
constexpr int kMostSharedBytes = MostSharedBytes();
static_assert(kMostSharedBytes <= 227 << 10);

// ---- The kernel ----

struct KernelParams {
  CUtensorMap x;  // boxes of kRows x kDepth
  CUtensorMap w;  // of the tile's columns x kDepth
  CUtensorMap y;  // of a warpgroup's rows x a piece
  const float* bias;
  int rows, in, out;
  Activation activation;
};

template <typename T, int kTile>
struct Config {
  using Element = T;
  static constexpr Tile kShape = kTiles[kTile];
  static constexpr int kColumns = kShape.columns;
  static constexpr int kStages = kShape.stages;
  static constexpr int kXBytes = kRows * kRowBytes;
  static constexpr int kStageBytes = kShape.StageBytes();
  static constexpr int kWarpgroupRows = kShape.WarpgroupRows();
  static constexpr int kRowPieces = kWarpgroupRows / 64;
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
        steps_((params.in + kDepth - 1) / kDepth),
        across_((params.out + C::kColumns - 1) / C::kColumns),
        tiles_((params.rows + kRows - 1) / kRows * across_) {
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
      PrefetchTensorMap(&params_.x);
      PrefetchTensorMap(&params_.w);
      PrefetchTensorMap(&params_.y);
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
  // Neighbouring blocks share rows of x; W stays in the cache.
  __device__ int FirstRow(int tile) const { return tile / across_ * kRows; }
  __device__ int FirstColumn(int tile) const {
    return tile % across_ * C::kColumns;
  }

  // Keeps the ring full. W does not wait for prior kernels.
  __device__ void Produce() {
    int ahead = min(steps_, C::kStages);  // stages that have W
    const int first_column = FirstColumn(blockIdx.x);
    for (int i = 0; i < ahead; ++i) LoadWeights(i, i, first_column);
    WaitForPriorKernels();
    int stage = 0;
    uint32_t parity = 1;
#pragma unroll 1
    for (int tile = blockIdx.x; tile < tiles_; tile += gridDim.x) {
      const int row = FirstRow(tile);
      const int column = FirstColumn(tile);
#pragma unroll 1
      for (int step = 0; step < steps_; ++step) {
        BarrierWait(&empty_[stage], parity);
        if (--ahead < 0) LoadWeights(stage, step, column);
        TensorCopy(stages_ + stage * C::kStageBytes, &params_.x, step * kDepth,
                   row, &full_[stage]);
        if (++stage == C::kStages) {
          stage = 0;
          parity ^= 1;
        }
      }
    }
  }

  __device__ void LoadWeights(int stage, int step, int column) const {
    ArriveExpect(&full_[stage], C::kStageBytes);
    TensorCopy(stages_ + stage * C::kStageBytes + C::kXBytes, &params_.w,
               step * kDepth, column, &full_[stage]);
  }

  __device__ void Consume() {
    constexpr bool kTogether = C::kShape.together;
    const int warpgroup = Warpgroup();
    if (!kTogether && warpgroup == 1) HandOver();
#pragma unroll 1
    for (int turn = kTogether ? 0 : warpgroup;;
         turn += kTogether ? 1 : kConsumers) {
      const int tile = blockIdx.x + turn * gridDim.x;
      if (tile >= tiles_) break;
      const int column = FirstColumn(tile);
      const float2 bias = LoadBias(column);
      if (!kTogether) {
        NamedBarrierWait(kTurnBarrier + warpgroup, kConsumers * kWarpgroup);
      }
      Multiply(turn * steps_, tile + gridDim.x < tiles_);
      KeepBias(bias);
      Finish(FirstRow(tile) + (kTogether ? warpgroup * C::kWarpgroupRows : 0),
             column);
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
  __device__ void Multiply(int done, bool more) {
    int stage = done % C::kStages;
    uint32_t parity = done / C::kStages & 1;
    int read_stage = 0;
    const int first_row =
        C::kShape.together ? Warpgroup() * C::kWarpgroupRows : 0;
#pragma unroll 1
    for (int step = 0; step < steps_; ++step) {
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
      if (!C::kShape.together && more && step + 1 == steps_) HandOver();
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
  __device__ float2 LoadBias(int column) const {
    column += threadIdx.x % kWarpgroup * 2;
    if (params_.bias == nullptr || column >= params_.out) return {0, 0};
    return __ldg(reinterpret_cast<const float2*>(params_.bias + column));
  }
  __device__ void KeepBias(float2 bias) const {
    const int column = threadIdx.x % kWarpgroup * 2;
    if (column < C::kColumns) *reinterpret_cast<float2*>(bias_ + column) = bias;
  }

  __device__ void Finish(int row, int column) {
    switch (params_.activation) {
      case Activation::kNone:
        return FinishAs<Activation::kNone>(row, column);
      case Activation::kGelu:
        return FinishAs<Activation::kGelu>(row, column);
      case Activation::kGeluTanh:
        return FinishAs<Activation::kGeluTanh>(row, column);
      case Activation::kRelu:
        return FinishAs<Activation::kRelu>(row, column);
      case Activation::kSilu:
        return FinishAs<Activation::kSilu>(row, column);
    }
  }

  // y = act(sum + bias), rounded, from (row, column) on.
  template <Activation kActivation>
  __device__ void FinishAs(int row, int column) {
    const bool stores = threadIdx.x % kWarpgroup == 0;
    const int barrier = kOwnBarrier + Warpgroup();
#pragma unroll
    for (int p = 0; p < C::kColumns / C::kPiece; ++p) {
      const int first_column = column + p * C::kPiece;
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
        TensorStore(&params_.y, first_column, row, piece);
        BulkCommit();
      }
    }
  }

  template <Activation kActivation>
  __device__ void FinishPiece(int p, unsigned char* piece) {
    constexpr int kPieceRowBytes = C::kPiece * kElementBytes;
    const int row = threadIdx.x % kWarpgroup / 32 * 16 + Lane() % 16;
    const int permutation = C::kPiece == 64 ? row & 7 : row >> 1 & 3;
    unsigned char* const to = piece + row * kPieceRowBytes;
    const float* const bias = bias_ + p * C::kPiece + Lane() % 4 * 2;
    float2 low[2], high[2];  // of this and the next columns
    LoadPair(bias, low[0], high[0]);
#pragma unroll
    for (int j = 0; j < C::kPiece / 16; ++j) {
      const int chunk = (2 * j + Lane() / 16) ^ permutation;
      if (j + 1 < C::kPiece / 16) {
        LoadPair(bias + (j + 1) * 16, low[(j + 1) % 2], high[(j + 1) % 2]);
      }
#pragma unroll
      for (int m = 0; m < C::kRowPieces; ++m) {
        const float* s = &sum_[m][(p * C::kPiece + j * 16) / 2];
        StoreMatrix4(to + m * 64 * kPieceRowBytes + chunk * 16,
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
  const int steps_;   // of k
  const int across_;  // tiles
  const int tiles_;
  unsigned char* stages_;  // x [kRows, kDepth], W [kColumns, kDepth] each
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

cudaError_t MakeMaps(const GemmParams& p, const Tile& tile,
                     KernelParams* params) {
  cudaError_t error = MakeTensorMap({p.type, p.x, p.rows, p.in, p.x_stride},
                                    {kRows, kDepth}, &params->x);
  if (error != cudaSuccess) return error;
  error = MakeTensorMap({p.type, p.w, p.out, p.in, p.in},
                        {tile.columns, kDepth}, &params->w);
  if (error != cudaSuccess) return error;
  return MakeTensorMap(
      {p.type, p.y, p.rows, p.out, p.y_stride},
      {tile.WarpgroupRows(), tile.Piece(),
       tile.Piece() == 64 ? Swizzle::k128Bytes : Swizzle::k64Bytes},
      &params->y);
}

int64_t Tiles(const Tile& tile, const GemmParams& p) {
  return int64_t{DivideUp(p.rows, kRows)} * DivideUp(p.out, tile.columns);
}

// Of a multiprocessor. A model: copies, 40 bytes a cycle, take longer than
// products; warpgroups apart finish one tile beside the products of the next.
// It is within 1 % of the fastest tile in the mean of 76 shapes of models.
int64_t Cycles(const Tile& tile, const GemmParams& p,
               const DeviceLimits& limits) {
  const int multiprocessors = std::max(1, limits.multiprocessors);
  const int64_t turns =
      (Tiles(tile, p) + multiprocessors - 1) / multiprocessors;
  const int64_t copies = DivideUp(p.in, kDepth) * tile.StageBytes() / 40;
  if (tile.together) return turns * (copies + tile.finish);
  return turns * std::max(copies, (copies + tile.finish) / 2) + tile.finish;
}

int FastestTile(const GemmParams& params, const DeviceLimits& limits) {
  int fastest = 0;
  for (int i = 1; i < kGemmTiles; ++i) {
    if (Cycles(kTiles[i], params, limits) <
        Cycles(kTiles[fastest], params, limits)) {
      fastest = i;
    }
  }
  return fastest;
}

}  // namespace

bool GemmTakes(const GemmParams& params, const DeviceLimits& limits) {
  return params.rows >= kLeastRows &&
         int64_t{params.rows} * params.out >= kLeastResults &&
         params.gate == nullptr && params.sums == nullptr &&
         limits.shared_bytes >= kMostSharedBytes;
}

cudaError_t Gemm(const GemmParams& params, const DeviceLimits& limits,
                 cudaStream_t stream) {
  return hopper::GemmWithTile(FastestTile(params, limits), params, limits,
                              stream);
}

cudaError_t GemmWithTile(int tile, const GemmParams& params,
                         const DeviceLimits& limits, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  KernelParams kernel_params;
  const cudaError_t error = MakeMaps(params, kTiles[tile], &kernel_params);
  if (error != cudaSuccess) return error;
  kernel_params.bias = params.bias;
  kernel_params.rows = params.rows;
  kernel_params.in = params.in;
  kernel_params.out = params.out;
  kernel_params.activation = params.activation;
  const int tiles =
      DivideUp(params.rows, kRows) * DivideUp(params.out, kTiles[tile].columns);
  const int blocks = std::min(tiles, std::max(1, limits.multiprocessors));
  // Of any number of rows: a block has a multiprocessor to itself, so that
  // those that start early crowd none.
  return LaunchDependent(params.type == Type::kBF16
                             ? Find<__nv_bfloat16>(tile, kAllTiles)
                             : Find<__half>(tile, kAllTiles),
                         dim3(blocks), kThreads, kTiles[tile].SharedBytes(),
                         stream, kernel_params);
}

}  // namespace svdserve::cuda::hopper
