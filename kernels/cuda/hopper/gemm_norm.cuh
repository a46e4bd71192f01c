// x = LayerNorm(x + y·Wᵀ + b), in place, by wgmma. The blocks of a cluster
// share rows; each has a part of the columns, whose weights stay in its shared
// memory while rows pass through. Sums of rows go from block to block.
//
// One warp copies: weights once, then y and x through a ring of stages. Two
// warpgroups take turns at 64 rows each: one multiplies while the other
// normalises what it has.
//
// Weights that do not fit come through the ring beside y, anew for each turn,
// which is 128 rows then, 64 for each warpgroup. And where there are so few
// rows that each cluster has one turn, the warpgroups share its columns
// instead.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_GEMM_NORM_CUH_
#define SVDSERVE_KERNELS_CUDA_HOPPER_GEMM_NORM_CUH_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/hopper/instructions.cuh"
#include "kernels/cuda/hopper/tensor_map.h"
#include "kernels/cuda/hopper/wgmma.cuh"
#include "kernels/cuda/launch.cuh"

namespace svdserve::cuda::hopper::gemm_norm {

constexpr int kWarpgroup = 128;
constexpr int kConsumers = 2;                            // warpgroups
constexpr int kThreads = (kConsumers + 1) * kWarpgroup;  // and who copies
constexpr int kWarps = kConsumers * 4;
constexpr int kRows = 64;  // of a warpgroup
constexpr int kWarpRows = 16;
constexpr int kDepth = 64;  // of k, of a stage
constexpr int kPanel = 64;  // columns of x, of a stage
constexpr int kRowBytes = 64 * kElementBytes;
constexpr int kMinStages = 4;
constexpr int kMaxStages = 16;
constexpr int kMaxSteps = 8;  // of k
constexpr int kSlices = 8;  // of a row's sums, as the portable kernel has them
constexpr int kWarpSumBytes = kWarpRows * kSlices * sizeof(float);
constexpr int kResultBytes = kWarpRows * kRowBytes;  // a warp's, of a panel

// What the warpgroups do at a time.
enum class Share {
  kTurns,    // one multiplies, one finishes: 64 rows each
  kRows,     // both the same: 64 rows each
  kColumns,  // both the same: half of the columns each, of 64 rows
};

constexpr int DivideUp(int a, int b) { return (a + b - 1) / b; }

// What a kernel is compiled for.
template <typename T, int kHiddenWidth, int kClusterBlocks, bool kStreamed,
          Share kShared>
struct Config {
  using Element = T;
  static constexpr int kHidden = kHiddenWidth;
  static constexpr int kBlocks = kClusterBlocks;      // of a cluster
  static constexpr int kColumns = kHidden / kBlocks;  // of a block
  static_assert(kColumns % kPanel == 0 && kSlices % kBlocks == 0);

  static constexpr int kWeightBytes = kColumns * kRowBytes;  // of kDepth of k
  static constexpr bool kStreams = kStreamed;                // weights
  static constexpr bool kInTurns = kShared == Share::kTurns;
  static constexpr int kTurnRows =
      kShared == Share::kRows ? kConsumers * kRows : kRows;
  // Warpgroups that have columns of the same rows, and how many each has.
  static constexpr int kParts = kShared == Share::kColumns ? kConsumers : 1;
  static constexpr int kPartColumns = kColumns / kParts;
  // Columns of a tensor store.
  static constexpr int kResultPanel = kPartColumns % 64 == 0 ? 64 : 32;
  static constexpr int kPartSlices = kSlices / kBlocks / kParts;
  static_assert(kPartColumns % kResultPanel == 0 && kPartSlices > 0);
  // A stage has of y kDepth columns, and weights, or a panel of x.
  static constexpr int kRowsBytes = kTurnRows * kRowBytes;
  static constexpr int kStageBytes = kRowsBytes + (kStreams ? kWeightBytes : 0);
  static constexpr int kReaders = kInTurns ? 4 : kWarps;  // of a stage
  static constexpr int kSumBytes = kWarps * 2 * kWarpSumBytes;
  static constexpr int kVectorBytes = 3 * kColumns * sizeof(float);
  // Stages full and empty, weights, sums.
  static constexpr int kBarriers = 2 * kMaxStages + kMaxSteps + 2 * kWarps;

  static constexpr int SharedBytes(int in, int stages) {
    return (kStreams ? 0 : DivideUp(in, kDepth) * kWeightBytes) +
           stages * kStageBytes + 2 * kWarps * kResultBytes + kSumBytes +
           kVectorBytes + kBarriers * int{sizeof(uint64_t)};
  }
  // That fit; fewer than kMinStages: `in` is too large.
  static constexpr int Stages(int in, int shared_bytes) {
    if (!kStreams && DivideUp(in, kDepth) > kMaxSteps) return 0;
    const int left = shared_bytes - SharedBytes(in, 0);
    return std::min(left / kStageBytes, kMaxStages);
  }
};

struct KernelParams {
  CUtensorMap y;       // boxes of a turn's rows x kDepth
  CUtensorMap w;       // of the block's columns x kDepth
  CUtensorMap x;       // of a turn's rows x kPanel
  CUtensorMap result;  // of kWarpRows x kResultPanel
  const float* bias;
  const float* gamma;
  const float* beta;
  float eps;
  int rows, in;
  int stages;
};

// A thread's part of a block's work. Consumers have of their warpgroup's rows
// two, Row(0) and Row(1), in each two columns of every eight of its part.
template <typename C>
class GemmNormBlock {
  using T = typename C::Element;
  static constexpr int kTiles = C::kPartColumns / 8;
  static constexpr int kPartSlices = C::kPartSlices;
  static constexpr int kSliceTiles = kTiles / kPartSlices;
  static constexpr int kPanels = C::kColumns / kPanel;

 public:
  __device__ explicit GemmNormBlock(const KernelParams& params)
      : params_(params),
        steps_((params.in + kDepth - 1) / kDepth),
        row_tiles_((params.rows + C::kTurnRows - 1) / C::kTurnRows),
        part_(C::kParts > 1 ? Warpgroup() : 0),
        weights_(SwizzledSharedMemory()),
        stages_(weights_ + (C::kStreams ? 0 : steps_ * C::kWeightBytes)),
        results_(stages_ + params.stages * C::kStageBytes),
        sums_(reinterpret_cast<float*>(results_ + 2 * kWarps * kResultBytes)),
        vectors_(sums_ + C::kSumBytes / sizeof(float)) {
    full_ = reinterpret_cast<uint64_t*>(vectors_ + 3 * C::kColumns);
    empty_ = full_ + kMaxStages;
    weights_full_ = empty_ + kMaxStages;
    sums_full_ = weights_full_ + kMaxSteps;
  }

  __device__ void Run() {
    if (threadIdx.x == 0) InitBarriers();
    LoadVectors();
    __syncthreads();
    ClusterSync();
    if (Warp() >= kWarps) {
      ReturnRegisters<40>();
      if (Warp() == kWarps && ElectOne()) {
        Copy();
      } else {
        WaitForPriorKernels();
      }
    } else {
      TakeRegisters<232>();
      WaitForPriorKernels();
      LetNextKernelStart();
      Consume();
    }
  }

 private:
  __device__ void InitBarriers() {
    PrefetchTensorMap(&params_.w);
    PrefetchTensorMap(&params_.y);
    PrefetchTensorMap(&params_.x);
    PrefetchTensorMap(&params_.result);
    for (int i = 0; i < params_.stages; ++i) {
      BarrierInit(&full_[i], 1);
      BarrierInit(&empty_[i], C::kReaders);
    }
    for (int i = 0; i < steps_ && !C::kStreams; ++i) {
      BarrierInit(&weights_full_[i], 1);
    }
    for (int i = 0; i < 2 * kWarps; ++i) BarrierInit(&sums_full_[i], 1);
    BarrierInitFence();
  }
  // Bias, gamma and beta of the block's columns.
  __device__ void LoadVectors() const {
    const float* const vectors[] = {params_.bias, params_.gamma, params_.beta};
#pragma unroll
    for (int which = 0; which < 3; ++which) {
      for (int i = threadIdx.x; i < C::kColumns; i += kThreads) {
        vectors_[which * C::kColumns + i] =
            vectors[which] == nullptr ? 0 : vectors[which][FirstColumn() + i];
      }
    }
  }

  __device__ static int FirstColumn() { return RankInCluster() * C::kColumns; }
  // Of a turn; at or past row_tiles_ there is none.
  __device__ static int RowTile(int turn) {
    return blockIdx.x / C::kBlocks + turn * (gridDim.x / C::kBlocks);
  }
  __device__ static int Warpgroup() {
    return __shfl_sync(0xffffffffu, threadIdx.x / kWarpgroup, 0);
  }
  __device__ static int Warp() { return threadIdx.x / 32; }
  __device__ static int Lane() { return threadIdx.x % 32; }

  // The stages' order, as both sides go through it.
  struct Place {
    int stage = 0;
    uint32_t parity = 0;

    __device__ void Advance(int stages) {
      if (++stage == stages) {
        stage = 0;
        parity ^= 1;
      }
    }
  };
  __device__ unsigned char* Stage(int stage) const {
    return stages_ + stage * C::kStageBytes;
  }
  // The warpgroup's rows of it.
  __device__ unsigned char* Rows(int stage) const {
    constexpr bool kApart = C::kTurnRows > kRows;
    return Stage(stage) + (kApart ? Warpgroup() * kRows * kRowBytes : 0);
  }
  // The warpgroup's first column of the block's.
  __device__ int PartColumn() const { return part_ * C::kPartColumns; }

  // Weights, which do not wait for prior kernels; then of each turn y, by
  // steps, and x, by panels.
  __device__ void Copy() {
    int ahead = C::kStreams ? min(steps_, params_.stages) : 0;
    if constexpr (C::kStreams) {
      for (int i = 0; i < ahead; ++i) CopyWeights(i, i);
    } else {
#pragma unroll 1
      for (int step = 0; step < steps_; ++step) {
        ArriveExpect(&weights_full_[step], C::kWeightBytes);
        TensorCopy(weights_ + step * C::kWeightBytes, &params_.w, step * kDepth,
                   FirstColumn(), &weights_full_[step]);
      }
    }
    WaitForPriorKernels();
    Place place;
#pragma unroll 1
    for (int turn = 0; RowTile(turn) < row_tiles_; ++turn) {
      const int row = RowTile(turn) * C::kTurnRows;
#pragma unroll 1
      for (int step = 0; step < steps_; ++step) {
        BarrierWait(&empty_[place.stage], place.parity ^ 1);
        if constexpr (C::kStreams) {
          if (--ahead < 0) CopyWeights(place.stage, step);
        } else {
          ArriveExpect(&full_[place.stage], C::kRowsBytes);
        }
        CopyRows(place, params_.y, step * kDepth, row);
      }
#pragma unroll 1
      for (int panel = 0; panel < kPanels; ++panel) {
        BarrierWait(&empty_[place.stage], place.parity ^ 1);
        ArriveExpect(&full_[place.stage], C::kRowsBytes);
        CopyRows(place, params_.x, FirstColumn() + panel * kPanel, row);
      }
    }
  }
  // To a stage, behind its rows.
  __device__ void CopyWeights(int stage, int step) const {
    ArriveExpect(&full_[stage], C::kStageBytes);
    TensorCopy(Stage(stage) + C::kRowsBytes, &params_.w, step * kDepth,
               FirstColumn(), &full_[stage]);
  }
  __device__ void CopyRows(Place& place, const CUtensorMap& map, int column,
                           int row) const {
    TensorCopy(Stage(place.stage), &map, column, row, &full_[place.stage]);
    place.Advance(params_.stages);
  }

  // ---- Products and norm ----

  __device__ void Consume() {
    const int warpgroup = Warpgroup();
    if (C::kInTurns && warpgroup == 1) HandOver();
    const int first_row = Warp() % (C::kTurnRows / kWarpRows) * kWarpRows;
    uint32_t parity = 0;
#pragma unroll 1
    for (int turn = C::kInTurns ? warpgroup : 0; RowTile(turn) < row_tiles_;
         turn += C::kInTurns ? kConsumers : 1) {
      if (C::kInTurns) {
        NamedBarrierWait(kTurnBarrier + warpgroup, kConsumers * kWarpgroup);
      }
      MultiplyAndReadRows(turn);
      AddResidual();
      Standardize(parity);
      StoreScaled(RowTile(turn) * C::kTurnRows + first_row);
      parity ^= 1;
    }
    if (Lane() == 0) BulkWaitRead<0>();
  }

  // The barrier of each warpgroup's turn, at which the other arrives. (A wait
  // for a stage cannot tell its rounds apart, so that stages are waited for in
  // their order.)
  static constexpr int kTurnBarrier = 1;
  __device__ static void HandOver() {
    NamedBarrierArrive(kTurnBarrier + 1 - Warpgroup(), kConsumers * kWarpgroup);
  }

  // sum = y·Wᵀ, and while the last products are under way, x to registers.
  __device__ void MultiplyAndReadRows(int turn) {
    const int done = turn * (steps_ + kPanels);
    Place place = {done % params_.stages, uint32_t(done / params_.stages & 1)};
    int read_stage = 0;
#pragma unroll 1
    for (int step = 0; step < steps_; ++step) {
      if constexpr (!C::kStreams) BarrierWait(&weights_full_[step], 0);
      BarrierWait(&full_[place.stage], place.parity);
      const uint64_t y = Descriptor128(Rows(place.stage));
      const uint64_t w =
          Descriptor128((C::kStreams ? Stage(place.stage) + C::kRowsBytes
                                     : weights_ + step * C::kWeightBytes) +
                        PartColumn() * kRowBytes);
      WgmmaFence();
#pragma unroll
      for (int k = 0; k < kDepth / 16; ++k) {
        Wgmma<T>(sum_, y + 2 * k, w + 2 * k, step + k > 0);
      }
      WgmmaCommit();
      WgmmaWait<1>();
      if (step > 0) Release(read_stage);
      read_stage = place.stage;
      place.Advance(params_.stages);
    }
    ReadRows(place);
    if (C::kInTurns && RowTile(turn + 1) < row_tiles_) HandOver();
    WgmmaWait<0>();
    Release(read_stage);
  }
  // x to registers, from the stages from `place` on.
  __device__ void ReadRows(Place place) {
    if constexpr (C::kParts == 1) {
#pragma unroll
      for (int panel = 0; panel < kPanels; ++panel) {
        BarrierWait(&full_[place.stage], place.parity);
        const unsigned char* const rows =
            Rows(place.stage) + Warp() % 4 * kWarpRows * kRowBytes;
#pragma unroll
        for (int n = panel * 8; n < panel * 8 + 8; n += 2) {
          LoadMatrix4(x_[n / 2], rows + PieceOffset(n));
        }
        __syncwarp();
        Release(place.stage);
        place.Advance(params_.stages);
      }
    } else {
      const unsigned char* panels[kPanels];
      int stages[kPanels];
#pragma unroll
      for (int panel = 0; panel < kPanels; ++panel) {
        BarrierWait(&full_[place.stage], place.parity);
        stages[panel] = place.stage;
        panels[panel] = Stage(place.stage) + Warp() % 4 * kWarpRows * kRowBytes;
        place.Advance(params_.stages);
      }
#pragma unroll
      for (int n = 0; n < kTiles; n += 2) {
        const bool lower = part_ == 0;
        LoadMatrix4(x_[n / 2],
                    (lower ? panels[n / 8] : panels[(n + kTiles) / 8]) +
                        PieceOffset(lower ? n : n + kTiles));
      }
      __syncwarp();
#pragma unroll
      for (int panel = 0; panel < kPanels; ++panel) Release(stages[panel]);
    }
  }
  // By each warp, when it has read what a copy may overwrite.
  __device__ void Release(int stage) const {
    if (Lane() == 0) Arrive(&empty_[stage]);
  }

  // Of columns 8n to 8n + 15 of the warp's rows in a panel: where this lane's
  // part is for ldmatrix and stmatrix.
  __device__ static int PieceOffset(int n) {
    const int row = Lane() % 16;
    return row * kRowBytes + ((n % 8 + Lane() / 16) ^ (row & 7)) * 16;
  }
  __device__ float2 At(int vector, int n) const {
    return *reinterpret_cast<const float2*>(vectors_ + vector * C::kColumns +
                                            PartColumn() + n * 8 +
                                            Lane() % 4 * 2);
  }

  // sum + bias + x
  __device__ void AddResidual() {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const float2 bias = At(0, n);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float2 x = Unpack<T>(x_[n / 2][n % 2 * 2 + i]);
        float* sums = &sum_[n * 4 + i * 2];
        sums[0] = sums[0] + bias.x + x.x;
        sums[1] = sums[1] + bias.y + x.y;
      }
    }
  }

  // Of whole rows, from the thread's parts of its slices: four lanes, then all
  // slices in order. `which`: of two buffers. Warps that have parts of the same
  // rows share buffers; the first says what will come.
  __device__ void AddUp(float (&slices)[2][kPartSlices], int which,
                        uint32_t parity, float (&total)[2]) const {
    constexpr int kSent = 2 * kPartSlices;  // of two rows
    constexpr int kSenders = C::kBlocks * C::kParts;
    const int at = Warp() % (kWarps / C::kParts) * 2 + which;
    float* const buffer = sums_ + at * (kWarpSumBytes / sizeof(float)) +
                          Lane() / 4 * kSent;  // [kSenders, 8, kSent]
    uint64_t* const barrier = &sums_full_[at];
    if (Lane() == 0 && part_ == 0) ArriveExpect(barrier, kWarpSumBytes);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int s = 0; s < kPartSlices; ++s) {
        slices[i][s] += ShuffleXor(slices[i][s], 1);
        slices[i][s] += ShuffleXor(slices[i][s], 2);
      }
    }
    // Each lane of four to other blocks.
    const int sender = RankInCluster() * C::kParts + part_;
    for (int rank = Lane() % 4; rank < C::kBlocks; rank += 4) {
      const uint32_t to = AddressInCluster(buffer + sender * 8 * kSent, rank);
      const uint32_t their_barrier = AddressInCluster(barrier, rank);
#pragma unroll
      for (int i = 0; i < kSent; i += 2) {
        const float* const values = &slices[0][0] + i;
        SendAsync(to + i * sizeof(float), float2{values[0], values[1]},
                  their_barrier);
      }
    }
    BarrierWaitInCluster(barrier, parity);
    float all[2][kSlices];
#pragma unroll
    for (int from = 0; from < kSenders; ++from) {
#pragma unroll
      for (int i = 0; i < kSent; i += 2) {
        const float2 pair =
            *reinterpret_cast<const float2*>(buffer + from * 8 * kSent + i);
        float* const to = &all[0][0];
        const int first = from * kPartSlices;
        to[i / kPartSlices * kSlices + first + i % kPartSlices] = pair.x;
        to[(i + 1) / kPartSlices * kSlices + first + (i + 1) % kPartSlices] =
            pair.y;
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      total[i] = 0;
#pragma unroll
      for (int s = 0; s < kSlices; ++s) total[i] += all[i][s];
    }
  }

  // Leaves deviations from the mean, and what to scale them by.
  __device__ void Standardize(uint32_t parity) {
    float slices[2][kPartSlices] = {};
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        slices[i][n / kSliceTiles] += sum_[n * 4 + i * 2];
        slices[i][n / kSliceTiles] += sum_[n * 4 + i * 2 + 1];
      }
    }
    float mean[2];
    AddUp(slices, 0, parity, mean);
    constexpr float kWidth = C::kHidden;
    mean[0] /= kWidth;
    mean[1] /= kWidth;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int s = 0; s < kPartSlices; ++s) slices[i][s] = 0;
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float* sums = &sum_[n * 4 + i * 2];
        float& squares = slices[i][n / kSliceTiles];
        sums[0] -= mean[i];
        sums[1] -= mean[i];
        squares = fmaf(sums[0], sums[0], squares);
        squares = fmaf(sums[1], sums[1], squares);
      }
    }
    AddUp(slices, 1, parity, scale_);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      scale_[i] = 1 / sqrtf(scale_[i] / kWidth + params_.eps);
    }
  }

  // The result, rounded, by panels of the warp's rows.
  __device__ void StoreScaled(int row) {
    constexpr int kChunks = C::kResultPanel / 8;
    const int lane_row = Lane() % 16;
    const int permutation = kChunks == 8 ? lane_row & 7 : lane_row >> 1 & 3;
#pragma unroll
    for (int panel = 0; panel < kTiles / kChunks; ++panel) {
      unsigned char* const to =
          results_ + (Warp() * 2 + result_) * kResultBytes;
      result_ ^= 1;
      uint32_t scaled[kChunks / 2][4];
#pragma unroll
      for (int i = 0; i < kChunks; ++i) {
        const int n = panel * kChunks + i;
        const float2 gamma = At(1, n);
        const float2 beta = At(2, n);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float* sums = &sum_[n * 4 + half * 2];
          scaled[i / 2][i % 2 * 2 + half] =
              Pack<T>(fmaf(sums[0] * scale_[half], gamma.x, beta.x),
                      fmaf(sums[1] * scale_[half], gamma.y, beta.y));
        }
      }
      if (Lane() == 0) BulkWaitRead<1>();
      __syncwarp();
#pragma unroll
      for (int i = 0; i < kChunks / 2; ++i) {
        const int chunk = (2 * i + Lane() / 16) ^ permutation;
        StoreMatrix4(to + (lane_row * kChunks + chunk) * 16, scaled[i][0],
                     scaled[i][1], scaled[i][2], scaled[i][3]);
      }
      FenceSharedForAsync();
      __syncwarp();
      if (Lane() == 0) {
        TensorStore(&params_.result,
                    FirstColumn() + PartColumn() + panel * C::kResultPanel, row,
                    to);
        BulkCommit();
      }
    }
  }

  const KernelParams& params_;
  const int steps_;      // of k
  const int row_tiles_;  // of kTurnRows
  const int part_;       // of the columns
  // Shared memory.
  unsigned char* weights_;  // [steps][kColumns, kDepth], but for streams
  unsigned char* stages_;   // [stages][kTurnRows, kDepth or kPanel], weights
  unsigned char* results_;  // [kWarps][2][kWarpRows, kPanel]
  float* sums_;             // [warps of rows][2][kSenders][8][kSent]
  float* vectors_;          // bias, gamma, beta: [kColumns]
  uint64_t* full_;          // of each stage
  uint64_t* empty_;
  uint64_t* weights_full_;  // of each step
  uint64_t* sums_full_;     // of each warp, two
  float sum_[C::kPartColumns / 2];
  uint32_t x_[kTiles / 2][4];
  float scale_[2];
  int result_ = 0;  // the next
};

}  // namespace svdserve::cuda::hopper::gemm_norm

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_GEMM_NORM_CUH_
