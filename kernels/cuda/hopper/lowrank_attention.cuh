// What both kernels of low-rank attention on Hopper share: heads' queries, keys
// and values from accumulators, and attention of what was built.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_LOWRANK_ATTENTION_CUH_
#define SVDSERVE_KERNELS_CUDA_HOPPER_LOWRANK_ATTENTION_CUH_

#include "kernels/cuda/hopper/attention_loop.cuh"
#include "kernels/cuda/lowrank_projection.cuh"

namespace svdserve::cuda::hopper {

// Of the thread's columns.
template <class C>
__device__ void LoadBias(float2 (&pairs)[C::kValueColumns], const float* bias) {
  if (bias == nullptr) return;
#pragma unroll
  for (int n = 0; n < C::kValueColumns; ++n) {
    pairs[n] =
        *reinterpret_cast<const float2*>(bias + 8 * n + 2 * (LaneOf() % 4));
  }
}
template <class C>
__device__ void AddBias(Sums<C>& sums, const float2 (&pairs)[C::kValueColumns],
                        const float* bias) {
  if (bias == nullptr) return;
#pragma unroll
  for (int n = 0; n < C::kValueColumns; ++n) {
    sums[0][n][0] += pairs[n].x;
    sums[0][n][1] += pairs[n].y;
    sums[0][n][2] += pairs[n].x;
    sums[0][n][3] += pairs[n].y;
  }
}

// The warpgroup's queries, from their sums, meet all keys.
template <class C>
__device__ void AttendRows(const Sums<C>& sums,
                           const LowRankAttentionParams& params,
                           const Place& place, uint32_t keys, uint32_t values,
                           int warpgroup_row, int warp_row) {
  using Shape = typename C::Shape;
  const KeyWindow window = {place.length, KeyWindow::kNoLimit,
                            KeyWindow::kNoLimit};
  const BlockRange blocks = FindBlocks(window, warpgroup_row, warp_row);
  QueryRegisters<Shape> queries;
  RoundQueries<C>(queries, sums);
  AttentionState<Shape> state;
  ClearState<Shape>(state);
  AttendBlocks<Shape>(
      state, RegisterQueries<Shape>{queries}, window, blocks, warp_row,
      params.scale * kLog2E,
      [&](int block) -> BlockTiles {
        return {keys + block * Shape::kKeyBytes,
                values + block * Shape::kValueBytes};
      },
      [] {});
  FinishRows<Shape>(state);
  WriteRows<Shape>(
      state,
      static_cast<typename C::Element*>(params.out) + place.head * C::kHeadDim,
      params.out_stride, C::kHeadDim, place.first_row + warp_row,
      place.first_row + place.length, LaneOf());
}

template <class C>
__device__ Place FindPlace(const LowRankAttentionParams& params) {
  const int first = Uniform(params.cu_seqlens[blockIdx.y]);
  const int length = Uniform(params.cu_seqlens[blockIdx.y + 1]) - first;
  return {static_cast<int>(blockIdx.x), first - params.first_row, length,
          (length + C::kBlockRows - 1) / C::kBlockRows};
}

}  // namespace svdserve::cuda::hopper

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_LOWRANK_ATTENTION_CUH_
