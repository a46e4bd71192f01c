// What the blocks of threads of attention.cu work on: tiles of queries, by
// number.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_ATTENTION_WORK_CUH_
#define SVDSERVE_KERNELS_CUDA_HOPPER_ATTENTION_WORK_CUH_

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/attention_loop.cuh"

namespace svdserve::cuda::hopper {

// Division of a number below 2^31 by one that is known before the launch:
// Granlund and Montgomery, Division by invariant integers using multiplication
// (1994).
struct Divisor {
  explicit Divisor(int divisor) : value(divisor) {
    while ((int64_t{1} << shift) < divisor) ++shift;
    const uint64_t power = uint64_t{1} << (31 + shift);
    multiplier = static_cast<uint32_t>((power + divisor - 1) / divisor);
  }
  __device__ int Quotient(int n) const {
    return value == 1 ? n : __umulhi(n, multiplier) >> (shift - 1);
  }
  // n becomes the quotient; returns the remainder.
  __device__ int Divide(int& n) const {
    const int dividend = n;
    n = Quotient(n);
    return dividend - n * value;
  }

  int value;
  int shift = 0;
  uint32_t multiplier;
};

struct AttentionArguments {
  CUtensorMap queries;
  CUtensorMap keys;
  CUtensorMap values;
  AttentionParams params;
  int items;
  // What an item is divided by: of causal attention heads, then sequences, else
  // a head's tiles, then heads.
  Divisor first;
  Divisor second;
  int tiles;         // of the longest sequence
  Divisor kv_group;  // heads of queries for one of keys
};

// A tile of queries and the blocks of keys that it sees; empty if the tile is
// beyond the sequence's end.
struct Work {
  int head;
  int first_row;  // of the sequence
  int length;
  int tile_row;
  int first_block;
  int end_block;

  __device__ bool IsEmpty() const { return tile_row >= length; }
};

// Tiles in order: where attention is causal those that see the most keys first,
// else a head's together. kRows queries are a tile.
template <int kRows>
__device__ Work FindWork(const AttentionArguments& arguments, int item) {
  const AttentionParams& params = arguments.params;
  const int first = arguments.first.Divide(item);
  const int second = arguments.second.Divide(item);
  const int sequence = params.causal ? second : item;
  const int tile = params.causal ? arguments.tiles - 1 - item : first;
  const int start = params.cu_seqlens[sequence];
  Work work;
  work.head = params.causal ? first : second;
  work.first_row = start - params.first_row;
  work.length = params.cu_seqlens[sequence + 1] - start;
  work.tile_row = tile * kRows;
  const KeyWindow window = {work.length, params.window_left,
                            params.window_right};
  work.first_block = window.First(work.tile_row) / kAttentionKeys;
  const int end = window.End(work.tile_row + kRows - 1);
  work.end_block = (end + kAttentionKeys - 1) / kAttentionKeys;
  return work;
}

}  // namespace svdserve::cuda::hopper

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_ATTENTION_WORK_CUH_
