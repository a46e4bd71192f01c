// The device side of the fused FFN on wgmma: p comes from memory, z goes there;
// between them the loop of ffn_loop.cuh.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_FUSED_FFN_CUH_
#define SVDSERVE_KERNELS_CUDA_HOPPER_FUSED_FFN_CUH_

#include "kernels/cuda/hopper/ffn_loop.cuh"

namespace svdserve::cuda::hopper::row_blocks {

struct Arguments {
  LoopArguments loop;
  CUtensorMap p;  // boxes of [kRows, kPanel]
  CUtensorMap z;  // [kGroupRows, kPanel]
  int rows;
  int shared_bytes;  // that the layout may use
};

// A thread's part of a block's work.
template <typename C>
class Block : Loop<C> {
  using Base = Loop<C>;
  using typename Base::Sums;

 public:
  __device__ explicit Block(const Arguments& arguments)
      : Base(arguments.loop,
             Layout(arguments.loop.in_rank, C::kStep, C::kOutColumns,
                    PanelsOf(arguments.loop.in_rank), kMostStages,
                    arguments.shared_bytes)),
        block_(arguments) {}

  __device__ void Run() {
    Begin();
    this->ShareWork([&] { Produce(); }, [&] { Consume(); });
  }

 private:
  __device__ void Begin() {
    this->ClearBiases();
    if (threadIdx.x == 0) {
      PrefetchTensorMap(&block_.p);
      PrefetchTensorMap(&block_.z);
      this->PrefetchMaps();
      BarrierInit(this->OwnBarrier(), 1);
      this->InitRing();
      BarrierInitFence();
    }
    // Zeros by ordinary writes, then copies over them.
    FenceSharedForAsync();
    __syncthreads();
  }

  // Two tiles of weights, which the ring has place for in any case, do not wait
  // for prior kernels.
  __device__ void Produce() {
    this->LoadIn(0);
    if (this->steps_ > 1) this->LoadIn(1);
    WaitForPriorKernels();
    const int panels = this->layout_.panels;
    ArriveExpect(this->OwnBarrier(), panels * Base::kRowPanelBytes);
    for (int panel = 0; panel < panels; ++panel) {
      TensorCopy(this->shared_ + panel * Base::kRowPanelBytes, &block_.p,
                 panel * kPanel, blockIdx.x * kRows, this->OwnBarrier());
    }
    this->LoadOut(0);
#pragma unroll 1
    for (int step = 1; step < this->steps_; ++step) {
      if (step + 1 < this->steps_) this->LoadIn(step + 1);
      this->LoadOut(step);
    }
  }

  __device__ __forceinline__ void Consume() {
    Sums z = {};
    BarrierWait(this->OwnBarrier(), 0);
    this->Multiply(z);
    Store(z);
  }

  // z through shared memory, panel by panel; the copy engine leaves out rows
  // and columns past z's.
  __device__ __forceinline__ void Store(const Sums& z) {
    // Both warpgroups have left p and the ring.
    NamedBarrierWait(Base::kAll, kThreadsThatCompute);
    constexpr int kStagedBytes = kGroupRows * kPanelBytes;  // of a panel
    unsigned char* staged =
        this->shared_ + this->group_ * C::kOutPanels * kStagedBytes;
    this->template StoreSums<kGroupRows>(z, 1 / C::kScale, staged);
    NamedBarrierWait(Base::kGroups + this->group_, kWarpgroup);
    const int first_row = blockIdx.x * kRows + this->group_ * kGroupRows;
    if (threadIdx.x % kWarpgroup != 0 || first_row >= block_.rows) return;
    for (int panel = 0; panel < C::kOutPanels; ++panel) {
      TensorStore(&block_.z, panel * kPanel, first_row,
                  staged + panel * kStagedBytes);
    }
    BulkCommit();
    BulkWaitRead<0>();
  }

  const Arguments& block_;
};

}  // namespace svdserve::cuda::hopper::row_blocks

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_FUSED_FFN_CUH_
