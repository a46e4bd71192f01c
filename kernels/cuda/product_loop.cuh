// The loop of GemmNorm(): sum += y·Wᵀ over all of k, by one warp of a block
// whose tiles of y and W pass through shared memory in stages.
//
// Copies are under way some stages ahead. A piece of W is read one ahead of its
// products, those of y beside the last products of the 16 values of k before;
// the block meets before the last products of a stage, so that these hide what
// follows.
#ifndef SVDSERVE_KERNELS_CUDA_PRODUCT_LOOP_CUH_
#define SVDSERVE_KERNELS_CUDA_PRODUCT_LOOP_CUH_

#include <cstdint>

#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/shared_tile.cuh"

namespace svdserve::cuda {

// CopyTile() in `parts`: one of them. Addresses past the end are held at the
// last row: fewer registers.
template <int kColumns, int kRows, int kThreads, typename T>
__device__ __forceinline__ void CopyPart(unsigned char* tile, const T* matrix,
                                         int64_t stride, int columns,
                                         int first_row, int row_end, int part,
                                         int parts) {
  using Tile = SharedTile<kColumns>;
  constexpr int kAcross = Tile::kChunks;
  constexpr int kDown = kThreads / kAcross;
  static_assert(kAcross <= 8 && kThreads % kAcross == 0 && kDown % 8 == 0);
  const int row = threadIdx.x / kAcross;
  const int chunk = threadIdx.x % kAcross;
  unsigned char* to = tile + Tile::Offset(row, chunk);
#pragma unroll
  for (int r = 0; r < kRows; r += kDown) {
    if (r / kDown % parts != part) continue;
    if (kRows % kDown != 0 && row + r >= kRows) break;
    const int wanted = first_row + row + r;
    const int64_t from_row = wanted < row_end ? wanted : row_end - 1;
    CopyAsync16(to + r * Tile::kRowBytes,
                matrix + (from_row * static_cast<int>(stride) + chunk * 8),
                wanted < row_end && chunk * 8 < columns);
  }
}

// C says: Element, kDepth, kStages, kStageBytes, kYBytes (W follows y in a
// stage), and of the warp kRowPieces and kWeightPieces, 16 rows each.
template <typename C>
class ProductLoop {
  static constexpr int kRowBytes = SharedTile<C::kDepth>::kRowBytes;
  // Pieces of y are read before the last products where there are registers
  // for two sets of them, else each after its last use.
  static constexpr bool kAhead =
      C::kRowPieces * C::kWeightPieces <= 16 && C::kDepth % 32 == 0;

 public:
  // Copies of a stage are started in so many parts.
  static constexpr int kParts = C::kDepth / 16;
  static_assert(kParts * C::kWeightPieces % 2 == 0);

  // `w_row`: the warp's first row of W's tile.
  __device__ ProductLoop(const unsigned char* shared, int w_row)
      : y_(shared, threadIdx.x % 32),
        w_(shared + C::kYBytes + w_row * kRowBytes, threadIdx.x % 32) {}

  // loader.Load(i, stage, part) starts a part of the copies of the i-th kDepth
  // values of k to a stage; it is asked for some past the end too. On return
  // all have been waited for but kStages - 2.
  template <typename Loader>
  __device__ __forceinline__ void Run(int depths, const Loader& loader) {
#pragma unroll
    for (int i = 0; i < C::kStages - 1; ++i) {
#pragma unroll
      for (int part = 0; part < kParts; ++part) loader.Load(i, i, part);
      CopyCommit();
    }
    Meet();
    int stage = 0;
    int free_stage = C::kStages - 1;
    ReadW(0, stage, 0);
#pragma unroll
    for (int m = 0; m < C::kRowPieces; ++m) ReadY(m, stage, 0);
#pragma unroll 1
    for (int i = 0; i < depths; ++i) {
      const int next_stage = stage + 1 == C::kStages ? 0 : stage + 1;
#pragma unroll
      for (int k = 0; k < kParts; ++k) {
        loader.Load(i + C::kStages - 1, free_stage, k);
        Multiply(k, stage, next_stage);
      }
      free_stage = stage;
      stage = next_stage;
    }
  }

  // Of 16 rows and 8 columns each, as Mma() has them.
  float sum[C::kRowPieces][2 * C::kWeightPieces][4] = {};

 private:
  // The stage after the current one has arrived, for all.
  __device__ static void Meet() {
    CopyWait<C::kStages - 2>();
    __syncthreads();
  }
  __device__ void ReadY(int m, int stage, int k) {
    y_.Load(a_[kAhead ? k % 2 : 0][m], m, k, stage * C::kStageBytes);
  }
  __device__ void ReadW(int n, int stage, int k) {
    w_.Load(b_[(k * C::kWeightPieces + n) % 2], n, k, stage * C::kStageBytes);
  }

  // The products of 16 values of k.
  __device__ __forceinline__ void Multiply(int k, int stage, int next_stage) {
    const bool ends = k + 1 == kParts;
    const int next_k = ends ? 0 : k + 1;
    if (!ends) next_stage = stage;
#pragma unroll
    for (int n = 0; n < C::kWeightPieces; ++n) {
      const bool last = n + 1 == C::kWeightPieces;
      if (last && ends) {
        CopyCommit();
        Meet();
      }
      ReadW(last ? 0 : n + 1, last ? next_stage : stage, last ? next_k : k);
#pragma unroll
      for (int m = 0; m < C::kRowPieces; ++m) {
        if (last && kAhead) ReadY(m, next_stage, next_k);
      }
      const auto& b = b_[(k * C::kWeightPieces + n) % 2];
#pragma unroll
      for (int m = 0; m < C::kRowPieces; ++m) {
        const auto& a = a_[kAhead ? k % 2 : 0][m];
        Mma<typename C::Element>(sum[m][2 * n], a, b[0], b[1]);
        Mma<typename C::Element>(sum[m][2 * n + 1], a, b[2], b[3]);
        if (last && !kAhead) ReadY(m, next_stage, next_k);
      }
    }
  }

  PieceReader<C::kDepth, Piece::kA> y_;
  PieceReader<C::kDepth, Piece::kB> w_;
  uint32_t a_[kAhead ? 2 : 1][C::kRowPieces][4];
  uint32_t b_[2][4];
};

}  // namespace svdserve::cuda

#endif  // SVDSERVE_KERNELS_CUDA_PRODUCT_LOOP_CUH_
