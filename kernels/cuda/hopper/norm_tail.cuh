// The end of a half-layer in a kernel whose blocks own rows:
//   x = LayerNorm(x + z·Wᵀ + b)
// of rows z that are in shared memory. Tiles of W, and rows of x, come through
// the kernel's ring.
//
// A row's sums stay in fp32 registers until its mean and deviation are known.
// Registers hold 64 rows of more than 384 columns, a half of the columns in
// each warpgroup; more rows take turns, and W comes for each turn.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_NORM_TAIL_CUH_
#define SVDSERVE_KERNELS_CUDA_HOPPER_NORM_TAIL_CUH_

#include "kernels/cuda/hopper/ring.cuh"

namespace svdserve::cuda::hopper::row_blocks {

constexpr int kWarpRows = 16;
constexpr int kSlices = 8;  // of a row's sums, as GemmNorm() has them

// What a tail is compiled for: blocks of kRowsOfBlock rows of kHiddenWidth
// columns, of which each warpgroup has one of kColumnParts, of its own rows if
// there is one part.
template <int kHiddenWidth, int kRowsOfBlock, int kColumnParts>
struct TailShape {
  static constexpr int kHidden = kHiddenWidth;
  static constexpr int kBlockRows = kRowsOfBlock;
  static constexpr int kParts = kColumnParts;
  static constexpr int kTurnRows = kGroupRows * kConsumers / kParts;
  static constexpr int kTurns = kBlockRows / kTurnRows;
  static constexpr int kPartColumns = kHidden / kParts;
  // Columns of z·Wᵀ, of one wgmma.
  static constexpr int kChunk = kPartColumns % 128 == 0 ? 128 : kPanel;
  static constexpr int kChunks = kPartColumns / kChunk;
  static_assert(kPartColumns % kChunk == 0 && kPartColumns <= 384);
  static constexpr int kPartSlices = kSlices / kParts;

  // Of the panels of z, where results are staged afterwards.
  static constexpr int kRowPanelBytes = kBlockRows * kPanelBytes;
  static constexpr int kMinRowPanels = 4;
  // Of the ring: of W a chunk's rows for each part, 64 of k; of x a chunk's
  // columns for each part.
  static constexpr int kWeightBytes = kChunk * kPanelBytes;
  static constexpr int kTurnPanelBytes = kTurnRows * kPanelBytes;
  static constexpr int kChunkPanels = kChunk / kPanel;
  static constexpr int kResidualBytes = kParts * kChunkPanels * kTurnPanelBytes;
  static constexpr int kTailStageBytes = kResidualBytes > kParts* kWeightBytes
                                             ? kResidualBytes
                                             : kParts* kWeightBytes;

  // Bias, gamma, beta; sums of slices for mean, deviation.
  static constexpr int kVectorBytes = 3 * kHidden * int{sizeof(float)};
  static constexpr int kSumBytes = 2 * kTurnRows * kSlices * int{sizeof(float)};
  static constexpr int kTailBytes = kVectorBytes + kSumBytes;
};

struct TailArguments {
  CUtensorMap w;       // boxes of [kChunk, kPanel]
  CUtensorMap x;       // [kGroupRows, kPanel]
  CUtensorMap result;  // [kWarpRows, kPanel]
  const float* bias;   // or null
  const float* gamma;
  const float* beta;
  float eps;
  int rank;  // of W
};

// A thread's part of it, beside those of `Base`, a Ring. `C` is a TailShape
// and has `Element`.
template <typename C, typename Base>
class NormTail : protected Base {
  using T = typename C::Element;
  // In a turn a thread has two rows, t / 4 and t / 4 + 8 of its warp's, and of
  // each two columns of every eight.
  using Row = float[C::kChunks][C::kChunk / 2];
  static constexpr int kTiles = C::kChunk / 8;  // of a chunk
  static constexpr int kSliceTiles = C::kPartColumns / 8 / C::kPartSlices;

 protected:
  // `place`: of kTailBytes in shared memory, a multiple of 16.
  template <typename... BaseArguments>
  __device__ NormTail(const TailArguments& arguments, int place,
                      const BaseArguments&... base)
      : Base(base...),
        tail_(arguments),
        part_(C::kParts > 1 ? this->group_ : 0),
        vectors_(reinterpret_cast<float*>(this->shared_ + place)),
        sums_(vectors_ + 3 * C::kHidden) {}

  // ---- All threads ----

  __device__ void LoadVectors() {
    const float* const vectors[] = {tail_.bias, tail_.gamma, tail_.beta};
#pragma unroll
    for (int which = 0; which < 3; ++which) {
      for (int i = threadIdx.x; i < C::kHidden; i += kThreads) {
        vectors_[which * C::kHidden + i] =
            vectors[which] == nullptr ? 0 : vectors[which][i];
      }
    }
  }
  __device__ void PrefetchTailMaps() const {
    for (const CUtensorMap* map : {&tail_.w, &tail_.x, &tail_.result}) {
      PrefetchTensorMap(map);
    }
  }

  // ---- The thread that copies ----

  __device__ void LoadTail() {
#pragma unroll 1
    for (int turn = 0; turn < C::kTurns; ++turn) {
#pragma unroll 1
      for (int chunk = 0; chunk < C::kChunks; ++chunk) LoadChunk(turn, chunk);
    }
  }

  // ---- The warpgroups that compute ----

  // When all have stored z.
  __device__ __forceinline__ void FinishRows() {
#pragma unroll 1
    for (int turn = 0; turn < C::kTurns; ++turn) Finish(turn);
    if (Base::Lane() == 0) BulkWaitRead<0>();
  }

  const TailArguments& tail_;

 private:
  // Of a turn: W of a chunk of each part's columns, then x.
  __device__ void LoadChunk(int turn, int chunk) {
    const int panels = PanelsOf(tail_.rank);
#pragma unroll 1
    for (int panel = 0; panel < panels; ++panel) {
      uint64_t* full = this->Claim(C::kParts * C::kWeightBytes);
      unsigned char* tile = this->Stage(this->place_);
#pragma unroll
      for (int part = 0; part < C::kParts; ++part) {
        TensorCopy(tile + part * C::kWeightBytes, &tail_.w, panel * kPanel,
                   part * C::kPartColumns + chunk * C::kChunk, full);
      }
      this->place_.Advance();
    }
    uint64_t* full = this->Claim(C::kResidualBytes);
    unsigned char* tile = this->Stage(this->place_);
#pragma unroll
    for (int part = 0; part < C::kParts; ++part) {
#pragma unroll
      for (int panel = 0; panel < C::kChunkPanels; ++panel) {
#pragma unroll
        for (int row = 0; row < C::kTurnRows; row += kGroupRows) {
          TensorCopy(
              tile, &tail_.x,
              part * C::kPartColumns + chunk * C::kChunk + panel * kPanel,
              blockIdx.x * C::kBlockRows + turn * C::kTurnRows + row, full);
          tile += kGroupRows * kPanelBytes;
        }
      }
    }
    this->place_.Advance();
  }

  // x = LayerNorm(x + z·Wᵀ + b) of a turn's rows and the part's columns.
  __device__ __forceinline__ void Finish(int turn) {
    Row sums = {};
#pragma unroll
    for (int chunk = 0; chunk < C::kChunks; ++chunk) {
      MultiplyChunk(turn, sums[chunk]);
      AddResidual(chunk, sums[chunk]);
    }
    float scale[2];
    Standardize(sums, scale);
    StoreScaled(turn, sums, scale);
  }

  // The warpgroup's rows of a turn.
  __device__ unsigned char* TurnRows(int turn) const {
    const int half = C::kParts > 1 ? turn : this->group_;
    return this->shared_ + half * kGroupRows * kPanelBytes;
  }

  __device__ __forceinline__ void MultiplyChunk(int turn,
                                                float (&sums)[C::kChunk / 2]) {
    this->MultiplyPanels(
        PanelsOf(tail_.rank), [&](int panel, const unsigned char* tile) {
          const uint64_t w = Descriptor128(tile + part_ * C::kWeightBytes);
          const uint64_t z =
              Descriptor128(TurnRows(turn) + panel * C::kRowPanelBytes);
#pragma unroll
          for (int k = 0; k < kPanel / 16; ++k) {
            Wgmma<T>(sums, z + 2 * k, w + 2 * k, panel + k > 0);
          }
        });
  }

  // Of columns 8n to 8n + 15 of the warp's rows in a panel: where this lane's
  // part is for ldmatrix and stmatrix.
  __device__ static int PieceOffset(int n) {
    const int row = Base::Lane() % 16;
    return row * kPanelBytes + ((n % 8 + Base::Lane() / 16) ^ (row & 7)) * 16;
  }
  __device__ static int WarpRow() {
    return threadIdx.x % kWarpgroup / kWarp * kWarpRows;
  }
  // Of tile n of the part.
  __device__ float2 At(int vector, int n) const {
    return *reinterpret_cast<const float2*>(vectors_ + vector * C::kHidden +
                                            part_ * C::kPartColumns + n * 8 +
                                            Base::Lane() % 4 * 2);
  }

  // sums + bias + x
  __device__ __forceinline__ void AddResidual(int chunk,
                                              float (&sums)[C::kChunk / 2]) {
    const int first_row = C::kParts > 1 ? 0 : this->group_ * kGroupRows;
    const unsigned char* rows = this->Await() +
                                part_ * C::kChunkPanels * C::kTurnPanelBytes +
                                (first_row + WarpRow()) * kPanelBytes;
#pragma unroll
    for (int n = 0; n < kTiles; n += 2) {
      uint32_t x[4];
      LoadMatrix4(x, rows + n / 8 * C::kTurnPanelBytes + PieceOffset(n));
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 bias = At(0, chunk * kTiles + n + i / 2);
        const float2 value = Unpack<T>(x[i]);
        float* to = &sums[n * 4 + i * 2];
        to[0] = to[0] + bias.x + value.x;
        to[1] = to[1] + bias.y + value.y;
      }
    }
    __syncwarp();
    this->Release(this->Advance());
  }

  // Leaves deviations from the mean, and what to scale them by.
  __device__ __forceinline__ void Standardize(Row& sums, float (&scale)[2]) {
    float slices[2][C::kPartSlices] = {};
#pragma unroll
    for (int n = 0; n < C::kChunks * kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float* values = &sums[n / kTiles][n % kTiles * 4 + i * 2];
        slices[i][n / kSliceTiles] += values[0];
        slices[i][n / kSliceTiles] += values[1];
      }
    }
    float mean[2];
    AddUp(slices, 0, mean);
    constexpr float kWidth = C::kHidden;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      mean[i] /= kWidth;
#pragma unroll
      for (int s = 0; s < C::kPartSlices; ++s) slices[i][s] = 0;
    }
#pragma unroll
    for (int n = 0; n < C::kChunks * kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float* values = &sums[n / kTiles][n % kTiles * 4 + i * 2];
        float& squares = slices[i][n / kSliceTiles];
        values[0] -= mean[i];
        values[1] -= mean[i];
        squares = fmaf(values[0], values[0], squares);
        squares = fmaf(values[1], values[1], squares);
      }
    }
    AddUp(slices, 1, scale);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      scale[i] = 1 / sqrtf(scale[i] / kWidth + tail_.eps);
    }
  }

  // Of whole rows, from the thread's parts of its slices: four lanes, then all
  // slices in order. `which`: of two buffers.
  __device__ __forceinline__ void AddUp(float (&slices)[2][C::kPartSlices],
                                        int which, float (&total)[2]) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int s = 0; s < C::kPartSlices; ++s) {
        slices[i][s] += ShuffleXor(slices[i][s], 1);
        slices[i][s] += ShuffleXor(slices[i][s], 2);
      }
    }
    float all[2][kSlices];
    if constexpr (C::kParts == 1) {
#pragma unroll
      for (int i = 0; i < 2 * kSlices; ++i) {
        all[i / kSlices][i % kSlices] = slices[i / kSlices][i % kSlices];
      }
    } else {
      // Parts of the warpgroups. All have passed the other buffer's barrier
      // since they read this one.
      float* const buffer =
          sums_ + (which * C::kTurnRows + WarpRow() + Base::Lane() / 4) *
                      kSlices;  // [16 rows, kSlices]
      if (Base::Lane() % 4 == 0) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
          for (int s = 0; s < C::kPartSlices; ++s) {
            buffer[i * 8 * kSlices + part_ * C::kPartSlices + s] = slices[i][s];
          }
        }
      }
      NamedBarrierWait(Base::kAll, kThreadsThatCompute);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int s = 0; s < kSlices; ++s) {
          all[i][s] = buffer[i * 8 * kSlices + s];
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      total[i] = 0;
#pragma unroll
      for (int s = 0; s < kSlices; ++s) total[i] += all[i][s];
    }
  }

  // The result, rounded, by panels of the warp's rows, through where the turn's
  // z was: all that share it have passed Standardize()'s barriers.
  __device__ __forceinline__ void StoreScaled(int turn, const Row& sums,
                                              const float (&scale)[2]) {
    if (C::kParts == 1) {
      NamedBarrierWait(Base::kGroups + this->group_, kWarpgroup);
    }
    constexpr int kBufferBytes = kWarpRows * kPanelBytes;
    const int warp = threadIdx.x / kWarp % (C::kParts * kWarpgroup / kWarp);
    const int row = blockIdx.x * C::kBlockRows +
                    (C::kParts > 1 ? turn : this->group_) * kGroupRows +
                    WarpRow();
#pragma unroll
    for (int panel = 0; panel < C::kPartColumns / kPanel; ++panel) {
      const int buffer = warp * 2 + panel % 2;
      unsigned char* const to = TurnRows(turn) +
                                buffer / 4 * C::kRowPanelBytes +
                                buffer % 4 * kBufferBytes;
      if (Base::Lane() == 0) BulkWaitRead<1>();
      __syncwarp();
#pragma unroll
      for (int i = 0; i < kPanel / 8; i += 2) {
        uint32_t scaled[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int n = panel * (kPanel / 8) + i + j / 2;
          const float2 gamma = At(1, n);
          const float2 beta = At(2, n);
          const float* values = &sums[n / kTiles][n % kTiles * 4 + j % 2 * 2];
          scaled[j] = Pack<T>(fmaf(values[0] * scale[j % 2], gamma.x, beta.x),
                              fmaf(values[1] * scale[j % 2], gamma.y, beta.y));
        }
        StoreMatrix4(to + PieceOffset(i), scaled[0], scaled[1], scaled[2],
                     scaled[3]);
      }
      FenceSharedForAsync();
      __syncwarp();
      if (Base::Lane() == 0) {
        TensorStore(&tail_.result, part_ * C::kPartColumns + panel * kPanel,
                    row, to);
        BulkCommit();
      }
    }
  }

  const int part_;        // of the columns
  float* const vectors_;  // bias, gamma, beta: [kHidden]
  float* const sums_;     // [2][kTurnRows][kSlices]
};

}  // namespace svdserve::cuda::hopper::row_blocks

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_NORM_TAIL_CUH_
