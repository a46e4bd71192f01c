// The device side of a whole feed-forward half-layer, in place. A block owns
// 128 rows of x, in three parts:
//   p = x·U1ᵀ, rounded to shared memory, where panels of x were;
//   z = act(p·V1ᵀ + b1)·U2ᵀ by the loop of ffn_loop.cuh, rounded there too;
//   x = LayerNorm(x + z·V2ᵀ + b2).
// Tiles of weights, and x a second time, come through the loop's ring.
//
// A row's sums stay in fp32 registers until its mean and deviation are known.
// Registers hold 64 rows of more than 384 columns, a half of the columns in
// each warpgroup: so the block's rows take two turns then, and V2 comes twice.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_FFN_LAYER_CUH_
#define SVDSERVE_KERNELS_CUDA_HOPPER_FFN_LAYER_CUH_

#include "kernels/cuda/hopper/ffn_loop.cuh"

namespace svdserve::cuda::hopper::ffn {

constexpr int kWarpRows = 16;
constexpr int kChunk = 128;  // columns of z·V2ᵀ, of one wgmma
constexpr int kSlices = 8;   // of a row's sums, as GemmNorm() has them
// Places for panels of x, which later hold p, then z, then results.
constexpr int kMinRowPanels = 4;

// What a kernel is compiled for; `LoopConfig` is a Config.
template <typename LoopConfig, int kHiddenWidth>
struct LayerConfig : LoopConfig {
  static constexpr int kHidden = kHiddenWidth;
  static constexpr int kTurnRows = kHidden > 384 ? kGroupRows : kRows;
  static constexpr int kTurns = kRows / kTurnRows;
  // Of the columns, each of a warpgroup; else both have all.
  static constexpr int kParts = kTurns;
  static constexpr int kPartColumns = kHidden / kParts;
  static constexpr int kChunks = kPartColumns / kChunk;
  static_assert(kPartColumns % kChunk == 0 && kChunks <= 3);
  static constexpr int kPartSlices = kSlices / kParts;

  static constexpr int kRowPanels = LoopConfig::kOutPanels > kMinRowPanels
                                        ? LoopConfig::kOutPanels
                                        : kMinRowPanels;
  // Of the ring: of V2 a chunk's rows for each part, 64 of k; of x a chunk's
  // columns for each part.
  static constexpr int kNarrowBytes = kChunk * kPanelBytes;
  static constexpr int kTurnPanelBytes = kTurnRows * kPanelBytes;
  static constexpr int kChunkPanels = kChunk / kPanel;
  static constexpr int kRowsBytes = kParts * kChunkPanels * kTurnPanelBytes;
  static_assert(kRowsBytes <= LoopConfig::kOutPanelBytes *
                                  (LoopConfig::kStep / kPanel) &&
                    kParts * kNarrowBytes <= kRowsBytes,
                "a stage has place for U2");

  // Behind the loop's: bias, gamma, beta; sums of slices for mean, deviation.
  static constexpr int kVectorBytes = 3 * kHidden * int{sizeof(float)};
  static constexpr int kSumBytes = 2 * kTurnRows * kSlices * int{sizeof(float)};
  static constexpr int kOwnBytes = kVectorBytes + kSumBytes + 16;

  __host__ __device__ static constexpr Layout LayoutFor(int in_rank,
                                                        int shared_bytes) {
    return Layout(in_rank, LoopConfig::kStep, LoopConfig::kOutColumns,
                  kRowPanels, kRowPanels, shared_bytes - kOwnBytes);
  }
};

struct LayerArguments {
  LoopArguments loop;
  CUtensorMap u1;      // boxes of [kPieceColumns, kPanel]
  CUtensorMap v2;      // [kChunk, kPanel]
  CUtensorMap x;       // [kGroupRows, kPanel]
  CUtensorMap result;  // [kWarpRows, kPanel]
  const float* b2;     // or null
  const float* gamma;
  const float* beta;
  float eps;
  int out_rank;
  int shared_bytes;  // that may be used
};

// A thread's part of a block's work.
template <typename C>
class LayerBlock : Loop<C> {
  using Base = Loop<C>;
  using typename Base::Sums;
  using T = typename C::Element;
  // In a turn a thread has two rows, t / 4 and t / 4 + 8 of its warp's, and of
  // each two columns of every eight.
  using Row = float[C::kChunks][kChunk / 2];
  static constexpr int kTiles = kChunk / 8;  // of a chunk
  static constexpr int kSliceTiles = C::kPartColumns / 8 / C::kPartSlices;
  static constexpr int kThreadsThatCompute = kConsumers * kWarpgroup;

 public:
  __device__ explicit LayerBlock(const LayerArguments& arguments)
      : Base(arguments.loop,
             C::LayoutFor(arguments.loop.in_rank, arguments.shared_bytes)),
        layer_(arguments),
        part_(C::kParts > 1 ? this->group_ : 0),
        vectors_(reinterpret_cast<float*>(this->shared_ +
                                          (this->layout_.end + 15) / 16 * 16)),
        sums_(vectors_ + 3 * C::kHidden) {}

  __device__ void Run() {
    Begin();
    if (this->group_ == kConsumers) {
      ReturnRegisters<kProducerRegisters>();
      if (Base::IsProducer()) {
        Produce();
      } else {
        WaitForPriorKernels();
      }
    } else {
      TakeRegisters<kConsumerRegisters>();
      WaitForPriorKernels();
      LetNextKernelStart();
      Consume();
    }
  }

 private:
  __device__ void Begin() {
    this->ClearBiases();
    const float* const vectors[] = {layer_.b2, layer_.gamma, layer_.beta};
#pragma unroll
    for (int which = 0; which < 3; ++which) {
      for (int i = threadIdx.x; i < C::kHidden; i += kThreads) {
        vectors_[which * C::kHidden + i] =
            vectors[which] == nullptr ? 0 : vectors[which][i];
      }
    }
    if (threadIdx.x == 0) {
      for (const CUtensorMap* map :
           {&layer_.u1, &layer_.v2, &layer_.x, &layer_.result}) {
        PrefetchTensorMap(map);
      }
      this->InitRing();
      BarrierInitFence();
    }
    // Zeros by ordinary writes, then copies over them.
    FenceSharedForAsync();
    __syncthreads();
  }

  // ---- The thread that copies ----

  static constexpr int kInPanels = C::kHidden / kPanel;  // of x and U1

  __device__ void Produce() {
    // The first tiles of U1 do not wait for prior kernels.
    const int ahead = this->layout_.stages;
    uint64_t* full[C::kRowPanels];
#pragma unroll
    for (int panel = 0; panel < C::kRowPanels; ++panel) {
      if (panel < ahead) full[panel] = LoadFirstFactor(panel);
    }
    WaitForPriorKernels();
#pragma unroll
    for (int panel = 0; panel < C::kRowPanels; ++panel) {
      if (panel < ahead) LoadRowPanel(panel, full[panel]);
    }
#pragma unroll 1
    for (int panel = ahead; panel < kInPanels; ++panel) {
      LoadRowPanel(panel, LoadFirstFactor(panel));
    }
    this->LoadIn(0);
#pragma unroll 1
    for (int step = 0; step < this->steps_; ++step) {
      if (step + 1 < this->steps_) this->LoadIn(step + 1);
      this->LoadOut(step);
    }
#pragma unroll 1
    for (int turn = 0; turn < C::kTurns; ++turn) {
#pragma unroll 1
      for (int chunk = 0; chunk < C::kChunks; ++chunk) LoadChunk(turn, chunk);
    }
  }

  // A panel of U1; the same of x will come.
  __device__ uint64_t* LoadFirstFactor(int panel) {
    uint64_t* full = this->Claim(C::kOutPanelBytes + Base::kRowPanelBytes);
    unsigned char* tile = this->Stage(this->place_);
#pragma unroll
    for (int row = 0; row < C::kOutColumns; row += C::kPieceColumns) {
      TensorCopy(tile + row * kPanelBytes, &layer_.u1, panel * kPanel, row,
                 full);
    }
    this->place_.Advance();
    return full;
  }
  // The ring has no more stages than there are places.
  __device__ unsigned char* RowPanel(int panel) const {
    return this->shared_ + panel % C::kRowPanels * Base::kRowPanelBytes;
  }
  __device__ void LoadRowPanel(int panel, uint64_t* full) {
#pragma unroll
    for (int row = 0; row < kRows; row += kGroupRows) {
      TensorCopy(RowPanel(panel) + row * kPanelBytes, &layer_.x, panel * kPanel,
                 blockIdx.x * kRows + row, full);
    }
  }

  // Of a turn: V2 of a chunk of each part's columns, then x.
  __device__ void LoadChunk(int turn, int chunk) {
    const int panels = PanelsOf(layer_.out_rank);
#pragma unroll 1
    for (int panel = 0; panel < panels; ++panel) {
      uint64_t* full = this->Claim(C::kParts * C::kNarrowBytes);
      unsigned char* tile = this->Stage(this->place_);
#pragma unroll
      for (int part = 0; part < C::kParts; ++part) {
        TensorCopy(tile + part * C::kNarrowBytes, &layer_.v2, panel * kPanel,
                   part * C::kPartColumns + chunk * kChunk, full);
      }
      this->place_.Advance();
    }
    uint64_t* full = this->Claim(C::kRowsBytes);
    unsigned char* tile = this->Stage(this->place_);
#pragma unroll
    for (int part = 0; part < C::kParts; ++part) {
#pragma unroll
      for (int panel = 0; panel < C::kChunkPanels; ++panel) {
#pragma unroll
        for (int row = 0; row < C::kTurnRows; row += kGroupRows) {
          TensorCopy(tile, &layer_.x,
                     part * C::kPartColumns + chunk * kChunk + panel * kPanel,
                     blockIdx.x * kRows + turn * C::kTurnRows + row, full);
          tile += kGroupRows * kPanelBytes;
        }
      }
    }
    this->place_.Advance();
  }

  // ---- The warpgroups that compute ----

  __device__ __forceinline__ void Consume() {
    MultiplyFirst();
    {
      Sums z = {};
      this->Multiply(z);
      StoreRows(z, 1 / C::kScale);
    }
    if (C::kParts > 1) NamedBarrierWait(Base::kAll, kThreadsThatCompute);
#pragma unroll 1
    for (int turn = 0; turn < C::kTurns; ++turn) Finish(turn);
    if (Base::Lane() == 0) BulkWaitRead<0>();
  }

  // p = x·U1ᵀ, to shared memory.
  __device__ __forceinline__ void MultiplyFirst() {
    Sums p;
    int read_stage = 0;
#pragma unroll 1
    for (int panel = 0; panel < kInPanels; ++panel) {
      const uint64_t u1 = Descriptor128(this->Await());
      const uint64_t x = Descriptor128(RowPanel(panel) +
                                       this->group_ * kGroupRows * kPanelBytes);
      WgmmaFence();
#pragma unroll
      for (int k = 0; k < kPanel / 16; ++k) {
#pragma unroll
        for (int piece = 0; piece < C::kPieces; ++piece) {
          constexpr int kPieceBytes = C::kPieceColumns * kPanelBytes;
          Wgmma<T>(p[piece], x + 2 * k, u1 + 2 * k + (piece * kPieceBytes >> 4),
                   panel + k > 0);
        }
      }
      WgmmaCommit();
      WgmmaWait<1>();
      if (panel > 0) this->Release(read_stage);
      read_stage = this->Advance();
    }
    WgmmaWait<0>();
    this->Release(read_stage);
    StoreRows(p, 1);
  }

  // To the warpgroup's rows of the row panels, which it has left.
  __device__ __forceinline__ void StoreRows(const Sums& sums, float scale) {
    NamedBarrierWait(Base::kGroups + this->group_, kWarpgroup);
    this->template StoreSums<kRows>(
        sums, scale, this->shared_ + this->group_ * kGroupRows * kPanelBytes);
    NamedBarrierWait(Base::kGroups + this->group_, kWarpgroup);
  }

  // x = LayerNorm(x + z·V2ᵀ + b2) of a turn's rows and the part's columns.
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
    const int half = C::kTurns > 1 ? turn : this->group_;
    return this->shared_ + half * kGroupRows * kPanelBytes;
  }

  __device__ __forceinline__ void MultiplyChunk(int turn,
                                                float (&sums)[kChunk / 2]) {
    const int panels = PanelsOf(layer_.out_rank);
    int read_stage = 0;
#pragma unroll 1
    for (int panel = 0; panel < panels; ++panel) {
      const uint64_t v2 =
          Descriptor128(this->Await() + part_ * C::kNarrowBytes);
      const uint64_t z =
          Descriptor128(TurnRows(turn) + panel * Base::kRowPanelBytes);
      WgmmaFence();
#pragma unroll
      for (int k = 0; k < kPanel / 16; ++k) {
        Wgmma<T>(sums, z + 2 * k, v2 + 2 * k, panel + k > 0);
      }
      WgmmaCommit();
      WgmmaWait<1>();
      if (panel > 0) this->Release(read_stage);
      read_stage = this->Advance();
    }
    WgmmaWait<0>();
    this->Release(read_stage);
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
                                              float (&sums)[kChunk / 2]) {
    const int first_row = C::kTurns > 1 ? 0 : this->group_ * kGroupRows;
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
      scale[i] = 1 / sqrtf(scale[i] / kWidth + layer_.eps);
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
    const int row = blockIdx.x * kRows +
                    (C::kTurns > 1 ? turn : this->group_) * kGroupRows +
                    WarpRow();
#pragma unroll
    for (int panel = 0; panel < C::kPartColumns / kPanel; ++panel) {
      const int buffer = warp * 2 + panel % 2;
      unsigned char* const to = TurnRows(turn) +
                                buffer / 4 * Base::kRowPanelBytes +
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
        TensorStore(&layer_.result, part_ * C::kPartColumns + panel * kPanel,
                    row, to);
        BulkCommit();
      }
    }
  }

  const LayerArguments& layer_;
  const int part_;        // of the columns
  float* const vectors_;  // bias, gamma, beta: [kHidden]
  float* const sums_;     // [2][kTurnRows][kSlices]
};

}  // namespace svdserve::cuda::hopper::ffn

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_FFN_LAYER_CUH_
