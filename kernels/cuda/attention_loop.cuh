// What Attention() and LowRankAttention() share, so that their bits agree: a
// warp's queries meet one block of keys that lies in shared memory.
//
// A row's bits do not depend on the number of rows that its warp or its block
// of threads has, nor on blocks of keys that it does not see: such a block
// leaves its reference, its sum and its output as they were.
#ifndef SVDSERVE_KERNELS_CUDA_ATTENTION_LOOP_CUH_
#define SVDSERVE_KERNELS_CUDA_ATTENTION_LOOP_CUH_

#include <math.h>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/shared_tile.cuh"

namespace svdserve::cuda {

inline constexpr float kLog2E = 1.4426950408889634f;

// What a warp works on: kRowTiles tiles of 16 queries. Narrower heads are
// padded with zeros, which changes no sum.
template <typename T, int kQk, int kV, int kTiles>
struct AttentionShape {
  using Element = T;
  static constexpr int kQkDim = kQk;
  static constexpr int kVDim = kV;
  static constexpr int kRowTiles = kTiles;
  static constexpr int kRows = 16 * kTiles;
  static constexpr int kQkSteps = kQk / 16;
  static constexpr int kKeySteps = kAttentionKeys / 16;
  static constexpr int kKeyColumns = kAttentionKeys / 8;  // of 8 keys
  static constexpr int kValueColumns = kV / 8;            // of 8 dimensions
  static constexpr int kKeyBytes = kAttentionKeys * SharedTile<kQk>::kRowBytes;
  static constexpr int kValueBytes = kAttentionKeys * SharedTile<kV>::kRowBytes;
};

// Which keys of its sequence a query sees: [First(row), End(row)).
struct KeyWindow {
  static constexpr int kNoLimit = 1 << 30;

  int length;
  int left;
  int right;

  __device__ int First(int row) const { return row > left ? row - left : 0; }
  __device__ int End(int row) const {
    const int end = row + right + 1;
    return end < length ? end : length;
  }
};

// A warp's queries as the loop reads them: kept in registers ...
template <class S>
struct QueryRegisters {
  uint32_t fragments[S::kRowTiles][S::kQkSteps][4];

  __device__ void Load(uint32_t (&a)[4], int tile, int step) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = fragments[tile][step][i];
  }
};

// ... or, where registers are short, read from shared memory at each block.
template <class S>
struct QueryTile {
  PieceReader<S::kQkDim, Piece::kA> reader;

  __device__ void Load(uint32_t (&a)[4], int tile, int step) const {
    reader.Load(a, tile, step);
  }
};

// The running softmax of a warp's rows. Thread t has rows t / 4 and t / 4 + 8
// of each tile; `sum` is over the thread's own columns until FinishRows().
template <class S>
struct AttentionState {
  float out[S::kRowTiles][S::kValueColumns][4];
  float reference[S::kRowTiles][2];
  float sum[S::kRowTiles][2];
};

template <class S>
__device__ void ClearState(AttentionState<S>& state) {
#pragma unroll
  for (int m = 0; m < S::kRowTiles; ++m) {
#pragma unroll
    for (int n = 0; n < S::kValueColumns; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) state.out[m][n][i] = 0;
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      state.reference[m][h] = -INFINITY;
      state.sum[m][h] = 0;
    }
  }
}

template <class S>
using BlockScores = float[S::kRowTiles][S::kKeyColumns][4];

// scores = queries·keysᵀ, dimensions ascending.
template <class S, class Queries>
__device__ void ScoreBlock(BlockScores<S>& scores, const Queries& queries,
                           const unsigned char* keys, int lane) {
  const PieceReader<S::kQkDim, Piece::kB> reader(keys, lane);
#pragma unroll
  for (int m = 0; m < S::kRowTiles; ++m) {
#pragma unroll
    for (int n = 0; n < S::kKeyColumns; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[m][n][i] = 0;
    }
  }
#pragma unroll
  for (int step = 0; step < S::kQkSteps; ++step) {
    uint32_t a[S::kRowTiles][4];
#pragma unroll
    for (int m = 0; m < S::kRowTiles; ++m) queries.Load(a[m], m, step);
#pragma unroll
    for (int n = 0; n < S::kKeyColumns; n += 2) {
      uint32_t b[4];
      reader.Load(b, n / 2, step);
#pragma unroll
      for (int m = 0; m < S::kRowTiles; ++m) {
        Mma<typename S::Element>(scores[m][n], a[m], b[0], b[1]);
        Mma<typename S::Element>(scores[m][n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// What of a block a warp sees, counted from the block's first key: it is
// computed anew at each block, where hoisted bounds would cost registers.
struct BlockView {
  int row;   // the warp's first query
  int keys;  // how many the sequence has left
  int left;
  int right;

  template <class S>
  __device__ bool SeesNone() const {
    return row + S::kRows + right <= 0 || row - left >= kAttentionKeys;
  }
  template <class S>
  __device__ bool SeesAll() const {
    return row + right + 1 >= kAttentionKeys && keys >= kAttentionKeys &&
           row + S::kRows - 1 <= left;
  }
};

template <class S>
__device__ void MaskBlock(BlockScores<S>& scores, const BlockView& view,
                          int lane) {
  const int first_column = 2 * (lane % 4);
  const int keys = view.keys - first_column;
#pragma unroll
  for (int m = 0; m < S::kRowTiles; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = view.row + 16 * m + 8 * h + lane / 4 - first_column;
      const int first = row - view.left;
      const int end = min(row + view.right + 1, keys);
#pragma unroll
      for (int n = 0; n < S::kKeyColumns; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int key = 8 * n + i;
          if (key < first || key >= end) scores[m][n][2 * h + i] = -INFINITY;
        }
      }
    }
  }
}

// A fragment of weights for each step of 16 keys.
template <class S>
using BlockWeights = uint32_t[S::kRowTiles][S::kKeySteps][4];

// A row's reference, which exponents are counted from, follows its maximum only
// when that is ahead by more than so many powers of two: weights stay below
// 2^8, and rescaling what the row had so far is rare.
inline constexpr float kReferenceLag = 8;

// Where a thread's weights of a block sum up to no more than this, none is near
// 2^kReferenceLag, and no maximum need be taken. The shift of exponents must
// not be so large that its rounding shows.
inline constexpr float kSumWithoutMaximum = 128;
inline constexpr float kShiftWithoutMaximum = 1 << 20;

// Moves the rows' references to where this block's scores need them, and
// scales what the rows had so far. Each row decides by its own scores; that
// another row of the warp moves multiplies it by 1.
template <class S>
__device__ void MoveReferences(AttentionState<S>& state,
                               const BlockScores<S>& scores, float scale_log2) {
  float rescale[S::kRowTiles][2];
  bool all_stay = true;
#pragma unroll
  for (int m = 0; m < S::kRowTiles; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float max = -INFINITY;
#pragma unroll
      for (int n = 0; n < S::kKeyColumns; ++n) {
        max = fmaxf(max, scores[m][n][2 * h]);
        max = fmaxf(max, scores[m][n][2 * h + 1]);
      }
      max = fmaxf(max, ShuffleXor(max, 1));
      max = fmaxf(max, ShuffleXor(max, 2));
      // A row that has seen no key yet has -inf, and a reference to move.
      float& reference = state.reference[m][h];
      const bool stays =
          (max - reference) * scale_log2 <= kReferenceLag || max == -INFINITY;
      all_stay = all_stay && stays;
      rescale[m][h] = stays ? 1 : Exp2((reference - max) * scale_log2);
      reference = stays ? reference : max;
    }
  }
  if (AllInWarp(all_stay)) return;
#pragma unroll
  for (int m = 0; m < S::kRowTiles; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int n = 0; n < S::kValueColumns; ++n) {
        state.out[m][n][2 * h] *= rescale[m][h];
        state.out[m][n][2 * h + 1] *= rescale[m][h];
      }
      state.sum[m][h] *= rescale[m][h];
    }
  }
}

template <class S>
__device__ bool ShiftsAreSmall(const AttentionState<S>& state,
                               float scale_log2) {
  bool small = true;
#pragma unroll
  for (int m = 0; m < S::kRowTiles; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      // False, too, for a row that has seen no key yet.
      small = small &&
              fabsf(state.reference[m][h] * scale_log2) <= kShiftWithoutMaximum;
    }
  }
  return small;
}

// Of a thread's columns of a block.
template <class S>
using BlockSums = float[S::kRowTiles][2];

// weights = exp2((score - reference) · scale), rounded. Accumulators of two
// tiles of 8 keys are, once rounded, the fragment of a step of 16. Returns
// whether all sums are within kSumWithoutMaximum.
template <class S>
__device__ bool WeighBlock(BlockWeights<S>& weights, BlockSums<S>& sums,
                           const BlockScores<S>& scores,
                           const AttentionState<S>& state, float scale_log2) {
  bool small = true;
#pragma unroll
  for (int m = 0; m < S::kRowTiles; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      // A row that has seen no key yet: its weights are exp2(-inf) = 0.
      const float reference = state.reference[m][h];
      const float shift = reference == -INFINITY ? 0 : reference * scale_log2;
      float sum = 0;
#pragma unroll
      for (int n = 0; n < S::kKeyColumns; ++n) {
        const float* pair = &scores[m][n][2 * h];
        const float low = Exp2(fmaf(pair[0], scale_log2, -shift));
        const float high = Exp2(fmaf(pair[1], scale_log2, -shift));
        sum += low;
        sum += high;
        weights[m][n / 2][n % 2 * 2 + h] = Pack<typename S::Element>(low, high);
      }
      sums[m][h] = sum;
      small = small && sum <= kSumWithoutMaximum;
    }
  }
  return small;
}

// The block's weights and their sums. References are where MoveReferences()
// puts them, which it is not asked for where it would leave them.
template <class S>
__device__ void SoftmaxBlock(BlockWeights<S>& weights,
                             const BlockScores<S>& scores,
                             AttentionState<S>& state, float scale_log2) {
  BlockSums<S> sums;
  if (!AllInWarp(ShiftsAreSmall<S>(state, scale_log2)) ||
      !AllInWarp(WeighBlock<S>(weights, sums, scores, state, scale_log2))) {
    MoveReferences<S>(state, scores, scale_log2);
    WeighBlock<S>(weights, sums, scores, state, scale_log2);
  }
#pragma unroll
  for (int m = 0; m < S::kRowTiles; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) state.sum[m][h] += sums[m][h];
  }
}

// out += weights·values, keys ascending.
template <class S>
__device__ void AddValues(AttentionState<S>& state,
                          const BlockWeights<S>& weights,
                          const unsigned char* values, int lane) {
  using T = typename S::Element;
  const PieceReader<S::kVDim, Piece::kBTransposed> reader(values, lane);
#pragma unroll
  for (int step = 0; step < S::kKeySteps; ++step) {
#pragma unroll
    for (int n = 0; n < S::kValueColumns; n += 2) {
      uint32_t b[4];
      reader.Load(b, step, n / 2);
#pragma unroll
      for (int m = 0; m < S::kRowTiles; ++m) {
        Mma<T>(state.out[m][n], weights[m][step], b[0], b[1]);
        Mma<T>(state.out[m][n + 1], weights[m][step], b[2], b[3]);
      }
    }
  }
}

// One block: keys [first_key, first_key + kAttentionKeys) of the sequence, as
// SharedTiles of kQkDim and kVDim columns. Rows of values at or beyond the
// sequence's end must be finite.
template <class S, class Queries>
__device__ void AttendBlock(AttentionState<S>& state, const Queries& queries,
                            const unsigned char* keys,
                            const unsigned char* values,
                            const KeyWindow& window, int first_row,
                            int first_key, float scale_log2, int lane) {
  const BlockView view = {first_row - first_key, window.length - first_key,
                          window.left, window.right};
  if (first_row >= window.length || view.SeesNone<S>()) return;
  BlockScores<S> scores;
  ScoreBlock<S>(scores, queries, keys, lane);
  if (!view.SeesAll<S>()) MaskBlock<S>(scores, view, lane);
  BlockWeights<S> weights;
  SoftmaxBlock<S>(weights, scores, state, scale_log2);
  AddValues<S>(state, weights, values, lane);
}

// Divides by the sums. A row that saw no key becomes zeros; NaN stays NaN.
template <class S>
__device__ void FinishRows(AttentionState<S>& state) {
#pragma unroll
  for (int m = 0; m < S::kRowTiles; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = state.sum[m][h];
      sum += ShuffleXor(sum, 1);
      sum += ShuffleXor(sum, 2);
      const float inverse = sum == 0 ? 0 : 1 / sum;
#pragma unroll
      for (int n = 0; n < S::kValueColumns; ++n) {
        state.out[m][n][2 * h] *= inverse;
        state.out[m][n][2 * h + 1] *= inverse;
      }
    }
  }
}

// Thread j of four has pair j of each of four rows of 8 values; afterwards it
// has all four pairs of row j.
__device__ inline void TransposeQuad(uint32_t (&pairs)[4], int lane) {
#pragma unroll
  for (int distance = 1; distance <= 2; distance *= 2) {
    const bool upper = (lane & distance) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((i & distance) != 0) continue;
      uint32_t& low = pairs[i];
      uint32_t& high = pairs[i + distance];
      const uint32_t received = __float_as_uint(
          ShuffleXor(__uint_as_float(upper ? low : high), distance));
      low = upper ? received : low;
      high = upper ? high : received;
    }
  }
}

// Writes the warp's rows, rounded, from out[first_row] on, but for those at or
// beyond end_row.
template <class S>
__device__ void WriteRows(const AttentionState<S>& state,
                          typename S::Element* out, int64_t stride, int columns,
                          int first_row, int end_row, int lane) {
#pragma unroll
  for (int m = 0; m < S::kRowTiles; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = first_row + 16 * m + 8 * h + lane / 4;
#pragma unroll
      for (int n = 0; n < S::kValueColumns; n += 4) {
        uint32_t pairs[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          pairs[i] = Pack<typename S::Element>(state.out[m][n + i][2 * h],
                                               state.out[m][n + i][2 * h + 1]);
        }
        TransposeQuad(pairs, lane);
        const int column = 8 * (n + lane % 4);
        if (row < end_row && column < columns) {
          *reinterpret_cast<uint4*>(out + row * stride + column) = {
              pairs[0], pairs[1], pairs[2], pairs[3]};
        }
      }
    }
  }
}

}  // namespace svdserve::cuda

#endif  // SVDSERVE_KERNELS_CUDA_ATTENTION_LOOP_CUH_
