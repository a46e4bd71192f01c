// How LowRankAttention() builds queries, keys and values: tiles of rows of
// P·factorᵀ + bias, in accumulators, summed in the order of Gemm().
//
// C is the kernel's Config: an AttentionShape with kHeadDim, kThreads,
// kBlockRows, kFactorOffset and kStageBytes.
#ifndef SVDSERVE_KERNELS_CUDA_LOWRANK_PROJECTION_CUH_
#define SVDSERVE_KERNELS_CUDA_LOWRANK_PROJECTION_CUH_

#include "kernels/cuda/attention_loop.cuh"
#include "kernels/cuda/lowrank_attention.h"
#include "kernels/cuda/shared_tile.cuh"

namespace svdserve::cuda {

// Columns of P and of a factor that arrive together.
inline constexpr int kChunk = 32;

// One head of one sequence.
struct Place {
  int head;
  int first_row;  // in p and out
  int length;
  int tiles;  // of kBlockRows rows
};

enum Part { kQuery, kKey, kValue };

// rows [tile · kBlockRows, ...) of P_part · factor_partᵀ.
template <typename T>
struct Projection {
  const T* p;         // the part's columns of row 0
  const T* factor;    // [head_dim, rank], the head's rows
  const float* bias;  // [head_dim], or null
  int rank;
  int first_row;  // in the sequence
};

template <class C>
__device__ Projection<typename C::Element> MakeProjection(
    const LowRankAttentionParams& params, const Place& place, Part part,
    int tile) {
  using T = typename C::Element;
  const int column = part == kQuery ? params.q_column
                     : part == kKey ? params.k_column
                                    : params.v_column;
  const int rank = part == kQuery ? params.q_rank
                   : part == kKey ? params.k_rank
                                  : params.v_rank;
  const void* factor = part == kQuery ? params.q_factor
                       : part == kKey ? params.k_factor
                                      : params.v_factor;
  const float* bias = part == kQuery ? params.q_bias
                      : part == kKey ? params.k_bias
                                     : params.v_bias;
  const int first_out = place.head * C::kHeadDim;
  return {static_cast<const T*>(params.p) + column,
          static_cast<const T*>(factor) + int64_t{1} * first_out * rank,
          bias == nullptr ? nullptr : bias + first_out, rank,
          tile * C::kBlockRows};
}

// The stages that chunks of P and of factors go through, one projection after
// the other without a gap: the next one's first chunks are under way while the
// last one's results are stored, or attended to.
struct Ring {
  unsigned char* memory;
  int stages;
  int next_write;
  int next_read;

  __device__ int Advance(int stage) const {
    return stage + 1 == stages ? 0 : stage + 1;
  }
};

template <class C>
__device__ void CopyChunk(Ring& ring, const LowRankAttentionParams& params,
                          const Place& place,
                          const Projection<typename C::Element>& projection,
                          int chunk) {
  const int column = chunk * kChunk;
  if (column < projection.rank) {
    unsigned char* stage = ring.memory + ring.next_write * C::kStageBytes;
    const int columns = projection.rank - column;
    CopyTile<kChunk, C::kBlockRows, C::kThreads>(
        stage, projection.p + column, params.p_stride, columns,
        place.first_row + projection.first_row, place.first_row + place.length);
    CopyTile<kChunk, C::kHeadDim, C::kThreads>(
        stage + C::kFactorOffset, projection.factor + column, projection.rank,
        columns, 0, C::kHeadDim);
    ring.next_write = ring.Advance(ring.next_write);
  }
  CopyCommit();
}

template <class C>
__device__ void StartProjection(
    Ring& ring, const LowRankAttentionParams& params, const Place& place,
    const Projection<typename C::Element>& projection) {
#pragma unroll 1
  for (int chunk = 0; chunk < ring.stages - 1; ++chunk) {
    CopyChunk<C>(ring, params, place, projection, chunk);
  }
}

__device__ inline void WaitForChunk(int stages) {
  if (stages == 2) {
    CopyWait<0>();
  } else if (stages == 3) {
    CopyWait<1>();
  } else {
    CopyWait<2>();
  }
}

template <class S>
using Sums = float[S::kRowTiles][S::kValueColumns][4];

// sums += the warp's rows of one chunk.
template <class C>
__device__ void MultiplyChunk(Sums<C>& sums, const unsigned char* stage,
                              int warp_row, int lane) {
  using T = typename C::Element;
  const PieceReader<kChunk, Piece::kA> rows(
      stage + warp_row * SharedTile<kChunk>::kRowBytes, lane);
  const PieceReader<kChunk, Piece::kB> factor(stage + C::kFactorOffset, lane);
#pragma unroll
  for (int step = 0; step < kChunk / 16; ++step) {
    uint32_t a[C::kRowTiles][4];
#pragma unroll
    for (int m = 0; m < C::kRowTiles; ++m) rows.Load(a[m], m, step);
#pragma unroll
    for (int n = 0; n < C::kValueColumns; n += 2) {
      uint32_t b[4];
      factor.Load(b, n / 2, step);
#pragma unroll
      for (int m = 0; m < C::kRowTiles; ++m) {
        Mma<T>(sums[m][n], a[m], b[0], b[1]);
        Mma<T>(sums[m][n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

template <class C>
__device__ void AddBias(Sums<C>& sums, const float* bias, int lane) {
  if (bias == nullptr) return;
#pragma unroll
  for (int n = 0; n < C::kValueColumns; ++n) {
    const float2 pair =
        *reinterpret_cast<const float2*>(bias + 8 * n + 2 * (lane % 4));
#pragma unroll
    for (int m = 0; m < C::kRowTiles; ++m) {
      sums[m][n][0] += pair.x;
      sums[m][n][1] += pair.y;
      sums[m][n][2] += pair.x;
      sums[m][n][3] += pair.y;
    }
  }
}

// The projection's sums with bias, from the chunks that StartProjection() began
// to fetch.
template <class C>
__device__ void FinishProjection(
    Sums<C>& sums, Ring& ring, const LowRankAttentionParams& params,
    const Place& place, const Projection<typename C::Element>& projection,
    int warp_row, int lane) {
#pragma unroll
  for (int m = 0; m < C::kRowTiles; ++m) {
#pragma unroll
    for (int n = 0; n < C::kValueColumns; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[m][n][i] = 0;
    }
  }
  const bool has_rows = projection.first_row + warp_row < place.length;
  const int chunks = (projection.rank + kChunk - 1) / kChunk;
#pragma unroll 1
  for (int chunk = 0; chunk < chunks; ++chunk) {
    WaitForChunk(ring.stages);
    __syncthreads();  // the chunk is here; the one before it was read
    CopyChunk<C>(ring, params, place, projection, chunk + ring.stages - 1);
    if (has_rows) {
      MultiplyChunk<C>(sums, ring.memory + ring.next_read * C::kStageBytes,
                       warp_row, lane);
    }
    ring.next_read = ring.Advance(ring.next_read);
  }
  AddBias<C>(sums, projection.bias, lane);
}

// Writes the warp's rows, rounded, to rows [first_row, ...) of `tile`, but for
// those at or beyond end_row.
template <class C>
__device__ void StoreTileRows(const Sums<C>& sums, unsigned char* tile,
                              int first_row, int end_row, int lane) {
#pragma unroll
  for (int m = 0; m < C::kRowTiles; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = first_row + 16 * m + 8 * h + lane / 4;
      if (row >= end_row) continue;
#pragma unroll
      for (int n = 0; n < C::kValueColumns; ++n) {
        const int offset = SharedTile<C::kHeadDim>::Offset(row, n);
        *reinterpret_cast<uint32_t*>(tile + offset + 4 * (lane % 4)) =
            Pack<typename C::Element>(sums[m][n][2 * h], sums[m][n][2 * h + 1]);
      }
    }
  }
}

// Accumulators of two tiles of 8 dimensions are, once rounded, the fragment of
// a step of 16.
template <class C>
__device__ void RoundQueries(QueryRegisters<typename C::Shape>& queries,
                             const Sums<C>& sums) {
#pragma unroll
  for (int m = 0; m < C::kRowTiles; ++m) {
#pragma unroll
    for (int step = 0; step < C::kQkSteps; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* pair = &sums[m][2 * step + i / 2][i % 2 * 2];
        queries.fragments[m][step][i] =
            Pack<typename C::Element>(pair[0], pair[1]);
      }
    }
  }
}

}  // namespace svdserve::cuda

#endif  // SVDSERVE_KERNELS_CUDA_LOWRANK_PROJECTION_CUH_
