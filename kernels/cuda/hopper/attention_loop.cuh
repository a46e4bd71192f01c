// The loop of kernels/cuda/attention_loop.cuh by wgmma: a warpgroup's 64
// queries meet one block of keys. Each warp has 16 of the rows, in the same
// registers as there, so that softmax, masks and results are that file's, and
// the bits too.
//
// Tiles of keys and values lie in panels of 64 columns (of 32 if there are no
// more), as SharedTile<64> (<32>): the layouts that wgmma's descriptors call
// swizzled by 128 (64) bytes.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_ATTENTION_LOOP_CUH_
#define SVDSERVE_KERNELS_CUDA_HOPPER_ATTENTION_LOOP_CUH_

#include "kernels/cuda/attention_loop.cuh"
#include "kernels/cuda/hopper/instructions.cuh"
#include "kernels/cuda/hopper/wgmma.cuh"

namespace svdserve::cuda::hopper {

inline constexpr int kWarpgroupThreads = 128;
inline constexpr int kWarpgroupRows = 64;

// Places that are filled and emptied in turn, and the parity of their barriers:
// of a filling, and, flipped, of the emptying before it.
template <int kCount>
struct Ring {
  int index = 0;
  uint32_t parity = 0;

  __device__ void Next() {
    if (++index == kCount) {
      index = 0;
      parity ^= 1;
    }
  }
};

// A value that is the same in all threads of a warp, so that the compiler knows
// it: descriptors then cost no vector registers and hardly an instruction.
__device__ inline int Uniform(int value) {
  return __shfl_sync(0xffffffffu, value, 0);
}
__device__ inline int WarpgroupOf() {
  return Uniform(threadIdx.x / kWarpgroupThreads);
}

// Tiles of kColumns columns, a multiple of 32.
template <int kColumns>
struct PanelTile {
  static_assert(kColumns % 32 == 0);
  static constexpr int kPanelColumns = kColumns == 32 ? 32 : 64;
  static constexpr int kPanels = (kColumns + kPanelColumns - 1) / kPanelColumns;
  static constexpr int kRowBytes = kPanelColumns * kElementBytes;
  // Of 64 rows.
  static constexpr int kPanelBytes = 64 * kRowBytes;
  static constexpr int kTileBytes = kPanels * kPanelBytes;

  // K-major: rows of a tile that has kRows, columns being k from step·16 on.
  template <int kRows>
  __device__ static uint64_t Operand(uint32_t tile, int step) {
    constexpr int kStepsOfPanel = kPanelColumns / 16;
    return Moved(tile, step / kStepsOfPanel * kRows * kRowBytes +
                           step % kStepsOfPanel * 32);
  }
  // Rows of a tile that has kRows being k from step·16 on: for products with
  // kTransposed. From panel to panel is the descriptor's leading offset.
  template <int kRows>
  __device__ static uint64_t TransposedOperand(uint32_t tile, int step) {
    constexpr uint64_t kLeading = kRows * kRowBytes >> 4;
    return Moved(tile, step * 16 * kRowBytes) + ((kLeading - 1) << 16);
  }

 private:
  // The descriptor's low half holds the address alone, in 16 bytes, which so
  // many bytes are added to.
  __device__ static uint64_t Moved(uint32_t address, int bytes) {
    const uint64_t descriptor =
        kPanelColumns == 64 ? Descriptor128(address) : Descriptor64(address);
    return descriptor + (bytes >> 4);
  }
};

// As one thread's registers of a product.
template <int kColumns>
__device__ float (&Flat(float (&sums)[kColumns][4]))[4 * kColumns] {
  return reinterpret_cast<float(&)[4 * kColumns]>(sums);
}

// Sums are read after the wait that stands before this, not earlier.
template <int kCount>
__device__ void KeepAfterWait(float (&sums)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

// A warpgroup's queries in shared memory: kRows rows of a tile whose panels
// have kTileRows. `tile` is the address of the first of its rows.
template <class S, int kTileRows>
struct SharedQueries {
  uint32_t tile;

  __device__ void Multiply(float (&scores)[4 * S::kKeyColumns], int step,
                           uint64_t keys) const {
    Wgmma<typename S::Element>(
        scores, PanelTile<S::kQkDim>::template Operand<kTileRows>(tile, step),
        keys, step != 0);
  }
};

// In registers, as QueryRegisters<S>.
template <class S>
struct RegisterQueries {
  const QueryRegisters<S>& queries;

  __device__ void Multiply(float (&scores)[4 * S::kKeyColumns], int step,
                           uint64_t keys) const {
    Wgmma<typename S::Element>(scores, queries.fragments[0][step], keys,
                               step != 0);
  }
};

// Starts scores = queries·keysᵀ, dimensions ascending.
template <class S, class Queries>
__device__ void StartScores(BlockScores<S>& scores, const Queries& queries,
                            uint32_t keys) {
#pragma unroll
  for (int step = 0; step < S::kQkSteps; ++step) {
    queries.Multiply(
        Flat(scores[0]), step,
        PanelTile<S::kQkDim>::template Operand<kAttentionKeys>(keys, step));
  }
  WgmmaCommit();
}

// Starts out += weights·values, keys ascending.
template <class S>
__device__ void StartValues(AttentionState<S>& state,
                            const BlockWeights<S>& weights, uint32_t values) {
#pragma unroll
  for (int step = 0; step < S::kKeySteps; ++step) {
    Wgmma<typename S::Element, true>(
        Flat(state.out[0]), weights[0][step],
        PanelTile<S::kVDim>::template TransposedOperand<kAttentionKeys>(values,
                                                                        step),
        true);
  }
  WgmmaCommit();
}

// The blocks of keys that a warpgroup's rows see, [begin, end), and those of
// which all rows of the warp see every key, [full_begin, full_end).
struct BlockRange {
  int begin;
  int end;
  int full_begin;
  int full_end;
};

// Rows from first_row on.
__device__ inline BlockRange FindBlocks(const KeyWindow& window,
                                        int warpgroup_row, int warp_row) {
  const int last_row = warpgroup_row + kWarpgroupRows - 1;
  const int warp_last_row = warp_row + kWarpgroupRows / 4 - 1;
  const auto round_up = [](int keys) {
    return (keys + kAttentionKeys - 1) / kAttentionKeys;
  };
  return {window.First(warpgroup_row) / kAttentionKeys,
          round_up(window.End(last_row)), round_up(window.First(warp_last_row)),
          window.End(warp_row) / kAttentionKeys};
}

// Where a block's keys and values lie.
struct BlockTiles {
  uint32_t keys;
  uint32_t values;
};

// What a warp, whose rows are from warp_row on, sees of a block.
template <class S>
__device__ void MaskUnseen(BlockScores<S>& scores, const KeyWindow& window,
                           const BlockRange& blocks, int block, int warp_row) {
  if (block >= blocks.full_begin && block < blocks.full_end) return;
  const int first_key = block * kAttentionKeys;
  const BlockView view = {warp_row - first_key, window.length - first_key,
                          window.left, window.right};
  MaskBlock<S>(scores, view, threadIdx.x % 32);
}

// The first block's scores; returns where it lies.
template <class S, class Queries, class Take>
__device__ BlockTiles ScoreFirst(BlockScores<S>& scores, const Queries& queries,
                                 int block, const Take& take) {
  const BlockTiles tiles = take(block);
  WgmmaFence();
  StartScores<S>(scores, queries, tiles.keys);
  WgmmaWait<0>();
  KeepAfterWait(Flat(scores[0]));
  return tiles;
}

// The last block's output.
template <class S, class Release>
__device__ void AddLast(AttentionState<S>& state,
                        const BlockWeights<S>& weights, const BlockTiles& tiles,
                        const Release& release) {
  WgmmaFence();
  StartValues<S>(state, weights, tiles.values);
  WgmmaWait<0>();
  KeepAfterWait(Flat(state.out[0]));
  release();
}

// All blocks that a warpgroup's rows see, by all of its warps, which have 16
// rows each, this one from warp_row on. take(block) waits for a block and
// returns its tiles; release() is called when the oldest block was read. A
// block's scores are computed together with the last one's output.
template <class S, class Queries, class Take, class Release>
__device__ void AttendBlocks(AttentionState<S>& state, const Queries& queries,
                             const KeyWindow& window, const BlockRange& blocks,
                             int warp_row, float scale_log2, const Take& take,
                             const Release& release) {
  static_assert(S::kRowTiles == 1);
  BlockScores<S> scores;
  BlockWeights<S> weights;
  BlockTiles tiles = ScoreFirst<S>(scores, queries, blocks.begin, take);
#pragma unroll 1
  for (int block = blocks.begin;;) {
    MaskUnseen<S>(scores, window, blocks, block, warp_row);
    SoftmaxBlock<S>(weights, scores, state, scale_log2);
    if (++block >= blocks.end) break;
    const BlockTiles next = take(block);
    WgmmaFence();
    StartScores<S>(scores, queries, next.keys);
    StartValues<S>(state, weights, tiles.values);
    WgmmaWait<0>();
    KeepAfterWait(Flat(scores[0]));
    KeepAfterWait(Flat(state.out[0]));
    release();
    tiles = next;
  }
  AddLast<S>(state, weights, tiles, release);
}

// The end of SoftmaxBlock(), where WeighBlock() was called before: references
// are moved, and weights computed anew, unless weights and shifts are `small`.
template <class S>
__device__ void FinishSoftmax(BlockWeights<S>& weights, BlockSums<S>& sums,
                              const BlockScores<S>& scores,
                              AttentionState<S>& state, float scale_log2,
                              bool small) {
  if (!AllInWarp(small)) {
    MoveReferences<S>(state, scores, scale_log2);
    WeighBlock<S>(weights, sums, scores, state, scale_log2);
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) state.sum[0][h] += sums[0][h];
}

// AttendBlocks(), but a block's output is computed while the next one's weights
// are, which takes registers for the weights of both (FlashAttention-3, arXiv
// 2407.08608, section 3.2).
template <class S, class Queries, class Take, class Release>
__device__ void AttendBlocksOverlapped(AttentionState<S>& state,
                                       const Queries& queries,
                                       const KeyWindow& window,
                                       const BlockRange& blocks, int warp_row,
                                       float scale_log2, const Take& take,
                                       const Release& release) {
  static_assert(S::kRowTiles == 1);
  BlockScores<S> scores;
  BlockWeights<S> even, odd;
  int block = blocks.begin;
  BlockTiles tiles = ScoreFirst<S>(scores, queries, block, take);
  MaskUnseen<S>(scores, window, blocks, block, warp_row);
  SoftmaxBlock<S>(even, scores, state, scale_log2);
  const auto step = [&](const BlockWeights<S>& last, BlockWeights<S>& weights) {
    const BlockTiles next = take(block);
    WgmmaFence();
    StartScores<S>(scores, queries, next.keys);
    StartValues<S>(state, last, tiles.values);
    WgmmaWait<1>();
    KeepAfterWait(Flat(scores[0]));
    MaskUnseen<S>(scores, window, blocks, block, warp_row);
    BlockSums<S> sums;
    bool small = WeighBlock<S>(weights, sums, scores, state, scale_log2);
    small = small && ShiftsAreSmall<S>(state, scale_log2);
    WgmmaWait<0>();
    KeepAfterWait(Flat(state.out[0]));
    release();
    FinishSoftmax<S>(weights, sums, scores, state, scale_log2, small);
    tiles = next;
  };
  // In turns: products read the one while the other is written.
#pragma unroll 1
  for (;;) {
    if (++block >= blocks.end) {
      AddLast<S>(state, even, tiles, release);
      return;
    }
    step(even, odd);
    if (++block >= blocks.end) {
      AddLast<S>(state, odd, tiles, release);
      return;
    }
    step(odd, even);
  }
}

}  // namespace svdserve::cuda::hopper

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_ATTENTION_LOOP_CUH_
