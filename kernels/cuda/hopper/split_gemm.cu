// y = x·Wᵀ of few rows and long sums by wgmma. The blocks of a cluster share a
// tile of y; each sums a part of k. One warp fills a ring of stages by tensor
// copies, W before prior kernels have ended; a warpgroup multiplies from it.
//
// Then each block has some rows of the tile: it gets all blocks' sums of these
// through distributed shared memory, adds them in the order of k and stores.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>

#include "kernels/cuda/hopper/instructions.cuh"
#include "kernels/cuda/hopper/split_gemm.h"
#include "kernels/cuda/hopper/tensor_map.h"
#include "kernels/cuda/hopper/wgmma.cuh"
#include "kernels/cuda/launch.cuh"

namespace svdserve::cuda::hopper {
namespace {

constexpr int kWarpgroup = 128;
constexpr int kThreads = kWarpgroup + 32;  // and the warp that copies
constexpr int kRows = 64;                  // of a tile
constexpr int kOctetRows = 8;              // what rows are sent by
constexpr int kOctets = kRows / kOctetRows;
constexpr int kDepth = 64;  // of k, of a stage
constexpr int kRowBytes = kDepth * kElementBytes;
constexpr int kXBytes = kRows * kRowBytes;
constexpr int kLeastSharedBytes = 99 << 10;  // some stages

constexpr int DivideUp(int a, int b) { return (a + b - 1) / b; }

// A block's shared memory: stages, what it received, barriers.
struct Places {
  int columns;

  __host__ __device__ constexpr int StageBytes() const {
    return kXBytes + columns * kRowBytes;
  }
  // Sums of the block's rows by each block of the cluster.
  __host__ __device__ constexpr int ReceivedBytes() const {
    return kRows * columns * int{sizeof(float)};
  }
  constexpr int BytesWith(int stages) const {
    return stages * StageBytes() + ReceivedBytes() +
           (2 * stages + 1) * int{sizeof(uint64_t)};
  }
};

struct KernelParams {
  CUtensorMap x;  // boxes of x_rows x kDepth
  CUtensorMap w;  // of the tile's columns x kDepth
  void* y;
  int64_t y_stride;
  int rows, out;
  int x_rows;       // of a tile, that are copied
  int steps;        // of kDepth of k
  int block_steps;  // of them, that a block has at most
  int blocks;       // of a cluster
  int stages;
};

// A thread's part of a block's work.
template <typename T, int kColumns>
class SplitGemmBlock {
  static constexpr Places kPlaces = {kColumns};
  static constexpr int kStageBytes = kPlaces.StageBytes();
  static_assert(kStageBytes % 1024 == 0);
  // Of eight columns; those of an octet are in one piece of memory.
  static constexpr int kChunks = kColumns / 8;
  static constexpr int kChunkRowBytes = 8 * sizeof(float);
  static constexpr int kChunkBytes = kOctetRows * kChunkRowBytes;

 public:
  __device__ explicit SplitGemmBlock(const KernelParams& params)
      : params_(params),
        stages_(SwizzledSharedMemory()),
        received_(stages_ + params.stages * kStageBytes),
        full_(reinterpret_cast<uint64_t*>(received_ + kPlaces.ReceivedBytes())),
        empty_(full_ + params.stages),
        all_received_(empty_ + params.stages) {
    const int across = (params.out + kColumns - 1) / kColumns;
    const int tile = static_cast<int>(blockIdx.x) / params.blocks;
    first_row_ = tile / across * kRows;
    first_column_ = tile % across * kColumns;
    first_step_ = RankInCluster() * params.block_steps;
    // Where no part is left it is zeros, as all that lies behind the matrix.
    steps_ = max(1, min(params.steps - first_step_, params.block_steps));
  }

  __device__ void Run() {
    if (threadIdx.x == 0) InitBarriers();
    __syncthreads();
    ClusterArrive();
    if (threadIdx.x >= kWarpgroup) {
      if (ElectOne()) {
        Produce();
      } else {
        WaitForPriorKernels();
      }
      __syncwarp();
      ClusterWait();
    } else {
      WaitForPriorKernels();
      LetNextKernelStart();
      Multiply();
      ClusterWait();
      Send();
      AddAndStore();
    }
  }

 private:
  __device__ static int Lane() { return threadIdx.x % 32; }
  __device__ static int Warp() {
    return __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
  }
  __device__ unsigned char* Stage(int stage) const {
    return stages_ + stage * kStageBytes;
  }
  // Of the tile, that have rows.
  __device__ int Octets() const {
    return min(kOctets,
               (params_.rows - first_row_ + kOctetRows - 1) / kOctetRows);
  }
  __device__ int OctetsOfABlock() const { return kOctets / params_.blocks; }
  // Of the block's, that have rows.
  __device__ int OwnOctets() const {
    const int first = RankInCluster() * OctetsOfABlock();
    return max(0, min(Octets() - first, OctetsOfABlock()));
  }

  __device__ void InitBarriers() const {
    for (int i = 0; i < params_.stages; ++i) {
      BarrierInit(&full_[i], 1);
      BarrierInit(&empty_[i], kWarpgroup / 32);
    }
    BarrierInit(all_received_, 1);
    BarrierInitFence();
    ArriveExpect(all_received_,
                 params_.blocks * OwnOctets() * kChunks * kChunkBytes);
  }

  // Keeps the ring full. W does not wait for prior kernels.
  __device__ void Produce() const {
    PrefetchTensorMap(&params_.x);
    int ahead = min(steps_, params_.stages);  // stages that have W
    for (int i = 0; i < ahead; ++i) LoadWeights(i, i);
    WaitForPriorKernels();
    int stage = 0;
    uint32_t parity = 1;
#pragma unroll 1
    for (int step = 0; step < steps_; ++step) {
      BarrierWait(&empty_[stage], parity);
      if (--ahead < 0) LoadWeights(stage, step);
      TensorCopy(Stage(stage), &params_.x, (first_step_ + step) * kDepth,
                 first_row_, &full_[stage]);
      if (++stage == params_.stages) {
        stage = 0;
        parity ^= 1;
      }
    }
  }
  __device__ void LoadWeights(int stage, int step) const {
    ArriveExpect(&full_[stage], (params_.x_rows + kColumns) * kRowBytes);
    TensorCopy(Stage(stage) + kXBytes, &params_.w,
               (first_step_ + step) * kDepth, first_column_, &full_[stage]);
  }

  // sum = x·Wᵀ of the block's part of k. Of rows that are none there are sums
  // of what memory holds, which nobody gets.
  __device__ void Multiply() {
    int stage = 0;
    uint32_t parity = 0;
    int read_stage = 0;
#pragma unroll 1
    for (int step = 0; step < steps_; ++step) {
      BarrierWait(&full_[stage], parity);
      const unsigned char* const tile = Stage(stage);
      const uint64_t x = Descriptor128(tile);
      const uint64_t w = Descriptor128(tile + kXBytes);
      WgmmaFence();
#pragma unroll
      for (int k = 0; k < kDepth / 16; ++k) {
        Wgmma<T>(sum_, x + 2 * k, w + 2 * k, step + k > 0);
      }
      WgmmaCommit();
      WgmmaWait<1>();
      if (step > 0) Release(read_stage);
      read_stage = stage;
      if (++stage == params_.stages) {
        stage = 0;
        parity ^= 1;
      }
    }
    WgmmaWait<0>();
  }
  __device__ void Release(int stage) const {
    if (Lane() == 0) Arrive(&empty_[stage]);
  }

  // Each octet of rows to the block that has it. Two lanes have four
  // neighbouring columns of two rows: each takes one of these.
  __device__ void Send() const {
    const bool odd = Lane() % 2 != 0;
    const int octet = Warp() * 2 + Lane() % 2;
    const int octets = OctetsOfABlock();
    const int rank = octet / octets;
    const int place =
        (RankInCluster() * octets + octet % octets) * kChunks * kChunkBytes +
        Lane() / 4 * kChunkRowBytes + Lane() % 4 / 2 * 16;
    const uint32_t to = AddressInCluster(received_ + place, rank);
    const uint32_t barrier = AddressInCluster(all_received_, rank);
    const bool sends = octet < Octets();
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const float* const s = &sum_[i * 4];
      const float first = ShuffleXor(odd ? s[0] : s[2], 1);
      const float second = ShuffleXor(odd ? s[1] : s[3], 1);
      const uint4 sums = {__float_as_uint(odd ? first : s[0]),
                          __float_as_uint(odd ? second : s[1]),
                          __float_as_uint(odd ? s[2] : first),
                          __float_as_uint(odd ? s[3] : second)};
      if (sends) SendAsync(to + i * kChunkBytes, sums, barrier);
    }
  }

  // A thread has eight columns of a row at a time.
  __device__ void AddAndStore() const {
    const int pieces = OwnOctets() * kChunks * kOctetRows;
    if (pieces == 0) return;
    BarrierWaitInCluster(all_received_, 0);
    const int octets = OctetsOfABlock();
    const int part_bytes = octets * kChunks * kChunkBytes;
    const int first_row = first_row_ + RankInCluster() * octets * kOctetRows;
    for (int piece = threadIdx.x; piece < pieces; piece += kWarpgroup) {
      const int octet = piece / kOctetRows / kChunks;
      const int chunk = piece / kOctetRows % kChunks;
      const int row = first_row + octet * kOctetRows + piece % kOctetRows;
      const int column = first_column_ + chunk * 8;
      if (row >= params_.rows || column >= params_.out) continue;
      const unsigned char* part = received_ + piece / kOctetRows * kChunkBytes +
                                  piece % kOctetRows * kChunkRowBytes;
      float sum[8] = {};
#pragma unroll 2
      for (int i = 0; i < params_.blocks; ++i, part += part_bytes) {
        const float4 low = *reinterpret_cast<const float4*>(part);
        const float4 high = *reinterpret_cast<const float4*>(part + 16);
        sum[0] += low.x;
        sum[1] += low.y;
        sum[2] += low.z;
        sum[3] += low.w;
        sum[4] += high.x;
        sum[5] += high.y;
        sum[6] += high.z;
        sum[7] += high.w;
      }
      *reinterpret_cast<uint4*>(static_cast<T*>(params_.y) +
                                row * params_.y_stride + column) = {
          Pack<T>(sum[0], sum[1]), Pack<T>(sum[2], sum[3]),
          Pack<T>(sum[4], sum[5]), Pack<T>(sum[6], sum[7])};
    }
  }

  const KernelParams& params_;
  unsigned char* const stages_;    // x [kRows, kDepth], W [kColumns, kDepth]
  unsigned char* const received_;  // [blocks][octets][kChunks][8, 8] fp32
  uint64_t* const full_;           // of each stage
  uint64_t* const empty_;
  uint64_t* const all_received_;
  int first_row_, first_column_;
  int first_step_, steps_;
  float sum_[kColumns / 2];
};

template <typename T, int kColumns>
__global__ void __launch_bounds__(kThreads, 1)
    SplitGemmKernel(const __grid_constant__ KernelParams params) {
  SplitGemmBlock<T, kColumns>(params).Run();
}

// ---- On the host ----

using Kernel = void (*)(KernelParams);

template <typename T>
Kernel KernelOf(int columns) {
  switch (columns) {
    case 32:
      return SplitGemmKernel<T, 32>;
    case 64:
      return SplitGemmKernel<T, 64>;
    case 80:
      return SplitGemmKernel<T, 80>;
    default:
      return nullptr;
  }
}

constexpr int kLeastIn = 1024;  // shorter sums have little to gain

// 320 columns are 64 or 80 alike.
Split SplitOf(const GemmParams& p) {
  return {p.out % 64 != 0 && p.out % 80 == 0 ? 80 : 64, kSumParts};
}

}  // namespace

bool SplitGemmTakes(const GemmParams& params, const DeviceLimits& limits) {
  return params.in >= kLeastIn && params.bias == nullptr &&
         params.activation == Activation::kNone &&
         limits.shared_bytes >= kLeastSharedBytes;
}

cudaError_t SplitGemm(const GemmParams& params, const DeviceLimits& limits,
                      cudaStream_t stream) {
  return SplitGemmBy(SplitOf(params), params, limits, stream);
}

cudaError_t SplitGemmBy(const Split& split, const GemmParams& p,
                        const DeviceLimits& limits, cudaStream_t stream) {
  const Kernel kernel = p.type == Type::kBF16
                            ? KernelOf<__nv_bfloat16>(split.columns)
                            : KernelOf<__half>(split.columns);
  const bool has_blocks =
      std::find(std::begin(kSplitBlocks), std::end(kSplitBlocks),
                split.blocks) != std::end(kSplitBlocks);
  if (kernel == nullptr || !has_blocks) return cudaErrorNotSupported;
  if (p.rows == 0) return cudaSuccess;
  KernelParams params = {};
  params.y = p.y;
  params.y_stride = p.y_stride;
  params.rows = p.rows;
  params.out = p.out;
  params.x_rows = std::min(kRows, p.rows);
  params.steps = DivideUp(p.in, kDepth);
  params.block_steps = DivideUp(params.steps, split.blocks);
  params.blocks = split.blocks;
  const Places places = {split.columns};
  params.stages = std::min(params.block_steps,
                           (limits.shared_bytes - places.BytesWith(0)) /
                               (places.BytesWith(1) - places.BytesWith(0)));
  if (params.stages < 1) return cudaErrorNotSupported;
  const cudaError_t error = MakeTensorMaps({
      {&params.x,
       {p.type, p.x, p.rows, p.in, p.x_stride},
       {params.x_rows, kDepth}},
      {&params.w, {p.type, p.w, p.out, p.in, p.in}, {split.columns, kDepth}},
  });
  if (error != cudaSuccess) return error;
  const int tiles = DivideUp(p.rows, kRows) * DivideUp(p.out, split.columns);
  return LaunchDependent(
      kernel, dim3(static_cast<unsigned>(tiles * split.blocks)), kThreads,
      places.BytesWith(params.stages), stream, params, split.blocks);
}

}  // namespace svdserve::cuda::hopper
