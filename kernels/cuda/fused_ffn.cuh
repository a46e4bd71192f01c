// The device side of the fused FFN. Per step of kStepColumns intermediate
// columns, a block
//   1. computes h = act(p·V1ᵀ + b1): each warp 32 rows and its share of the
//      columns; rounded, it goes to shared memory;
//   2. adds h·U2ᵀ to z: each warp 32 rows and its share of z's columns, in fp32
//      registers.
// Warps of 32 rows, since at 16 every fragment of a weight would be read from
// shared memory twice as often, which would take longer than the products.
//
// The two are one step apart: h of the next step is activated beside the
// products of this one, so that tensor cores and arithmetic units both work.
// Each weight tile has one place: V1's next tile arrives while U2's is in use,
// and the other way round.
#ifndef SVDSERVE_KERNELS_CUDA_FUSED_FFN_CUH_
#define SVDSERVE_KERNELS_CUDA_FUSED_FFN_CUH_

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/fused_ffn.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/shared_tile.cuh"

namespace svdserve::cuda::fused_ffn {

constexpr int kWarp = 32;
constexpr int kWarpRows = 32;
constexpr int kRowTiles = kWarpRows / 16;
constexpr int kSchedulers = 4;  // of a multiprocessor; warp w is on w % 4
constexpr int kChunk = 8;       // elements of a 16-byte copy
constexpr int kPanel = 64;      // columns that take 128 bytes: all banks
constexpr int kPanelBytes = kPanel * kElementBytes;  // of a row

// What a kernel is compiled for.
template <typename T, int kBlockRows, int kStep, int kOut, bool kGated,
          bool kGelu, int kSharing = 2>
struct Config {
  using Element = T;
  static constexpr int kRows = kBlockRows;
  static constexpr int kStepColumns = kStep;
  static constexpr int kOutColumns = kOut;  // out_rank, padded
  static constexpr int kWeights = kGated ? 2 : 1;
  static constexpr bool kGeluOnly = kGelu;  // else the parameters say which

  static constexpr int kColumnGroups = kSharing;  // warps that share rows
  static constexpr int kThreads = kRows / kWarpRows * kColumnGroups * kWarp;
  // Of one warp.
  static constexpr int kHidden = kStep / kColumnGroups;
  static constexpr int kHiddenTiles = kHidden / 8;
  static constexpr int kOutTiles = kOut / kColumnGroups / 8;
  static_assert(kHiddenTiles % 2 == 0 && kOutTiles % 2 == 0);
};

// Where things are in shared memory, in bytes. p and V1 are panels of kPanel
// columns, one after another, each a SharedTile: a copy into padded rows would
// touch twice as many lines. The gate's rows of a panel follow V1's.
template <typename C>
struct Layout {
  int panels;
  int v1;    // after p
  int u2;    // SharedTile [kOutColumns, kStepColumns]
  int h;     // two SharedTiles [kRows, kStepColumns]
  int bias;  // [2][kWeights][kStepColumns] float
  int end;

  static constexpr int kRowPanelBytes = C::kRows * kPanelBytes;
  static constexpr int kInPanelBytes =
      C::kWeights * C::kStepColumns * kPanelBytes;
  static constexpr int kHiddenBytes =
      C::kRows * C::kStepColumns * kElementBytes;
  static constexpr int kBiasBytes = C::kWeights * C::kStepColumns * 4;
  static constexpr int kStagedPitch = C::kOutColumns + kChunk;

  __host__ __device__ explicit constexpr Layout(int in_rank)
      : panels((in_rank + kPanel - 1) / kPanel),
        v1(panels * kRowPanelBytes),
        u2(v1 + panels * kInPanelBytes),
        h(u2 + C::kOutColumns * C::kStepColumns * kElementBytes),
        bias(h + 2 * kHiddenBytes),
        end(bias + 2 * kBiasBytes) {}

  // At the end z passes through the same memory.
  constexpr int SharedBytes() const {
    return std::max(end, C::kRows * kStagedPitch * kElementBytes);
  }
};

// A thread's part of a block's work.
template <typename C>
class Block {
  using T = typename C::Element;
  using Tile = SharedTile<C::kStepColumns>;

 public:
  __device__ explicit Block(const FusedFfnParams& params)
      : params_(params), layout_(params.in_rank), shared_(SharedMemory()) {}

  __device__ void Run() {
    const int steps =
        (params_.intermediate + C::kStepColumns - 1) / C::kStepColumns;
    // Of two warps of a scheduler, one activates while the other multiplies.
    const bool early =
        C::kThreads / kWarp > kSchedulers && Warp() / kSchedulers % 2 == 1;
    LoadIn(0);
    WaitForPriorKernels();
    LetNextKernelStartIfFew(params_.rows);
    LoadRows();
    for (int step = -1; step < steps; ++step) {
      Arrive();
      if (step >= 0) LoadOut(step);
      if (step + 1 < steps) MultiplyIn();
      Arrive();
      LoadIn(step + 2);
      if (early) ActivateHidden(step + 1);
      if (step >= 0) MultiplyOut(step);
      if (!early) ActivateHidden(step + 1);
    }
    Arrive();
    Store();
  }

 private:
  // All copies are there, and all warps have left the last phase.
  __device__ static void Arrive() {
    CopyWait<0>();
    __syncthreads();
  }

  // All panels of kTileRows rows; zeros from `valid_rows` and in_rank on.
  template <int kTileRows>
  __device__ void LoadPanels(unsigned char* to, int panel_bytes,
                             const void* matrix, int first_row, int64_t stride,
                             int valid_rows) {
    const T* from = static_cast<const T*>(matrix) + first_row * stride;
#pragma unroll 1
    for (int column = 0; column < params_.in_rank; column += kPanel) {
      CopyTile<kPanel, kTileRows, C::kThreads>(
          to, from + column, stride, params_.in_rank - column, 0, valid_rows);
      to += panel_bytes;
    }
  }

  __device__ void LoadRows() {
    const int first = blockIdx.x * C::kRows;
    LoadPanels<C::kRows>(shared_, Layout<C>::kRowPanelBytes, params_.p, first,
                         params_.p_stride, params_.rows - first);
    CopyCommit();
  }

  // A step's tile of V1 and of the bias; zeros past the intermediate width.
  __device__ void LoadIn(int step) {
    const int first = step * C::kStepColumns;
    const int valid = params_.intermediate - first;
    for (int w = 0; w < C::kWeights; ++w) {
      LoadPanels<C::kStepColumns>(
          V1() + w * C::kStepColumns * kPanelBytes, Layout<C>::kInPanelBytes,
          w == 0 ? params_.v1 : params_.gate, first, params_.in_rank, valid);
      const float* bias = w == 0 ? params_.b1 : params_.gate_bias;
      const int c = threadIdx.x * 4;
      if (c < C::kStepColumns) {
        const bool given = bias != nullptr && c < valid;
        CopyAsync16(Bias(step, w) + c, given ? bias + first + c : bias, given);
      }
    }
    CopyCommit();
  }

  __device__ void LoadOut(int step) {
    const int first = step * C::kStepColumns;
    CopyTile<C::kStepColumns, C::kOutColumns, C::kThreads>(
        shared_ + layout_.u2, static_cast<const T*>(params_.u2) + first,
        params_.intermediate, params_.intermediate - first, 0,
        params_.out_rank);
    CopyCommit();
  }

  // What the products of 16 values of k take.
  struct Fragments {
    uint32_t p[kRowTiles][4];
    uint32_t v1[C::kWeights][C::kHiddenTiles / 2][4];
  };

  // From the lane's places in the first of the panels' 16-row pieces.
  __device__ static void LoadFragments(const unsigned char* p,
                                       const unsigned char* v1, Fragments& f) {
    constexpr int kPieceBytes = 16 * kPanelBytes;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      LoadMatrix4(f.p[m], p + m * kPieceBytes);
    }
#pragma unroll
    for (int w = 0; w < C::kWeights; ++w) {
#pragma unroll
      for (int n = 0; n < C::kHiddenTiles / 2; ++n) {
        LoadMatrix4(f.v1[w][n],
                    v1 + (w * (C::kStepColumns / 16) + n) * kPieceBytes);
      }
    }
  }

  __device__ void AddProducts(const Fragments& f) {
#pragma unroll
    for (int w = 0; w < C::kWeights; ++w) {
#pragma unroll
      for (int n = 0; n < C::kHiddenTiles / 2; ++n) {
        const auto& b = f.v1[w][n];
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          Mma<T>(sum_.of[w][m][2 * n], f.p[m], b[0], b[1]);
          Mma<T>(sum_.of[w][m][2 * n + 1], f.p[m], b[2], b[3]);
        }
      }
    }
  }

  // sum = p·V1ᵀ of the warp's rows and its share of the step's columns. The
  // next fragments are on their way while the tensor cores have these. Of a
  // panel's 128 bytes, the permutation moves the 16 columns that begin 32 or 64
  // bytes further by the same bits of the offset.
  __device__ void MultiplyIn() {
    const int lane = Lane();
    const unsigned char* p = shared_ + (FirstRow() + lane % 16) * kPanelBytes;
    const unsigned char* v1 =
        V1() +
        (ColumnGroup() * C::kHidden + lane % 8 + lane / 16 * 8) * kPanelBytes;
    int p_at = ((lane / 16) ^ (lane % 8)) << 4;
    int v1_at = ((lane / 8 % 2) ^ (lane % 8)) << 4;
    sum_ = {};
    Fragments even, odd;
    LoadFragments(p + p_at, v1 + v1_at, even);
#pragma unroll 1
    for (int k = 0; k < params_.in_rank; k += 32) {
      LoadFragments(p + (p_at ^ 32), v1 + (v1_at ^ 32), odd);
      AddProducts(even);
      p_at ^= 64;
      v1_at ^= 64;
      if (k % kPanel != 0) {
        p += Layout<C>::kRowPanelBytes;
        v1 += Layout<C>::kInPanelBytes;
      }
      if (k + 32 < params_.in_rank) {
        LoadFragments(p + p_at, v1 + v1_at, even);
      }
      AddProducts(odd);
    }
  }

  // h = act(sum + bias) of a step, to shared memory.
  template <Activation kActivation>
  __device__ void ActivateAs(int step) {
    const int first_chunk = ColumnGroup() * C::kHiddenTiles;
    const int column = Lane() % 4 * 2;  // of a chunk
    const float* biases = Bias(step, 0) + first_chunk * kChunk + column;
    const int row = FirstRow() + Lane() / 4;
    unsigned char* h = H(step) + row * Tile::kRowBytes + column * kElementBytes;
#pragma unroll
    for (int n = 0; n < C::kHiddenTiles; ++n) {
      // Eight rows further down the permutation is the same.
      unsigned char* chunk =
          h + (((first_chunk + n) ^ Tile::Permutation(row)) << 4);
      float2 bias[C::kWeights];
#pragma unroll
      for (int w = 0; w < C::kWeights; ++w) {
        bias[w] = *reinterpret_cast<const float2*>(
            biases + w * C::kStepColumns + n * kChunk);
      }
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float* sums = &sum_.of[0][m][n][half * 2];
          float x = Activate<T>(kActivation, sums[0] + bias[0].x);
          float y = Activate<T>(kActivation, sums[1] + bias[0].y);
          if constexpr (C::kWeights == 2) {
            const float* gates = &sum_.of[1][m][n][half * 2];
            x *= gates[0] + bias[1].x;
            y *= gates[1] + bias[1].y;
          }
          *reinterpret_cast<uint32_t*>(
              chunk + (m * 16 + half * 8) * Tile::kRowBytes) = Pack<T>(x, y);
        }
      }
    }
  }

  __device__ void ActivateHidden(int step) {
    if constexpr (C::kGeluOnly) {
      ActivateAs<Activation::kGelu>(step);
      return;
    }
    switch (params_.activation) {
      case Activation::kNone:
        return ActivateAs<Activation::kNone>(step);
      case Activation::kGelu:
        return ActivateAs<Activation::kGelu>(step);
      case Activation::kGeluTanh:
        return ActivateAs<Activation::kGeluTanh>(step);
      case Activation::kRelu:
        return ActivateAs<Activation::kRelu>(step);
      case Activation::kSilu:
        return ActivateAs<Activation::kSilu>(step);
    }
  }

  // z += h·U2ᵀ of a step.
  __device__ void MultiplyOut(int step) {
    const PieceReader<C::kStepColumns, Piece::kA> h(
        H(step) + FirstRow() * Tile::kRowBytes, Lane());
    const PieceReader<C::kStepColumns, Piece::kB> u2(
        shared_ + layout_.u2 +
            ColumnGroup() * C::kOutTiles * 8 * Tile::kRowBytes,
        Lane());
#pragma unroll
    for (int k = 0; k < C::kStepColumns / 16; ++k) {
      uint32_t a[kRowTiles][4];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) h.Load(a[m], m, k);
#pragma unroll
      for (int n = 0; n < C::kOutTiles / 2; ++n) {
        uint32_t b[4];
        u2.Load(b, n, k);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          Mma<T>(z_[m][2 * n], a[m], b[0], b[1]);
          Mma<T>(z_[m][2 * n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  // z through shared memory, so that whole lines are written.
  __device__ void Store() {
    constexpr int kPitch = Layout<C>::kStagedPitch;
    constexpr int kColumns = C::kOutTiles * 8;
    const int first_column = ColumnGroup() * kColumns;
    T* staged =
        reinterpret_cast<T*>(shared_) + FirstRow() * kPitch + first_column;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < C::kOutTiles; ++n) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = m * 16 + half * 8 + Lane() / 4;
          *reinterpret_cast<uint32_t*>(staged + row * kPitch + n * 8 +
                                       Lane() % 4 * 2) =
              Pack<T>(z_[m][n][half * 2], z_[m][n][half * 2 + 1]);
        }
      }
    }
    __syncwarp();
    const int first_row = blockIdx.x * C::kRows + FirstRow();
    T* z = static_cast<T*>(params_.z) + first_row * params_.z_stride;
    for (int i = Lane(); i < kWarpRows * kColumns / kChunk; i += kWarp) {
      const int row = i / (kColumns / kChunk);
      const int c = i % (kColumns / kChunk) * kChunk;
      if (first_row + row < params_.rows &&
          first_column + c < params_.out_rank) {
        *reinterpret_cast<uint4*>(z + row * params_.z_stride + first_column +
                                  c) =
            *reinterpret_cast<const uint4*>(staged + row * kPitch + c);
      }
    }
  }

  __device__ unsigned char* V1() const { return shared_ + layout_.v1; }
  __device__ unsigned char* H(int step) const {
    return shared_ + layout_.h + step % 2 * Layout<C>::kHiddenBytes;
  }
  __device__ float* Bias(int step, int weight) const {
    return reinterpret_cast<float*>(shared_ + layout_.bias +
                                    step % 2 * Layout<C>::kBiasBytes) +
           weight * C::kStepColumns;
  }

  __device__ static int Lane() { return threadIdx.x % kWarp; }
  __device__ static int Warp() { return threadIdx.x / kWarp; }
  __device__ static int ColumnGroup() { return Warp() % C::kColumnGroups; }
  __device__ static int FirstRow() {
    return Warp() / C::kColumnGroups * kWarpRows;
  }

  const FusedFfnParams& params_;
  const Layout<C> layout_;
  unsigned char* const shared_;
  struct {
    float of[C::kWeights][kRowTiles][C::kHiddenTiles][4];
  } sum_;
  float z_[kRowTiles][C::kOutTiles][4] = {};
};

}  // namespace svdserve::cuda::fused_ffn

#endif  // SVDSERVE_KERNELS_CUDA_FUSED_FFN_CUH_
