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
  Divisor tiles;     // of a head of the longest sequence
  Divisor heads;     // of queries
  Divisor kv_group;  // heads of queries for one of keys
  // Causal: heads of sequences come in groups.
  Divisor group_items;
  Divisor group;
  Divisor last_group;
  int groups;
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

// Tiles in order: a head's together; where attention is causal, of a group of
// as many heads as blocks run at once those that see the most keys first, so
// that blocks end together and a head's keys are still in L2 for its next tile.
// kRows queries are a tile.
template <int kRows>
__device__ Work FindWork(const AttentionArguments& arguments, int item) {
  const AttentionParams& params = arguments.params;
  int tile;
  if (params.causal) {
    int place = arguments.group_items.Divide(item);  // in group `item`
    const Divisor heads =
        item + 1 < arguments.groups ? arguments.group : arguments.last_group;
    item = item * arguments.group.value + heads.Divide(place);
    tile = arguments.tiles.value - 1 - place;
  } else {
    tile = arguments.tiles.Divide(item);
  }
  Work work;
  work.head = arguments.heads.Divide(item);
  const int sequence = item;
  const int start = params.cu_seqlens[sequence];
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
