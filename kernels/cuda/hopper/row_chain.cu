// t = y·Nᵀ; x = LayerNorm(x + t·Wᵀ + b); z = x·Fᵀ of few rows, by one kernel. A
// cluster of eight blocks has 16 rows; each block has an eighth of the columns
// of every product, whose weights come to its shared memory while the kernels
// before this one still run. The next product needs whole rows, so what a block
// has of t and of the new x goes to all blocks of the cluster.
//
// Rows lie in shared memory by tiles of eight columns, [16, 8], so that what a
// warp has of a product is one piece of memory, and ldmatrix reads it without
// conflicts. Products are mma.sync: with wgmma three quarters of the rows would
// be none.
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
constexpr int kRows = 16;   // of a cluster
constexpr int kTile = 8;    // columns
constexpr int kChunkBytes = kTile * kElementBytes;
// A chunk more, so that the chunks of a row lie in different banks.
constexpr int kTileBytes = (kRows + 1) * kChunkBytes;
constexpr int kPanel = 64;  // of k: what a copy of weights has
constexpr int kPanelTiles = kPanel / kTile;
constexpr int kPanelRowBytes = kPanel * kElementBytes;
constexpr int kSwizzledBytes = 1024;  // to which tiles of weights are aligned
constexpr int kMostTiles = 3;         // of a product that a warp has at a time

// A product's weights, [out, in]. A block has some tiles of columns of the
// result; the last blocks may have fewer, and zeros in their place.
struct Weights {
  int in = 0;
  int out = 0;

  __host__ __device__ int Panels() const { return (in + kPanel - 1) / kPanel; }
  __host__ __device__ int Tiles() const {
    return (out + kTile * kBlocks - 1) / (kTile * kBlocks);
  }
  __host__ __device__ int PanelBytes() const {
    return Tiles() * kTile * kPanelRowBytes;
  }
  __host__ __device__ int Bytes() const { return Panels() * PanelBytes(); }
  // Of rows that this is multiplied with, in whole panels.
  __host__ __device__ int RowsBytes() const {
    return Panels() * kPanelTiles * kTileBytes;
  }
};

enum Product { kNarrow, kExpand, kNext, kProducts };
// What goes from block to block.
enum Exchange { kT, kMean, kSquares, kX, kExchanges };

// Where a block's shared memory has what: offsets in bytes.
struct Places {
  // The new x takes the place of what nobody reads any more by then: N, W and y
  // lie there.
  static constexpr int kNewX = 0;

  int weights[kProducts];  // [panels][tiles * kTile, kPanel], swizzled
  int y, t;                // [tiles of columns][kRows, kTile]
  int values;              // [kRows, kValuePitch of RowChainBlock] fp32
  int sent;                // a tile a warp
  int sums;                // [2][kBlocks, kRows] fp32
  int barriers;            // of products, then of exchanges
  int bytes;
};

struct KernelParams {
  CUtensorMap maps[kProducts];  // boxes of a block's columns x kPanel
  Weights weights[kProducts];
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

// A thread's part of a block's work. Of a product a warp has some tiles of
// columns; of each a thread has two columns, in rows Row(0) and Row(1).
template <typename T, int kHidden>
class RowChainBlock {
  static constexpr int kColumns = kHidden / kBlocks;        // of the block
  static constexpr int kWarpTiles = kHidden > 512 ? 2 : 1;  // of x
  static constexpr int kWarps = kColumns / kTile / kWarpTiles;
  static constexpr int kValuePitch = kColumns + 8;  // spreads the banks
  static constexpr int kSumThreads = kRows * 4;     // four to a row

 public:
  static constexpr int kThreads = kWarps * 32;
  static_assert(kSumThreads <= kThreads && kWarps >= kProducts);

  static Places PlacesFor(const Weights (&w)[kProducts]) {
    int at = 0;
    const auto place = [&at](int bytes) {
      const int from = at;
      at += bytes;
      return from;
    };
    Places places = {};
    places.weights[kNarrow] = place(w[kNarrow].Bytes());
    places.weights[kExpand] = place(w[kExpand].Bytes());
    places.y = place(w[kNarrow].RowsBytes());
    at = std::max(at, Places::kNewX + w[kNext].RowsBytes());
    at = (at + kSwizzledBytes - 1) / kSwizzledBytes * kSwizzledBytes;
    places.weights[kNext] = place(w[kNext].Bytes());
    places.t = place(w[kExpand].RowsBytes());
    places.values = place(kRows * kValuePitch * sizeof(float));
    places.sent = place(kWarps * kTileBytes);
    places.sums = place(2 * kBlocks * kRows * sizeof(float));
    places.barriers = place((int{kProducts} + kExchanges) * sizeof(uint64_t));
    places.bytes = at;
    return places;
  }

  __device__ explicit RowChainBlock(const KernelParams& params)
      : params_(params),
        places_(params.places),
        shared_(SwizzledSharedMemory()),
        weights_full_(At<uint64_t>(places_.barriers)),
        received_(weights_full_ + kProducts) {}

  __device__ void Run() {
    InitBarriers();
    ClearTail();
    __syncthreads();
    ExpectExchanges();
    ClusterArrive();
    CopyWeights();
    __syncwarp();
    LoadVectors();
    LoadResidual();
    ClusterWait();
    WaitForPriorKernels();
    LetNextKernelStart();
    CopyRows();
    Narrow();
    Expand();
    Standardize();
    SendAndStoreX();
    Next();
    WaitForWhatIsUnderWay();
  }

 private:
  template <typename V>
  __device__ V* At(int place) const {
    return reinterpret_cast<V*>(shared_ + place);
  }
  __device__ static int Warp() { return threadIdx.x / 32; }
  __device__ static int Lane() { return threadIdx.x % 32; }
  __device__ static int FirstRow() { return blockIdx.x / kBlocks * kRows; }
  // In the cluster's rows.
  __device__ static int Row(int half) { return half * 8 + Lane() / 4; }
  __device__ bool IsRow(int half) const {
    return FirstRow() + Row(half) < params_.rows;
  }
  // Of the warp's n-th tile of x, in the block: the first of the thread's two.
  __device__ static int BlockColumn(int n) {
    return (Warp() * kWarpTiles + n) * kTile + Lane() % 4 * 2;
  }
  __device__ static int Column(int n) {
    return RankInCluster() * kColumns + BlockColumn(n);
  }
  // Where x has them.
  __device__ uint32_t* InX(int n, int half) const {
    return reinterpret_cast<uint32_t*>(
        static_cast<T*>(params_.x) + int64_t{FirstRow() + Row(half)} * kHidden +
        Column(n));
  }
  // What a thread has of x, two columns at a time.
  template <typename Visit>
  __device__ static void ForEach(const Visit& visit) {
#pragma unroll
    for (int n = 0; n < kWarpTiles; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) visit(n, half);
    }
  }

  // ---- Begin and end ----

  // One by each of the first threads.
  __device__ void InitBarriers() const {
    if (threadIdx.x >= int{kProducts} + kExchanges) return;
    BarrierInit(&weights_full_[threadIdx.x], 1);
    BarrierInitFence();
  }
  // The bytes that other blocks will send.
  __device__ void ExpectExchanges() const {
    constexpr int kColumnBytes = kRows * kElementBytes;
    const int exchange = threadIdx.x;
    if (exchange >= kExchanges) return;
    ArriveExpect(&received_[exchange],
                 exchange == kT   ? params_.weights[kNarrow].out * kColumnBytes
                 : exchange == kX ? kHidden * kColumnBytes
                                  : kBlocks * kRows * sizeof(float));
  }
  // Zeros behind the columns of t, which is multiplied in whole panels.
  __device__ void ClearTail() const {
    const Weights& w = params_.weights[kExpand];
    for (int at = w.in / kTile * kTileBytes + threadIdx.x * kChunkBytes;
         at < w.RowsBytes(); at += kThreads * kChunkBytes) {
      *At<uint4>(places_.t + at) = uint4{};
    }
  }
  // Of each product by a warp.
  __device__ void CopyWeights() const {
    const int product = Warp();
    if (product >= kProducts || !ElectOne()) return;
    const Weights w = params_.weights[product];
    const int first_row = RankInCluster() * w.Tiles() * kTile;
    ArriveExpect(&weights_full_[product], w.Bytes());
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
  __device__ void LoadResidual() {
    ForEach([&](int n, int half) {
      x_[n][half] = IsRow(half) ? *InX(n, half) : 0;
    });
  }
  // y, and zeros behind its columns and rows.
  __device__ void CopyRows() const {
    const Weights& w = params_.weights[kNarrow];
    const int chunks = w.Panels() * kPanelTiles;
#pragma unroll 1
    for (int row = Warp(); row < kRows; row += kWarps) {
      const bool is_row = FirstRow() + row < params_.rows;
      const T* const y =
          static_cast<const T*>(params_.y) + int64_t{FirstRow() + row} * w.in;
#pragma unroll 4
      for (int chunk = Lane(); chunk < chunks; chunk += 32) {
        CopyAsync16(
            At<void>(places_.y + chunk * kTileBytes + row * kChunkBytes),
            y + chunk * kTile, is_row && chunk * kTile < w.in);
      }
    }
    CopyCommit();
    CopyWait<0>();
    __syncthreads();
  }
  // A block whose memory may still be written to does not end.
  __device__ void WaitForWhatIsUnderWay() const {
    BarrierWaitInCluster(&received_[kX], 0);
    for (int i = 0; i < kProducts; ++i) BarrierWait(&weights_full_[i], 0);
  }

  // ---- Products ----

  // sum += rows·Wᵀ of kTiles tiles of the block's columns from `tile` on; past
  // the last one, that one again.
  template <int kTiles>
  __device__ void Multiply(Product product, int rows, int tile,
                           float (&sum)[kTiles][4]) const {
    const Weights weights = params_.weights[product];
    const int panels = weights.Panels();
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
    // Of a panel, by 16 and by 32 of k. What comes next takes the place of what
    // was just multiplied.
    uint32_t x_pieces[kPanel / 16][4];
    uint32_t w_pieces[kPanel / 32][kTiles][4];
    const auto load_x = [&](int panel, int k) {
      LoadMatrix4(x_pieces[k], x + (panel * kPanelTiles + k * 2) * kTileBytes);
    };
    const auto load_w = [&](int panel, int k) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        LoadMatrix4(w_pieces[k][n], w[n] + panel * weights.PanelBytes() +
                                        (chunk ^ k * 4 * kChunkBytes));
      }
    };
    BarrierWait(&weights_full_[product], 0);
#pragma unroll
    for (int k = 0; k < kPanel / 16; ++k) {
      if (k % 2 == 0) load_w(0, k / 2);
      load_x(0, k);
    }
#pragma unroll 1
    for (int panel = 1; panel <= panels; ++panel) {
      const int next = min(panel, panels - 1);
#pragma unroll
      for (int k = 0; k < kPanel / 16; ++k) {
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
          const uint32_t* const pair = &w_pieces[k / 2][n][k % 2 * 2];
          Mma<T>(sum[n], x_pieces[k], pair[0], pair[1]);
        }
        if (k % 2 == 1) load_w(next, k / 2);
        load_x(next, k);
      }
    }
  }

  // The block's tiles of a product, over the warps. `take` gets a tile, in the
  // cluster, and what the thread has of it, rounded, in two rows.
  template <typename Take>
  __device__ void MultiplyTiles(Product product, int rows,
                                const Take& take) const {
    switch ((params_.weights[product].Tiles() + kWarps - 1) / kWarps) {
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
      float sum[kTiles][4] = {};
      Multiply<kTiles>(product, rows, i, sum);
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const int tile = RankInCluster() * tiles + i + n;
        if (i + n < tiles && tile * kTile < weights.out) {
          take(tile, Rounded(sum[n]));
        }
      }
    }
  }

  struct Pairs {
    uint32_t of_row[2];
  };
  __device__ static Pairs Rounded(const float (&sum)[4]) {
    return {{Pack<T>(sum[0], sum[1]), Pack<T>(sum[2], sum[3])}};
  }

  // A warp's tile to its place in all blocks of the cluster.
  __device__ void SendTile(const Pairs& pairs, int to,
                           Exchange exchange) const {
    unsigned char* const sent =
        At<unsigned char>(places_.sent) + Warp() * kTileBytes;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      *reinterpret_cast<uint32_t*>(sent + Row(half) * kChunkBytes +
                                   Lane() % 4 * 4) = pairs.of_row[half];
    }
    __syncwarp();
    const int row = Lane() % kRows * kChunkBytes;
    const uint4 chunk = *reinterpret_cast<const uint4*>(sent + row);
#pragma unroll
    for (int i = 0; i < kBlocks / 2; ++i) {
      const int rank = Lane() / kRows * (kBlocks / 2) + i;
      SendAsync(AddressInCluster(At<void>(to + row), rank), chunk,
                AddressInCluster(&received_[exchange], rank));
    }
    __syncwarp();
  }

  // t = y·Nᵀ
  __device__ void Narrow() const {
    MultiplyTiles(kNarrow, places_.y, [&](int tile, const Pairs& pairs) {
      SendTile(pairs, places_.t + tile * kTileBytes, kT);
    });
    BarrierWaitInCluster(&received_[kT], 0);
  }

  // x + t·Wᵀ + b, to the registers and to those who sum it up.
  __device__ void Expand() {
    Multiply<kWarpTiles>(kExpand, places_.t, Warp() * kWarpTiles, sum_);
    ForEach([&](int n, int half) {
      const float2 x = Unpack<T>(x_[n][half]);
      float* const sums = &sum_[n][half * 2];
      sums[0] = sums[0] + bias_[n].x + x.x;
      sums[1] = sums[1] + bias_[n].y + x.y;
      *reinterpret_cast<float2*>(At<float>(places_.values) +
                                 Row(half) * kValuePitch +
                                 BlockColumn(n)) = {sums[0], sums[1]};
    });
    __syncthreads();
  }

  // z = x·Fᵀ
  __device__ void Next() const {
    BarrierWaitInCluster(&received_[kX], 0);
    T* const z = static_cast<T*>(params_.z) +
                 int64_t{FirstRow()} * params_.weights[kNext].out;
    MultiplyTiles(kNext, Places::kNewX, [&](int tile, const Pairs& pairs) {
      const int column = tile * kTile + Lane() % 4 * 2;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (!IsRow(half)) continue;
        *reinterpret_cast<uint32_t*>(
            z + Row(half) * params_.weights[kNext].out + column) =
            pairs.of_row[half];
      }
    });
  }

  // ---- LayerNorm ----

  // Sums have the order of the kernels that own whole rows: a thread's columns,
  // four lanes, then eight slices.
  __device__ float* Sums(int which) const {
    return At<float>(places_.sums) + which * kBlocks * kRows;
  }
  // A row's part in this block, from the four threads of the row, to all
  // blocks. `which` of two.
  __device__ void SendSum(float sum, int which) const {
    sum += ShuffleXor(sum, 1);
    sum += ShuffleXor(sum, 2);
    float* const to = Sums(which) + RankInCluster() * kRows + threadIdx.x / 4;
    uint64_t* const barrier = &received_[kMean + which];
#pragma unroll
    for (int i = 0; i < kBlocks / 4; ++i) {
      const int rank = Lane() % 4 + i * 4;
      SendAsync(AddressInCluster(to, rank), sum,
                AddressInCluster(barrier, rank));
    }
  }
  // Of a whole row, over the width.
  __device__ float Average(int which, int row) const {
    float total = 0;
#pragma unroll
    for (int s = 0; s < kBlocks; ++s) total += Sums(which)[s * kRows + row];
    constexpr float kWidth = kHidden;
    return total / kWidth;
  }
  // From lanes that have row Lane() % 2 of two.
  __device__ static void ShareRows(float value, float (&rows)[2]) {
    const float other = ShuffleXor(value, 1);
    rows[0] = Lane() % 2 == 0 ? value : other;
    rows[1] = Lane() % 2 == 0 ? other : value;
  }

  // Leaves the new x in sum_.
  __device__ void Standardize() {
    constexpr int kSummed = kColumns / kTile;
    float2 summed[kSummed];
    const bool sums_up = threadIdx.x < kSumThreads;
    if (sums_up) {
      const float* const values = At<float>(places_.values) +
                                  threadIdx.x / 4 * kValuePitch +
                                  Lane() % 4 * 2;
#pragma unroll
      for (int n = 0; n < kSummed; ++n) {
        summed[n] = *reinterpret_cast<const float2*>(values + n * kTile);
      }
      float sum = 0;
#pragma unroll
      for (int n = 0; n < kSummed; ++n) {
        sum += summed[n].x;
        sum += summed[n].y;
      }
      SendSum(sum, 0);
    }
    BarrierWaitInCluster(&received_[kMean], 0);
    if (sums_up) {
      const float mean = Average(0, threadIdx.x / 4);
      float squares = 0;
#pragma unroll
      for (int n = 0; n < kSummed; ++n) {
        const float2 deviation = {summed[n].x - mean, summed[n].y - mean};
        squares = fmaf(deviation.x, deviation.x, squares);
        squares = fmaf(deviation.y, deviation.y, squares);
      }
      SendSum(squares, 1);
    }
    float mean[2];
    float scale[2];
    ShareRows(Average(0, Row(Lane() % 2)), mean);
    BarrierWaitInCluster(&received_[kSquares], 0);
    ShareRows(1 / sqrtf(Average(1, Row(Lane() % 2)) + params_.eps), scale);
    ForEach([&](int n, int half) {
      float* const sums = &sum_[n][half * 2];
      sums[0] =
          fmaf((sums[0] - mean[half]) * scale[half], gamma_[n].x, beta_[n].x);
      sums[1] =
          fmaf((sums[1] - mean[half]) * scale[half], gamma_[n].y, beta_[n].y);
    });
  }

  // To the cluster, and to memory.
  __device__ void SendAndStoreX() const {
    Pairs pairs[kWarpTiles];
#pragma unroll
    for (int n = 0; n < kWarpTiles; ++n) {
      pairs[n] = Rounded(sum_[n]);
      const int tile = (RankInCluster() * kWarps + Warp()) * kWarpTiles + n;
      SendTile(pairs[n], Places::kNewX + tile * kTileBytes, kX);
    }
    ForEach([&](int n, int half) {
      if (IsRow(half)) *InX(n, half) = pairs[n].of_row[half];
    });
  }

  const KernelParams& params_;
  const Places& places_;
  unsigned char* const shared_;
  uint64_t* const weights_full_;  // [kProducts]
  uint64_t* const received_;      // [kExchanges]
  float2 bias_[kWarpTiles], gamma_[kWarpTiles], beta_[kWarpTiles];
  uint32_t x_[kWarpTiles][2];
  float sum_[kWarpTiles][4] = {};
};

template <typename T, int kHidden>
__global__ void __launch_bounds__(RowChainBlock<T, kHidden>::kThreads, 1)
    RowChainKernel(const __grid_constant__ KernelParams params) {
  RowChainBlock<T, kHidden>(params).Run();
}

// ---- On the host ----

void SetWeights(const RowChainParams& p, Weights (&weights)[kProducts]) {
  weights[kNarrow] = {p.in, p.rank};
  weights[kExpand] = {p.rank, p.hidden};
  weights[kNext] = {p.hidden, p.out};
}

template <int kHidden>
bool Fits(const RowChainParams& p, const DeviceLimits& limits) {
  constexpr int kCopiedRows = 256;  // at most
  Weights weights[kProducts];
  SetWeights(p, weights);
  for (const Weights& w : weights) {
    if (w.Tiles() * kTile > kCopiedRows) return false;
  }
  return RowChainBlock<__half, kHidden>::PlacesFor(weights).bytes <=
         limits.shared_bytes;
}

template <typename T, int kHidden>
cudaError_t LaunchAs(const RowChainParams& p, cudaStream_t stream) {
  using Block = RowChainBlock<T, kHidden>;
  KernelParams params = {};
  SetWeights(p, params.weights);
  const void* const matrices[kProducts] = {p.narrow, p.w, p.next};
  for (int i = 0; i < kProducts; ++i) {
    const Weights& w = params.weights[i];
    const cudaError_t error =
        MakeTensorMap({p.type, matrices[i], w.out, w.in, w.in},
                      {w.Tiles() * kTile, kPanel}, &params.maps[i]);
    if (error != cudaSuccess) return error;
  }
  params.places = Block::PlacesFor(params.weights);
  params.y = p.y;
  params.bias = p.bias;
  params.gamma = p.gamma;
  params.beta = p.beta;
  params.eps = p.eps;
  params.rows = p.rows;
  params.x = p.x;
  params.z = p.z;
  const int clusters = (p.rows + kRows - 1) / kRows;
  return LaunchDependent(RowChainKernel<T, kHidden>, dim3(clusters * kBlocks),
                         Block::kThreads, params.places.bytes, stream, params,
                         kBlocks);
}

template <int kHidden>
cudaError_t LaunchType(const RowChainParams& p, cudaStream_t stream) {
  return p.type == Type::kF16 ? LaunchAs<__half, kHidden>(p, stream)
                              : LaunchAs<__nv_bfloat16, kHidden>(p, stream);
}

}  // namespace

bool RowChainHas(const RowChainParams& params, const DeviceLimits& limits) {
  switch (params.hidden) {
    case 384:
      return Fits<384>(params, limits);
    case 768:
      return Fits<768>(params, limits);
    case 1024:
      return Fits<1024>(params, limits);
    default:
      return false;
  }
}

cudaError_t RowChain(const RowChainParams& params, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  switch (params.hidden) {
    case 384:
      return LaunchType<384>(params, stream);
    case 768:
      return LaunchType<768>(params, stream);
    default:
      return LaunchType<1024>(params, stream);
  }
}

}  // namespace svdserve::cuda::hopper
