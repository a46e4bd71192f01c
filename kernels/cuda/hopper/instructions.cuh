// Thin wrappers of Hopper's instructions but for wgmma (wgmma.cuh): barriers in
// shared memory, bulk and tensor copies, registers. What cuda::ptx has comes
// from there.
//
// Pointers to shared memory are generic ones. Lifecycle of a copy:
//
//   if (threadIdx.x == 0) BarrierInit(barrier, 1), BarrierInitFence();
//   __syncthreads();
//   if (producer && ElectOne()) {
//     ArriveExpect(barrier, bytes);                     // then its copies
//     TensorCopy(tile, &map, column, row, barrier);
//   }
//   BarrierWait(barrier, parity);                       // consumers
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_INSTRUCTIONS_CUH_
#define SVDSERVE_KERNELS_CUDA_HOPPER_INSTRUCTIONS_CUH_

#include <cuda.h>

#include <cstdint>
#include <cuda/ptx>

#include "kernels/cuda/ptx.cuh"

namespace svdserve::cuda::hopper {

namespace ptx = ::cuda::ptx;

// A block's dynamic shared memory, aligned as swizzled tiles must be.
__device__ inline unsigned char* SwizzledSharedMemory() {
  extern __shared__ __align__(1024) unsigned char svdserve_swizzled_shared[];
  return svdserve_swizzled_shared;
}

// ---- Barriers in shared memory (mbarrier) ----

__device__ inline void BarrierInit(uint64_t* barrier, uint32_t arrivals) {
  ptx::mbarrier_init(barrier, arrivals);
}
// After the last BarrierInit() of a block, before its __syncthreads().
__device__ inline void BarrierInitFence() {
  ptx::fence_mbarrier_init(ptx::sem_release, ptx::scope_cluster);
}
__device__ inline void Arrive(uint64_t* barrier) {
  ptx::mbarrier_arrive(barrier);
}
// Arrives, and copies of so many bytes are to complete the phase.
__device__ inline void ArriveExpect(uint64_t* barrier, uint32_t bytes) {
  ptx::mbarrier_arrive_expect_tx(ptx::sem_release, ptx::scope_cta,
                                 ptx::space_shared, barrier, bytes);
}
// Waits until the phase of this parity is complete; at the beginning that of
// parity 1 counts as complete.
__device__ inline void BarrierWait(uint64_t* barrier, uint32_t parity) {
  while (!ptx::mbarrier_try_wait_parity(barrier, parity)) {
  }
}

// ---- Copies by the copy engine; one thread issues one ----

// Of `bytes`, a multiple of 16, both 16-byte aligned.
__device__ inline void BulkCopy(void* shared, const void* global,
                                uint32_t bytes, uint64_t* barrier) {
  ptx::cp_async_bulk(ptx::space_cluster, ptx::space_global, shared, global,
                     bytes, barrier);
}
// The box of a matrix's map (tensor_map.h) whose first element is at (row,
// column); what lies outside the matrix arrives as zeros, and counts as bytes.
__device__ inline void TensorCopy(void* shared, const CUtensorMap* map,
                                  int column, int row, uint64_t* barrier) {
  const int32_t at[2] = {column, row};
  ptx::cp_async_bulk_tensor(ptx::space_cluster, ptx::space_global, shared, map,
                            at, barrier);
}
// The same of one head of a map of heads.
__device__ inline void TensorCopy(void* shared, const CUtensorMap* map,
                                  int column, int head, int row,
                                  uint64_t* barrier) {
  const int32_t at[3] = {column, head, row};
  ptx::cp_async_bulk_tensor(ptx::space_cluster, ptx::space_global, shared, map,
                            at, barrier);
}
__device__ inline void PrefetchTensorMap(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// To global memory: FenceSharedForAsync() of the writing threads and a barrier
// come before, BulkCommit() after, BulkWaitRead() before the shared memory is
// written again or the block ends.
// What lies outside the matrix is not written.
__device__ inline void TensorStore(const CUtensorMap* map, int column, int row,
                                   const void* shared) {
  const int32_t at[2] = {column, row};
  ptx::cp_async_bulk_tensor(ptx::space_global, ptx::space_shared, map, at,
                            shared);
}
__device__ inline void BulkCommit() { ptx::cp_async_bulk_commit_group(); }
// Until at most kPending of the thread's committed groups still read.
template <int kPending>
__device__ void BulkWaitRead() {
  ptx::cp_async_bulk_wait_group_read(ptx::n32_t<kPending>());
}

// What this thread wrote to shared memory is seen by wgmma and bulk stores of
// threads that pass a barrier with it afterwards.
__device__ inline void FenceSharedForAsync() {
  ptx::fence_proxy_async(ptx::space_shared);
}

// ---- Clusters ----

__device__ inline int RankInCluster() {
  return static_cast<int>(ptx::get_sreg_cluster_ctarank());
}
// Waits for all threads of all blocks; what they wrote before is seen. Each
// half is called by whole warps.
__device__ inline void ClusterArrive() {
  ptx::barrier_cluster_arrive(ptx::sem_release);
}
__device__ inline void ClusterWait() {
  ptx::barrier_cluster_wait(ptx::sem_acquire);
}
__device__ inline void ClusterSync() {
  ClusterArrive();
  ClusterWait();
}
// Where a block's shared memory has what this one's has at `shared`.
__device__ inline uint32_t AddressInCluster(const void* shared, int rank) {
  uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;"
      : "=r"(address)
      : "r"(SharedAddress(shared)), "r"(rank));
  return address;
}
// Writes to a block of the cluster in the background; its barrier counts the
// bytes as those of a copy.
__device__ inline void SendAsync(uint32_t to, float2 v, uint32_t barrier) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], "
      "{%1, %2}, [%3];" ::"r"(to),
      "f"(v.x), "f"(v.y), "r"(barrier)
      : "memory");
}
__device__ inline void SendAsync(uint32_t to, float v, uint32_t barrier) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, "
      "[%2];" ::"r"(to),
      "f"(v), "r"(barrier)
      : "memory");
}
__device__ inline void SendAsync(uint32_t to, uint4 v, uint32_t barrier) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], "
      "{%1, %2, %3, %4}, [%5];" ::"r"(to),
      "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w), "r"(barrier)
      : "memory");
}
// BarrierWait() for what other blocks sent.
__device__ inline void BarrierWaitInCluster(uint64_t* barrier,
                                            uint32_t parity) {
  while (!ptx::mbarrier_try_wait_parity(ptx::sem_acquire, ptx::scope_cluster,
                                        barrier, parity)) {
  }
}

// ---- Threads ----

// True in one thread of the warp.
__device__ inline bool ElectOne() {
  uint32_t elected;
  asm volatile(
      "{\n.reg .pred p;\n"
      "elect.sync _|p, 0xffffffff;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(elected));
  return elected != 0;
}

// Barrier `id`, 1 to 15 (0 is __syncthreads()), of so many threads: whole
// warps, each of which waits or only arrives.
__device__ inline void NamedBarrierWait(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void NamedBarrierArrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Registers a thread, a multiple of 8; all warps of a warpgroup call it. The
// kernel needs __launch_bounds__(threads, 1).
template <int kRegisters>
__device__ void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ void ReturnRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// ---- Fragments ----

// The reverse of LoadMatrix4(): four 8x8 matrices, from registers laid out as
// there; thread 8i+j gives the address of row j of matrix i.
__device__ inline void StoreMatrix4(void* shared_row, uint32_t r0, uint32_t r1,
                                    uint32_t r2, uint32_t r3) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(
          SharedAddress(shared_row)),
      "r"(r0), "r"(r1), "r"(r2), "r"(r3)
      : "memory");
}

}  // namespace svdserve::cuda::hopper

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_INSTRUCTIONS_CUH_
