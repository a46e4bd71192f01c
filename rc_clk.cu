#include <cstdio>
// t = y·Nᵀ; x = LayerNorm(x + t·Wᵀ + b); z = x·Fᵀ of few rows by one kernel. A
// cluster of eight blocks has some rows; each block has an eighth of the
// columns of every product, whose weights come to its shared memory before the
// kernels before this one have ended. What a product gives goes to all blocks
// of the cluster, since the next one needs whole rows.
//
// Rows lie in shared memory by tiles of eight columns, [rows, 8], so that what a
// warp has of a product, such a tile, is a piece of memory, and ldmatrix reads
// it without conflicts.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/hopper/instructions.cuh"
#include "kernels/cuda/hopper/row_chain.h"
#include "kernels/cuda/hopper/tensor_map.h"
#include "kernels/cuda/launch.cuh"

namespace svdserve::cuda::hopper {
namespace {

constexpr int kBlocks = 8;  // of a cluster; also slices of a row's sums
constexpr int kTile = 8;    // columns of a warp's product
constexpr int kChunkBytes = 16;
constexpr int kPanel = 64;  // of k: what a copy of weights has
constexpr int kPanelRowBytes = kPanel * kElementBytes;
constexpr int kMostTiles = 3;  // of a warp at a time
constexpr int kSharers = 4;    // warps that share a product, if it has few tiles
constexpr int kSwizzledBytes = 1024;  // to which tiles of weights are aligned

constexpr int DivideUp(int a, int b) { return (a + b - 1) / b; }

// A product's weights, split into tiles of columns over the cluster.
struct Weights {
  int in = 0;
  int out = 0;

  __host__ __device__ int Panels() const { return (in + kPanel - 1) / kPanel; }
  // Of a block; the last ones may have fewer, and zeros in their place.
  __host__ __device__ int Tiles() const {
    return (out + kTile * kBlocks - 1) / (kTile * kBlocks);
  }
  __host__ __device__ int PanelBytes() const {
    return Tiles() * kTile * kPanelRowBytes;
  }
  __host__ __device__ int Bytes() const { return Panels() * PanelBytes(); }
};

enum Product { kNarrow, kExpand, kNext, kProducts };

// Where a block's shared memory has what: offsets in bytes.
struct Places {
  // Whole rows of the new x take the place of what nobody reads any more by
  // then: all from the start on but F.
  static constexpr int kNewX = 0;

  int weights[kProducts];
  int y, t;
  int values;    // [rows, kValuePitch of RowChainBlock] fp32
  int sent;      // a tile a warp
  int sums;      // [2][kBlocks, rows] fp32
  int barriers;  // of products, then of exchanges
  int bytes;
};

// What goes from block to block.
enum Exchange { kT, kMean, kSquares, kX, kExchanges };

struct KernelParams {
  CUtensorMap maps[kProducts];  // boxes of a block's columns x kPanel
  Weights weights[kProducts];   // `out` of 0: not this one
  Places places;
  const void* y;
  const float* bias;
  const float* gamma;
  const float* beta;
  float eps;
  int rows;
  void* x;
  void* z;
};

__device__ long long g_clocks[4][16];
// A thread's part of a block's work. Of a product a warp has some tiles of
// columns; of each a thread has two, in the rows Row(p, 0) and Row(p, 1) of each
// piece p.
template <typename T, int kHidden, int kRows>
class RowChainBlock {
  static constexpr int kPieces = kRows / 16;
  static constexpr int kWarpTiles = 2;  // of x
  static constexpr int kWarps = kHidden / kBlocks / kTile / kWarpTiles;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kColumns = kHidden / kBlocks;  // of the block
  static constexpr int kTileBytes = kRows * kChunkBytes;
  static constexpr int kRowBytes = kRows * kElementBytes;  // of a column
  static constexpr int kValuePitch = kColumns + 8;  // spreads the banks
  // Of what a thread sums up: as the kernels of whole rows do.
  static constexpr int kSummed = kColumns / kTile;
  static constexpr int kSumThreads = kRows * 4;

 public:
  __device__ explicit RowChainBlock(const KernelParams& params)
      : params_(params),
        places_(params.places),
        shared_(SwizzledSharedMemory()),
        weights_full_(At<uint64_t>(places_.barriers)),
        received_(weights_full_ + kProducts) {}

  static Places PlacesFor(const Weights (&w)[kProducts]) {
    int at = 0;
    const auto place = [&at](int bytes) {
      const int from = at;
      at += bytes;
      return from;
    };
    const bool narrows = w[kNarrow].out > 0;
    Places places = {};
    places.weights[kNarrow] = place(w[kNarrow].Bytes());
    places.weights[kExpand] = place(w[kExpand].Bytes());
    places.y = place(RowsBytes(narrows ? w[kNarrow].in : w[kExpand].in));
    at = DivideUp(std::max(at, RowsBytes(kHidden)), kSwizzledBytes) * kSwizzledBytes;
    places.weights[kNext] = place(w[kNext].Bytes());
    places.t = narrows ? place(RowsBytes(w[kExpand].in)) : places.y;
    places.values = place(kRows * kValuePitch * sizeof(float));
    places.sent = place(kWarps * kTileBytes);
    places.sums = place(2 * kBlocks * kRows * sizeof(float));
    places.barriers = place((int{kProducts} + kExchanges) * sizeof(uint64_t));
    places.bytes = at;
    return places;
  }

  __device__ void Run() {
    Tick(0);
    if (threadIdx.x == 0) InitBarriers();
    ClearTails();
    __syncthreads();
    CopyWeights();
    LoadVectors();
    ClusterSync(); Tick(1);
    WaitForPriorKernels();
    LetNextKernelStart(); Tick(2);
    CopyRows();
    LoadResidual();
    CopyWait<0>();
    __syncthreads(); Tick(3);
    if (params_.weights[kNarrow].out > 0) Narrow();
    Tick(4);
    Expand(); Tick(5);
    Standardize(); Tick(8);
    SendAndStoreX(); Tick(9);
    if (params_.weights[kNext].out > 0) Next();
    Tick(11);
    BarrierWaitInCluster(&received_[kX], 0);
  }

 private:
  __device__ void Tick(int i) const { if (threadIdx.x == 0 && blockIdx.x == 0) { int slot = params_.weights[kNarrow].out > 0 ? 0 : params_.weights[kNext].out > 0 ? 1 : 2; g_clocks[slot][i] = clock64(); } }
  template <typename V>
  __device__ V* At(int place) const {
    return reinterpret_cast<V*>(shared_ + place);
  }
  __device__ static int Warp() { return threadIdx.x / 32; }
  __device__ static int Lane() { return threadIdx.x % 32; }
  __device__ static int FirstRow() { return blockIdx.x / kBlocks * kRows; }
  // Of rows of so many columns, in whole panels.
  __host__ __device__ static constexpr int RowsBytes(int columns) {
    return (columns + kPanel - 1) / kPanel * (kPanel / kTile) * kTileBytes;
  }
  // In the cluster's rows.
  __device__ static int Row(int piece, int half) {
    return piece * 16 + half * 8 + Lane() / 4;
  }
  // Of x and what is added to it, in the block: the first of the thread's two
  // in the warp's n-th tile.
  __device__ static int BlockColumn(int n) {
    return (Warp() * kWarpTiles + n) * kTile + Lane() % 4 * 2;
  }
  __device__ static int Column(int n) {
    return RankInCluster() * kColumns + BlockColumn(n);
  }
  // One by each of the first threads, with the bytes that it waits for.
  __device__ void InitBarriers() const {
    const int i = threadIdx.x;
    if (i < kProducts) {
      BarrierInit(&weights_full_[i], 1);
      BarrierInitFence();
      if (params_.weights[i].out > 0) {
        ArriveExpect(&weights_full_[i], params_.weights[i].Bytes());
      }
    } else if (i < kProducts + kExchanges) {
      const int exchange = i - kProducts;
      BarrierInit(&received_[exchange], 1);
      BarrierInitFence();
      ArriveExpect(&received_[exchange],
                   exchange == kT   ? params_.weights[kNarrow].out * kRowBytes
                   : exchange == kX ? kHidden * kRowBytes
                                    : kBlocks * kRows * sizeof(float));
    }
  }
  // Zeros behind the columns of t, which products read up to a whole panel.
  __device__ void ClearTails() const {
    const int in = params_.weights[kExpand].in;
    const int first = in / kTile * kTileBytes;
    const int end = RowsBytes(in);
    for (int at = first + threadIdx.x * kChunkBytes; at < end;
         at += kThreads * kChunkBytes) {
      *At<uint4>(places_.t + at) = uint4{};
    }
  }
  // Of each product by a warp.
  __device__ void CopyWeights() const {
    const int product = Warp();
    if (product >= kProducts || !ElectOne()) return;
    const Weights w = params_.weights[product];
    const int first_row = RankInCluster() * w.Tiles() * kTile;
    for (int panel = 0; panel < w.Panels(); ++panel) {
      TensorCopy(At<void>(places_.weights[product] + panel * w.PanelBytes()),
                 &params_.maps[product], panel * kPanel, first_row,
                 &weights_full_[product]);
    }
  }
  __device__ void LoadVectors() {
    const auto at = [](const float* vector, int n) -> float2 {
      if (vector == nullptr) return {0, 0};
      return __ldg(reinterpret_cast<const float2*>(vector + Column(n)));
    };
#pragma unroll
    for (int n = 0; n < kWarpTiles; ++n) {
      bias_[n] = at(params_.bias, n);
      gamma_[n] = at(params_.gamma, n);
      beta_[n] = at(params_.beta, n);
    }
  }
  // y; two neighbouring chunks of a row by neighbouring threads.
  __device__ void CopyRows() const {
    const Weights& narrow = params_.weights[kNarrow];
    const int columns = narrow.out > 0 ? narrow.in : params_.weights[kExpand].in;
    const int pairs = RowsBytes(columns) / kTileBytes / 2;
    const T* y = static_cast<const T*>(params_.y);
    for (int i = threadIdx.x; i < pairs * 2 * kRows; i += kThreads) {
      const int chunk = i / (2 * kRows) * 2 + i % 2;
      const int row = i / 2 % kRows;
      CopyAsync16(
          At<void>(places_.y + chunk * kTileBytes + row * kChunkBytes),
          y + int64_t{FirstRow() + row} * columns + chunk * kTile,
          FirstRow() + row < params_.rows && chunk * kTile < columns);
    }
    CopyCommit();
  }
  __device__ void LoadResidual() {
    const T* x = static_cast<const T*>(params_.x);
    ForEach([&](int n, int p, int half) {
      const int row = FirstRow() + Row(p, half);
      x_[n][p][half] = row < params_.rows
                           ? *reinterpret_cast<const uint32_t*>(
                                 x + int64_t{row} * kHidden + Column(n))
                           : 0;
    });
  }
  // What a thread has of x: two columns each.
  template <typename Visit>
  __device__ static void ForEach(const Visit& visit) {
#pragma unroll
    for (int n = 0; n < kWarpTiles; ++n) {
#pragma unroll
      for (int p = 0; p < kPieces; ++p) {
#pragma unroll
        for (int half = 0; half < 2; ++half) visit(n, p, half);
      }
    }
  }

  // ---- Products ----

  // sum += rows·Wᵀ of kTiles tiles of the block's columns from `tile` on; past
  // the last one, that one again.
  template <int kTiles>
  __device__ void Multiply(Product product, int rows, int tile,
                           float (&sum)[kTiles][kPieces][4]) const {
    const Weights weights = params_.weights[product];
    const int panels = weights.Panels();
    const int panel_bytes = weights.PanelBytes();
    const unsigned char* w[kTiles];
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const int row = min(tile + n, weights.Tiles() - 1) * kTile + Lane() % 8;
      w[n] = At<unsigned char>(places_.weights[product]) + row * kPanelRowBytes;
    }
    const int chunk = (Lane() / 8 ^ Lane() % 8) * kChunkBytes;
    const unsigned char* const x = At<unsigned char>(rows) +
                                   Lane() / 16 * kTileBytes +
                                   Lane() % 16 * kChunkBytes;
    // What the products of a panel take.
    struct Fragments {
      uint32_t w[kTiles][2][4];
      uint32_t rows[kPieces][4][4];
    };
    const auto load = [&](int panel, Fragments& f) {
      if (panel >= panels) return;
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const unsigned char* const from = w[n] + panel * panel_bytes;
        LoadMatrix4(f.w[n][0], from + chunk);
        LoadMatrix4(f.w[n][1], from + (chunk ^ 4 * kChunkBytes));
      }
#pragma unroll
      for (int p = 0; p < kPieces; ++p) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          LoadMatrix4(f.rows[p][k], x + (panel * 8 + k * 2) * kTileBytes +
                                        p * 16 * kChunkBytes);
        }
      }
    };
    const auto add = [&](const Fragments& f) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
#pragma unroll
          for (int p = 0; p < kPieces; ++p) {
            Mma<T>(sum[n][p], f.rows[p][k], f.w[n][k / 2][k % 2 * 2],
                   f.w[n][k / 2][k % 2 * 2 + 1]);
          }
        }
      }
    };
    BarrierWait(&weights_full_[product], 0);
    Fragments even, odd;
    load(0, even);
#pragma unroll 1
    for (int panel = 0; panel < panels; panel += 2) {
      load(panel + 1, odd);
      add(even);
      load(panel + 2, even);
      if (panel + 1 < panels) add(odd);
    }
  }

  // The tiles of a product that has any number of them: some warps have up to
  // kMostTiles each. `take` gets a tile, in the cluster, and its sums.
  template <typename Take>
  __device__ void MultiplyTiles(Product product, int rows,
                                const Take& take) const {
    const int tiles = params_.weights[product].Tiles();
    switch ((tiles + kSharers - 1) / kSharers) {
      case 1:
        return MultiplyTiles<1>(product, rows, take);
      case 2:
        return MultiplyTiles<2>(product, rows, take);
      default:
        return MultiplyTiles<kMostTiles>(product, rows, take);
    }
  }
  template <int kTiles, typename Take>
  __device__ void MultiplyTiles(Product product, int rows,
                                const Take& take) const {
    const Weights weights = params_.weights[product];
    const int tiles = weights.Tiles();
    for (int i = Warp() * kTiles; i < tiles; i += kWarps * kTiles) {
      float sum[kTiles][kPieces][4] = {};
      Multiply<kTiles>(product, rows, i, sum);
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const int tile = RankInCluster() * tiles + i + n;
        if (i + n < tiles && tile * kTile < weights.out) take(tile, sum[n]);
      }
    }
  }

  // A tile of the rows, rounded, to its place in all blocks of the cluster.
  __device__ void SendTile(const uint32_t (&values)[kPieces][2], int to,
                           Exchange exchange) const {
    unsigned char* const sent = At<unsigned char>(places_.sent) +
                                Warp() * kTileBytes;
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        *reinterpret_cast<uint32_t*>(sent + Row(p, half) * kChunkBytes +
                                     Lane() % 4 * 4) = values[p][half];
      }
    }
    __syncwarp();
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      const int row = p * 16 + Lane() % 16;
      const uint4 chunk =
          *reinterpret_cast<const uint4*>(sent + row * kChunkBytes);
#pragma unroll
      for (int i = 0; i < kBlocks / 2; ++i) {
        const int rank = Lane() / 16 * (kBlocks / 2) + i;
        SendAsync(AddressInCluster(At<void>(to + row * kChunkBytes), rank),
                  chunk, AddressInCluster(&received_[exchange], rank));
      }
    }
    __syncwarp();
  }
  __device__ static void Round(const float (&sum)[kPieces][4],
                               uint32_t (&rounded)[kPieces][2]) {
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      rounded[p][0] = Pack<T>(sum[p][0], sum[p][1]);
      rounded[p][1] = Pack<T>(sum[p][2], sum[p][3]);
    }
  }

  // t = y·Nᵀ
  __device__ void Narrow() const {
    MultiplyTiles(kNarrow, places_.y,
                  [&](int tile, const float (&sum)[kPieces][4]) {
                    uint32_t rounded[kPieces][2];
                    Round(sum, rounded);
                    SendTile(rounded, places_.t + tile * kTileBytes, kT);
                  });
    BarrierWaitInCluster(&received_[kT], 0);
  }

  // x + t·Wᵀ + b, to the registers and to those who sum it up.
  __device__ void Expand() {
    Multiply<kWarpTiles>(kExpand, places_.t, Warp() * kWarpTiles, sum_);
    float* const values = At<float>(places_.values);
    ForEach([&](int n, int p, int half) {
      const float2 x = Unpack<T>(x_[n][p][half]);
      float* const sums = &sum_[n][p][half * 2];
      sums[0] = sums[0] + bias_[n].x + x.x;
      sums[1] = sums[1] + bias_[n].y + x.y;
      *reinterpret_cast<float2*>(values + Row(p, half) * kValuePitch +
                                 BlockColumn(n)) = {sums[0], sums[1]};
    });
    __syncthreads();
  }

  // ---- LayerNorm ----

  __device__ float* Sums(int which) const {
    return At<float>(places_.sums) + which * kBlocks * kRows;
  }
  // A row's part in this block, from the threads of a row, to all blocks.
  __device__ void SendSum(float sum, int which) const {
    sum += ShuffleXor(sum, 1);
    sum += ShuffleXor(sum, 2);
    float* const to =
        Sums(which) + RankInCluster() * kRows + threadIdx.x / 4;
    uint64_t* const barrier = &received_[kMean + which];
#pragma unroll
    for (int i = 0; i < kBlocks / 4; ++i) {
      const int rank = Lane() % 4 + i * 4;
      SendAsync(AddressInCluster(to, rank), sum,
                AddressInCluster(barrier, rank));
    }
  }
  // Of a whole row: its slices in order.
  __device__ float Total(int which, int row) const {
    float total = 0;
#pragma unroll
    for (int s = 0; s < kBlocks; ++s) total += Sums(which)[s * kRows + row];
    return total;
  }

  // Leaves the new x in sum_.
  __device__ void Standardize() {
    float2 summed[kSummed];
    const bool sums_up = threadIdx.x < kSumThreads;
    if (sums_up) {
      const float* const values = At<float>(places_.values) +
                                  threadIdx.x / 4 * kValuePitch +
                                  Lane() % 4 * 2;
      float sum = 0;
#pragma unroll
      for (int n = 0; n < kSummed; ++n) {
        summed[n] = *reinterpret_cast<const float2*>(values + n * kTile);
      }
#pragma unroll
      for (int n = 0; n < kSummed; ++n) {
        sum += summed[n].x;
        sum += summed[n].y;
      }
      SendSum(sum, 0);
    }
    constexpr float kWidth = kHidden;
    BarrierWaitInCluster(&received_[kMean], 0); Tick(6);
    if (sums_up) {
      const float mean = Total(0, threadIdx.x / 4) / kWidth;
      float squares = 0;
#pragma unroll
      for (int n = 0; n < kSummed; ++n) {
        const float2 deviation = {summed[n].x - mean, summed[n].y - mean};
        squares = fmaf(deviation.x, deviation.x, squares);
        squares = fmaf(deviation.y, deviation.y, squares);
      }
      SendSum(squares, 1);
    }
    float mean[kPieces][2];
    float scale[kPieces][2];
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        mean[p][half] = Total(0, Row(p, half)) / kWidth;
      }
    }
    BarrierWaitInCluster(&received_[kSquares], 0); Tick(7);
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        scale[p][half] =
            1 / sqrtf(Total(1, Row(p, half)) / kWidth + params_.eps);
      }
    }
    ForEach([&](int n, int p, int half) {
      float* const sums = &sum_[n][p][half * 2];
      const float2 gamma = gamma_[n];
      const float2 beta = beta_[n];
      sums[0] = fmaf((sums[0] - mean[p][half]) * scale[p][half], gamma.x, beta.x);
      sums[1] = fmaf((sums[1] - mean[p][half]) * scale[p][half], gamma.y, beta.y);
    });
  }

  // To the cluster, and to memory.
  __device__ void SendAndStoreX() const {
    uint32_t rounded[kWarpTiles][kPieces][2];
#pragma unroll
    for (int n = 0; n < kWarpTiles; ++n) {
      Round(sum_[n], rounded[n]);
      const int tile = (RankInCluster() * kWarps + Warp()) * kWarpTiles + n;
      SendTile(rounded[n], Places::kNewX + tile * kTileBytes, kX);
    }
    T* const x = static_cast<T*>(params_.x);
    ForEach([&](int n, int p, int half) {
      const int row = FirstRow() + Row(p, half);
      if (row >= params_.rows) return;
      *reinterpret_cast<uint32_t*>(x + int64_t{row} * kHidden + Column(n)) =
          rounded[n][p][half];
    });
  }

  // z = x·Fᵀ
  __device__ void Next() const {
    BarrierWaitInCluster(&received_[kX], 0); Tick(10);
    const int out = params_.weights[kNext].out;
    T* const z = static_cast<T*>(params_.z);
    MultiplyTiles(
        kNext, Places::kNewX, [&](int tile, const float (&sum)[kPieces][4]) {
          uint32_t rounded[kPieces][2];
          Round(sum, rounded);
#pragma unroll
          for (int p = 0; p < kPieces; ++p) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              const int row = FirstRow() + Row(p, half);
              if (row >= params_.rows) continue;
              *reinterpret_cast<uint32_t*>(z + int64_t{row} * out +
                                           tile * kTile + Lane() % 4 * 2) =
                  rounded[p][half];
            }
          }
        });
  }

  const KernelParams& params_;
  const Places& places_;
  unsigned char* const shared_;
  uint64_t* const weights_full_;  // [kProducts]
  uint64_t* const received_;     // [kExchanges]
  float2 bias_[kWarpTiles], gamma_[kWarpTiles], beta_[kWarpTiles];
  uint32_t x_[kWarpTiles][kPieces][2];
  float sum_[kWarpTiles][kPieces][4] = {};
};

template <typename T, int kHidden, int kRows>
__global__ void __launch_bounds__(kHidden / 4, 1)
    RowChainKernel(const __grid_constant__ KernelParams params) {
  RowChainBlock<T, kHidden, kRows>(params).Run();
}

// ---- On the host ----

void SetWeights(const RowChainParams& p, Weights (&weights)[kProducts]) {
  if (p.narrow != nullptr) weights[kNarrow] = {p.narrow_in, p.in};
  weights[kExpand] = {p.in, p.hidden};
  if (p.next != nullptr) weights[kNext] = {p.hidden, p.out};
}

template <int kHidden, int kRows>
bool Fits(const RowChainParams& p, const DeviceLimits& limits) {
  Weights weights[kProducts];
  SetWeights(p, weights);
  for (const Weights& w : weights) {
    if (w.Tiles() * kTile > 256) return false;  // rows of a copy
  }
  return RowChainBlock<__half, kHidden, kRows>::PlacesFor(weights).bytes <=
         limits.shared_bytes;
}

template <typename T, int kHidden, int kRows>
cudaError_t LaunchAs(const RowChainParams& p, cudaStream_t stream) {
  KernelParams params = {};
  SetWeights(p, params.weights);
  const void* const matrices[kProducts] = {p.narrow, p.w, p.next};
  for (int i = 0; i < kProducts; ++i) {
    const Weights& w = params.weights[i];
    if (w.out == 0) continue;
    const cudaError_t error =
        MakeTensorMap({p.type, matrices[i], w.out, w.in, w.in},
                      {w.Tiles() * kTile, kPanel}, &params.maps[i]);
    if (error != cudaSuccess) return error;
  }
  params.places = RowChainBlock<T, kHidden, kRows>::PlacesFor(params.weights);
  params.y = p.y;
  params.bias = p.bias;
  params.gamma = p.gamma;
  params.beta = p.beta;
  params.eps = p.eps;
  params.rows = p.rows;
  params.x = p.x;
  params.z = p.z;
  return LaunchDependent(RowChainKernel<T, kHidden, kRows>,
                         dim3(DivideUp(p.rows, kRows) * kBlocks), kHidden / 4,
                         params.places.bytes, stream, params, kBlocks);
}

template <int kHidden, int kRows>
cudaError_t LaunchType(const RowChainParams& p, cudaStream_t stream) {
  return p.type == Type::kF16 ? LaunchAs<__half, kHidden, kRows>(p, stream)
                              : LaunchAs<__nv_bfloat16, kHidden, kRows>(p, stream);
}

}  // namespace

bool RowChainHas(const RowChainParams& params, const DeviceLimits& limits) {
  switch (params.hidden) {
    case 384:
      return Fits<384, 16>(params, limits);
    case 768:
      return Fits<768, 16>(params, limits);
    case 1024:
      return Fits<1024, 16>(params, limits);
    default:
      return false;
  }
}

void PrintClocks() { long long c[4][16]; cudaMemcpyFromSymbol(c, g_clocks, sizeof(c)); for (int s = 0; s < 3; ++s) { printf("\n  clocks slot %d:", s); for (int i = 1; i < 12; ++i) printf(" %lld", c[s][i] - c[s][i - 1]); } printf("\n"); }
cudaError_t RowChain(const RowChainParams& params, const DeviceLimits& limits,
                     cudaStream_t stream) {
  if (!RowChainHas(params, limits)) return cudaErrorNotSupported;
  if (params.rows == 0) return cudaSuccess;
  switch (params.hidden) {
    case 384:
      return LaunchType<384, 16>(params, stream);
    case 768:
      return LaunchType<768, 16>(params, stream);
    default:
      return LaunchType<1024, 16>(params, stream);
  }
}

}  // namespace svdserve::cuda::hopper
