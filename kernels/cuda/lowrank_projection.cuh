// How LowRankAttention() builds queries, keys and values: rows of P·factorᵀ +
// bias, in accumulators, summed in the order of Gemm().
//
// A head's factor lies in shared memory for all rows. A warp fetches rows of P
// for itself and waits for no other: barriers are only where the factor
// changes.
//
// C is the kernel's Config: an AttentionShape with kHeadDim, kThreads,
// kBlockRows and kChunk, the columns of P that arrive together and that a tile
// of a factor has.
#ifndef SVDSERVE_KERNELS_CUDA_LOWRANK_PROJECTION_CUH_
#define SVDSERVE_KERNELS_CUDA_LOWRANK_PROJECTION_CUH_

#include "kernels/cuda/attention_loop.cuh"
#include "kernels/cuda/lowrank_attention.h"
#include "kernels/cuda/shared_tile.cuh"

namespace svdserve::cuda {

// One head of one sequence.
struct Place {
  int head;
  int first_row;  // in p and out
  int length;
  int tiles;  // of kBlockRows rows
};

// In the order in which they are built.
enum Part { kKey, kValue, kQuery, kParts };

// P_part and the head's rows of factor_part.
template <typename T>
struct Operand {
  const T* p;         // the part's columns of the sequence's first row
  const T* factor;    // [head_dim, rank]
  const float* bias;  // [head_dim], or null
  int rank;
};

template <class C>
__device__ Operand<typename C::Element> OperandOf(
    const LowRankAttentionParams& params, const Place& place, int part) {
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
  return {static_cast<const T*>(params.p) + place.first_row * params.p_stride +
              column,
          static_cast<const T*>(factor) + int64_t{1} * first_out * rank,
          bias == nullptr ? nullptr : bias + first_out, rank};
}

// Starts copying a factor: a tile of kChunk columns after the other.
template <class C>
__device__ void CopyFactor(unsigned char* memory,
                           const Operand<typename C::Element>& operand) {
#pragma unroll 1
  for (int column = 0; column < operand.rank; column += C::kChunk) {
    CopyTile<C::kChunk, C::kHeadDim, C::kThreads>(
        memory, operand.factor + column, operand.rank, operand.rank - column, 0,
        C::kHeadDim);
    memory += C::kFactorChunkBytes;
  }
}

// A warp's chunks of P on their way: all of its rows of all parts, one after
// the other without a gap, into `stages` places in turn. The next rows' first
// chunks are under way while the last ones' results are stored, or attended to.
struct Stream {
  unsigned char* memory;
  int stages;
  int write = 0;
  int read = 0;
  // The chunk to fetch next.
  int part = 0;
  int tile = 0;
  int column = 0;

  __device__ int After(int stage) const {
    return stage + 1 == stages ? 0 : stage + 1;
  }
};

__device__ inline int LaneOf() { return threadIdx.x % 32; }
template <class C>
__device__ int WarpRowOf() {
  return threadIdx.x / 32 * C::kRows;
}

template <class C>
__device__ void FetchChunk(Stream& stream, const LowRankAttentionParams& params,
                           const Place& place) {
  if (stream.part < kParts) {
    const auto operand = OperandOf<C>(params, place, stream.part);
    CopyTile<C::kChunk, C::kRows, 32>(
        stream.memory + stream.write * C::kChunkBytes,
        operand.p + stream.column, params.p_stride,
        operand.rank - stream.column,
        stream.tile * C::kBlockRows + WarpRowOf<C>(), place.length, LaneOf());
    stream.write = stream.After(stream.write);
    stream.column += C::kChunk;
    if (stream.column >= operand.rank) {
      stream.column = 0;
      ++stream.tile;
    }
    if (stream.tile == place.tiles) {
      stream.tile = 0;
      ++stream.part;
    }
  }
  CopyCommit();
}

// The oldest chunk, once it is here; stages - 2 younger ones are under way.
template <class C>
__device__ const unsigned char* TakeChunk(Stream& stream) {
  if (stream.stages == 2) {
    CopyWait<0>();
  } else if (stream.stages == 3) {
    CopyWait<1>();
  } else {
    CopyWait<2>();
  }
  __syncwarp();
  const unsigned char* chunk = stream.memory + stream.read * C::kChunkBytes;
  stream.read = stream.After(stream.read);
  return chunk;
}

template <class S>
using Sums = float[S::kRowTiles][S::kValueColumns][4];

// sums += the warp's rows of one chunk that has `columns` more columns; of
// zeros beyond them whole halves are left out.
template <class C>
__device__ void MultiplyChunk(Sums<C>& sums, const unsigned char* chunk,
                              const unsigned char* factor_chunk, int columns) {
  using T = typename C::Element;
  const PieceReader<C::kChunk, Piece::kA> rows(chunk, LaneOf());
  const PieceReader<C::kChunk, Piece::kB> factor(factor_chunk, LaneOf());
#pragma unroll
  for (int step = 0; step < C::kChunk / 16; ++step) {
    if (step == 2 && columns <= 32) break;
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

// The warp's rows of a tile, with bias, from the stream's next chunks.
template <class C>
__device__ void ProjectRows(Sums<C>& sums, Stream& stream,
                            const LowRankAttentionParams& params,
                            const Place& place,
                            const Operand<typename C::Element>& operand,
                            const unsigned char* factor, int first_row) {
#pragma unroll
  for (int m = 0; m < C::kRowTiles; ++m) {
#pragma unroll
    for (int n = 0; n < C::kValueColumns; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[m][n][i] = 0;
    }
  }
#pragma unroll 1
  for (int column = 0; column < operand.rank; column += C::kChunk) {
    const unsigned char* chunk = TakeChunk<C>(stream);
    FetchChunk<C>(stream, params, place);
    if (first_row < place.length) {
      MultiplyChunk<C>(sums, chunk, factor, operand.rank - column);
    }
    factor += C::kFactorChunkBytes;
  }
  AddBias<C>(sums, operand.bias, LaneOf());
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
