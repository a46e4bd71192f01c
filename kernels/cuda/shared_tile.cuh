// A matrix of 2-byte values in shared memory whose 16-byte chunks are permuted
// within each row, so that the eight rows that one ldmatrix reads, or that a
// warp's fragments are written to, lie in different banks.
#ifndef SVDSERVE_KERNELS_CUDA_SHARED_TILE_CUH_
#define SVDSERVE_KERNELS_CUDA_SHARED_TILE_CUH_

#include <cstdint>

#include "kernels/cuda/ptx.cuh"

namespace svdserve::cuda {

// kColumns: 16, 32, 64, 96 or 128.
template <int kColumns>
struct SharedTile {
  static constexpr int kChunks = kColumns / 8;
  static constexpr int kRowBytes = kColumns * kElementBytes;
  static_assert(kChunks == 2 || kChunks % 4 == 0);

  // Rows of 64 and 192 bytes start in two places of the 128 bytes of all
  // banks, so that two rows may share a permutation; of 32 bytes, in four.
  __device__ static int Permutation(int row) {
    if constexpr (kChunks % 8 == 0) return row & 7;
    if constexpr (kChunks % 8 == 4) return (row >> 1) & 3;
    return (row >> 2) & 1;
  }
  __device__ static int Offset(int row, int chunk) {
    return row * kRowBytes + ((chunk ^ Permutation(row)) << 4);
  }
};

// What a lane's address is for ldmatrix on 16x16 pieces of a tile.
enum class Piece {
  kA,            // rows m, columns k
  kB,            // rows n, columns k: two b of 8 columns
  kBTransposed,  // rows k, columns n: two b of 8 columns
};

template <int kColumns, Piece kPiece>
class PieceReader {
 public:
  using Tile = SharedTile<kColumns>;

  __device__ PieceReader(const unsigned char* tile, int lane) {
    const int row =
        kPiece == Piece::kB ? (lane & 7) + ((lane >> 4) << 3) : lane & 15;
    const int half = kPiece == Piece::kB ? (lane >> 3) & 1 : lane >> 4;
    row_ = tile + row * Tile::kRowBytes;
    chunk_ = half ^ Tile::Permutation(row);
  }
  // Sixteen rows further down the permutation is the same; `offset` moves the
  // whole tile.
  __device__ void Load(uint32_t (&piece)[4], int row_piece, int column_piece,
                       int offset = 0) const {
    const unsigned char* address = row_ + offset +
                                   row_piece * 16 * Tile::kRowBytes +
                                   (((2 * column_piece) ^ chunk_) << 4);
    if constexpr (kPiece == Piece::kBTransposed) {
      LoadMatrix4Transposed(piece, address);
    } else {
      LoadMatrix4(piece, address);
    }
  }

 private:
  const unsigned char* row_;
  int chunk_;
};

// Starts copying rows [first_row, first_row + kRows) of a matrix of `columns`
// columns (a multiple of 8) to the tile, by kThreads threads of which this is
// `thread`. What lies at or beyond `row_end`, or beyond the matrix's columns,
// becomes zeros and is not read.
template <int kColumns, int kRows, int kThreads, typename T>
__device__ void CopyTile(unsigned char* tile, const T* matrix, int64_t stride,
                         int columns, int first_row, int row_end, int thread) {
  using Tile = SharedTile<kColumns>;
  // A thread's chunks of a row are so far apart that the permutation moves all
  // of them alike; where enough threads copy, so are its rows.
  constexpr int kAcross = Tile::kChunks % 8 == 0   ? 8
                          : Tile::kChunks % 8 == 4 ? 4
                                                   : 2;
  constexpr int kDown = kThreads / kAcross;
  static_assert(kThreads % kAcross == 0);
  const int row = thread / kAcross;
  const int chunk = thread % kAcross;
  const T* from = matrix + ((first_row + row) * stride + chunk * 8);
  unsigned char* to = tile + Tile::Offset(row, chunk);
#pragma unroll
  for (int r = 0; r < kRows; r += kDown) {
    if (kRows % kDown != 0 && row + r >= kRows) break;
    if constexpr (kDown % 8 != 0) to = tile + Tile::Offset(row + r, chunk);
#pragma unroll
    for (int c = 0; c < Tile::kChunks; c += kAcross) {
      CopyAsync16(to + c * 16, from + r * stride + c * 8,
                  first_row + row + r < row_end && (chunk + c) * 8 < columns);
    }
    if constexpr (kDown % 8 == 0) to += kDown * Tile::kRowBytes;
  }
}

// By all threads of a block.
template <int kColumns, int kRows, int kThreads, typename T>
__device__ void CopyTile(unsigned char* tile, const T* matrix, int64_t stride,
                         int columns, int first_row, int row_end) {
  CopyTile<kColumns, kRows, kThreads>(tile, matrix, stride, columns, first_row,
                                      row_end, threadIdx.x);
}

}  // namespace svdserve::cuda

#endif  // SVDSERVE_KERNELS_CUDA_SHARED_TILE_CUH_
