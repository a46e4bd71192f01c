// Kernels whose blocks own rows: of three warpgroups one thread of the last
// copies, through a ring of stages in shared memory, and the others compute.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_RING_CUH_
#define SVDSERVE_KERNELS_CUDA_HOPPER_RING_CUH_

#include <cstdint>

#include "kernels/cuda/hopper/instructions.cuh"
#include "kernels/cuda/hopper/wgmma.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/types.h"

namespace svdserve::cuda::hopper::row_blocks {

constexpr int kWarp = 32;
constexpr int kWarpgroup = 128;
constexpr int kConsumers = 2;   // warpgroups that compute
constexpr int kGroupRows = 64;  // of a wgmma
constexpr int kThreads = (kConsumers + 1) * kWarpgroup;
constexpr int kThreadsThatCompute = kConsumers * kWarpgroup;
constexpr int kPanel = 64;  // columns of 128 bytes, a swizzle's width
constexpr int kPanelBytes = kPanel * kElementBytes;  // of a row
constexpr int kMostStages = 8;

// The registers of 168 for each of 384 threads, shared out.
constexpr int kConsumerRegisters = 240;
constexpr int kProducerRegisters = 24;

__host__ __device__ constexpr int PanelsOf(int columns) {
  return (columns + kPanel - 1) / kPanel;
}

// Where the ring is in shared memory, in bytes from a multiple of 1024.
struct RingLayout {
  // A multiple of 16: what comes next is aligned.
  static constexpr int kBarrierBytes = (2 + 2 * kMostStages) * 8;

  int ring = 0;
  int stage_bytes = 0;
  int stages = 0;
  int barriers = 0;  // the kernel's own, then [kMostStages] full and empty
};

// A place in the ring, and the parity of its barrier's phase.
class Place {
 public:
  __device__ explicit Place(int stages) : stages_(stages) {}
  __device__ int stage() const { return stage_; }
  __device__ uint32_t parity() const { return parity_; }
  __device__ void Advance() {
    if (++stage_ < stages_) return;
    stage_ = 0;
    parity_ ^= 1;
  }

 private:
  const int stages_;
  int stage_ = 0;
  uint32_t parity_ = 0;
};

// A thread's view of it; kernels derive from it.
class Ring {
 protected:
  __device__ explicit Ring(const RingLayout& layout)
      : ring_(layout),
        shared_(SwizzledSharedMemory()),
        group_(__shfl_sync(~0u, threadIdx.x / kWarpgroup, 0)),
        place_(layout.stages) {}

  // By one thread.
  __device__ void InitRing() {
    for (int stage = 0; stage < ring_.stages; ++stage) {
      BarrierInit(Full(stage), 1);
      BarrierInit(Empty(stage), kThreadsThatCompute / kWarp);
    }
  }
  // `produce` by the thread that copies, one of the last warpgroup, which waits
  // for prior kernels itself; `consume` by the warpgroups that compute.
  template <typename Produce, typename Consume>
  __device__ __forceinline__ void ShareWork(const Produce& produce,
                                            const Consume& consume) const {
    if (group_ == kConsumers) {
      ReturnRegisters<kProducerRegisters>();
      if (threadIdx.x / kWarp == kThreadsThatCompute / kWarp && ElectOne()) {
        produce();
      } else {
        WaitForPriorKernels();
      }
    } else {
      TakeRegisters<kConsumerRegisters>();
      WaitForPriorKernels();
      LetNextKernelStart();
      consume();
    }
  }
  // Waits until the place is free; `bytes` will come.
  __device__ uint64_t* Claim(int bytes) {
    BarrierWait(Empty(place_.stage()), place_.parity() ^ 1);
    ArriveExpect(Full(place_.stage()), bytes);
    return Full(place_.stage());
  }

  // Products of the next tiles, each issued by issue(panel, tile): a tile is
  // released when those of the one after it are under way.
  template <typename Issue>
  __device__ __forceinline__ void MultiplyPanels(int panels,
                                                 const Issue& issue) {
    int read_stage = 0;
#pragma unroll 1
    for (int panel = 0; panel < panels; ++panel) {
      const unsigned char* const tile = Await();
      WgmmaFence();
      issue(panel, tile);
      WgmmaCommit();
      WgmmaWait<1>();
      if (panel > 0) Release(read_stage);
      read_stage = Advance();
    }
    WgmmaWait<0>();
    Release(read_stage);
  }

  // Waits for the next tile.
  __device__ unsigned char* Await() const {
    BarrierWait(Full(place_.stage()), place_.parity());
    return Stage(place_);
  }
  // On to the next; returns the stage, to be released.
  __device__ int Advance() {
    const int stage = place_.stage();
    place_.Advance();
    return stage;
  }
  // This warp is done with the stage.
  __device__ void Release(int stage) const {
    if (Lane() == 0) Arrive(Empty(stage));
  }

  // Named barriers.
  static constexpr int kAll = 1;
  static constexpr int kGroups = 2;  // and 3
  static constexpr int kTurns = 4;   // and 5

  __device__ static int Lane() { return threadIdx.x % kWarp; }
  __device__ unsigned char* Stage(const Place& place) const {
    return shared_ + ring_.ring + place.stage() * ring_.stage_bytes;
  }
  // The kernel's own.
  __device__ uint64_t* OwnBarrier() const {
    return reinterpret_cast<uint64_t*>(shared_ + ring_.barriers);
  }
  __device__ uint64_t* Full(int stage) const {
    return OwnBarrier() + 1 + stage;
  }
  __device__ uint64_t* Empty(int stage) const {
    return Full(kMostStages + stage);
  }

  const RingLayout ring_;
  unsigned char* const shared_;
  const int group_;  // warpgroup
  Place place_;
};

// A warpgroup's fp32 sums of 64 rows, rounded to shared memory, as panels of
// kPanelRows rows: a wgmma's left operand, or what is stored. From column
// `first` of the panels on, a multiple of 16.
template <typename T, int kPanelRows, int kColumns>
__device__ __forceinline__ void StoreRounded(const float (&sums)[kColumns / 2],
                                             int first, float scale,
                                             unsigned char* panels) {
  const int lane = threadIdx.x % kWarp;
  const int row = threadIdx.x % kWarpgroup / kWarp * 16 + lane % 16;
#pragma unroll
  for (int n = 0; n < kColumns / 16; ++n) {
    const float* q = &sums[n * 8];
    const int column = first + n * 16;
    const int chunk = column % kPanel / 8 + lane / 16;
    StoreMatrix4(panels + column / kPanel * kPanelRows * kPanelBytes +
                     row * kPanelBytes + ((chunk ^ (row % 8)) << 4),
                 Pack<T>(q[0] * scale, q[1] * scale),
                 Pack<T>(q[2] * scale, q[3] * scale),
                 Pack<T>(q[4] * scale, q[5] * scale),
                 Pack<T>(q[6] * scale, q[7] * scale));
  }
}

}  // namespace svdserve::cuda::hopper::row_blocks

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_RING_CUH_
