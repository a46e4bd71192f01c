// The device side of a whole feed-forward half-layer, in place. A block owns
// 128 rows of x, in three parts:
//   p = x·U1ᵀ, rounded to shared memory, where panels of x were;
//   z = act(p·V1ᵀ + b1)·U2ᵀ by the loop of ffn_loop.cuh, rounded there too;
//   x = LayerNorm(x + z·V2ᵀ + b2) by norm_tail.cuh.
// Tiles of weights, and x a second time, come through the loop's ring.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_FFN_LAYER_CUH_
#define SVDSERVE_KERNELS_CUDA_HOPPER_FFN_LAYER_CUH_

#include "kernels/cuda/hopper/ffn_loop.cuh"
#include "kernels/cuda/hopper/norm_tail.cuh"

namespace svdserve::cuda::hopper::row_blocks {

// What a kernel is compiled for; `LoopConfig` is a Config.
template <typename LoopConfig, int kHiddenWidth>
struct LayerConfig : LoopConfig,
                     TailShape<kHiddenWidth, kRows, (kHiddenWidth > 384) + 1> {
  using Tail = TailShape<kHiddenWidth, kRows, (kHiddenWidth > 384) + 1>;
  static_assert(Tail::kTailStageBytes <=
                    LoopConfig::kOutPanelBytes * (LoopConfig::kStep / kPanel),
                "a stage has place for U2");
  // Places for panels of x, which later hold p, then z, then results.
  static constexpr int kRowPanels = LoopConfig::kOutPanels > Tail::kMinRowPanels
                                        ? LoopConfig::kOutPanels
                                        : Tail::kMinRowPanels;

  __host__ __device__ static constexpr Layout LayoutFor(int in_rank,
                                                        int shared_bytes) {
    return Layout(in_rank, LoopConfig::kStep, LoopConfig::kOutColumns,
                  kRowPanels, kRowPanels, shared_bytes - Tail::kTailBytes);
  }
};

struct LayerArguments {
  LoopArguments loop;
  TailArguments tail;
  CUtensorMap u1;    // boxes of [kPieceColumns, kPanel]
  int shared_bytes;  // that may be used
};

// A thread's part of a block's work.
template <typename C>
class LayerBlock : NormTail<C, Loop<C>> {
  using Base = Loop<C>;
  using Tail = NormTail<C, Base>;
  using typename Base::Sums;
  using T = typename C::Element;

 public:
  __device__ explicit LayerBlock(const LayerArguments& arguments)
      : LayerBlock(arguments, C::LayoutFor(arguments.loop.in_rank,
                                           arguments.shared_bytes)) {}

  __device__ void Run() {
    Begin();
    this->ShareWork([&] { Produce(); }, [&] { Consume(); });
  }

 private:
  __device__ LayerBlock(const LayerArguments& arguments, const Layout& layout)
      : Tail(arguments.tail, layout.end, arguments.loop, layout),
        layer_(arguments) {}

  __device__ void Begin() {
    this->ClearBiases();
    this->LoadVectors();
    if (threadIdx.x == 0) {
      this->PrefetchMaps();
      this->PrefetchTailMaps();
      PrefetchTensorMap(&layer_.u1);
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
    this->LoadTail();
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
      TensorCopy(RowPanel(panel) + row * kPanelBytes, &this->tail_.x,
                 panel * kPanel, blockIdx.x * kRows + row, full);
    }
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
    this->FinishRows();
  }

  // p = x·U1ᵀ, to shared memory.
  __device__ __forceinline__ void MultiplyFirst() {
    Sums p;
    this->MultiplyPanels(kInPanels, [&](int panel, const unsigned char* tile) {
      const uint64_t u1 = Descriptor128(tile);
      const uint64_t x = Descriptor128(RowPanel(panel) +
                                       this->group_ * kGroupRows * kPanelBytes);
#pragma unroll
      for (int k = 0; k < kPanel / 16; ++k) {
#pragma unroll
        for (int piece = 0; piece < C::kPieces; ++piece) {
          constexpr int kPieceBytes = C::kPieceColumns * kPanelBytes;
          Wgmma<T>(p[piece], x + 2 * k, u1 + 2 * k + (piece * kPieceBytes >> 4),
                   panel + k > 0);
        }
      }
    });
    StoreRows(p, 1);
  }

  // To the warpgroup's rows of the row panels, which it has left.
  __device__ __forceinline__ void StoreRows(const Sums& sums, float scale) {
    NamedBarrierWait(Base::kGroups + this->group_, kWarpgroup);
    this->template StoreSums<kRows>(
        sums, scale, this->shared_ + this->group_ * kGroupRows * kPanelBytes);
    NamedBarrierWait(Base::kGroups + this->group_, kWarpgroup);
  }

  const LayerArguments& layer_;
};

}  // namespace svdserve::cuda::hopper::row_blocks

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_FFN_LAYER_CUH_
