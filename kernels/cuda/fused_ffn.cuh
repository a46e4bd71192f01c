// The device side of the fused FFN. Per step of kStepColumns intermediate
// columns, a block
//   1. computes h = act(p·V1ᵀ + b1): each warp 32 rows and half of the columns;
//      rounded, it goes to shared memory;
//   2. adds h·U2ᵀ to z: each warp 32 rows and half of z's columns, in fp32
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
constexpr int kColumnGroups = 2;  // warps that share rows
constexpr int kSchedulers = 4;    // of a multiprocessor; warp w is on w % 4
constexpr int kChunk = 8;         // elements of a 16-byte copy

// What a kernel is compiled for.
template <typename T, int kBlockRows, int kStep, int kOut, bool kGated,
          bool kGelu>
struct Config {
  using Element = T;
  static constexpr int kRows = kBlockRows;
  static constexpr int kStepColumns = kStep;
  static constexpr int kOutColumns = kOut;  // out_rank, padded
  static constexpr int kWeights = kGated ? 2 : 1;
  static constexpr bool kGeluOnly = kGelu;  // else the parameters say which

  static constexpr int kThreads = kRows / kWarpRows * kColumnGroups * kWarp;
  // Of one warp.
  static constexpr int kHidden = kStep / kColumnGroups;
  static constexpr int kHiddenTiles = kHidden / 8;
  static constexpr int kOutTiles = kOut / kColumnGroups / 8;
  static_assert(kHiddenTiles % 2 == 0 && kOutTiles % 2 == 0);
};

// Where things are in shared memory, in bytes. Rows of p and V1 are padded by a
// chunk: the same chunk of eight rows then lies in different banks.
template <typename C>
struct Layout {
  int pitch;  // elements between rows of p and of V1
  int v1;     // after p
  int u2;     // SharedTile [kOutColumns, kStepColumns]
  int h;      // two SharedTiles [kRows, kStepColumns]
  int bias;   // [2][kWeights][kStepColumns] float
  int end;

  static constexpr int kHiddenBytes =
      C::kRows * C::kStepColumns * kElementBytes;
  static constexpr int kBiasBytes = C::kWeights * C::kStepColumns * 4;
  static constexpr int kStagedPitch = C::kOutColumns + kChunk;

  __host__ __device__ explicit constexpr Layout(int in_rank)
      : pitch(in_rank + kChunk),
        v1(C::kRows * pitch * kElementBytes),
        u2(v1 + C::kWeights * C::kStepColumns * pitch * kElementBytes),
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
    LoadRows();
    LoadIn(0);
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

  // A [kTileRows, in_rank] tile, copied by eight threads per row; zeros from
  // `valid_rows` on.
  template <int kTileRows>
  __device__ void LoadTile(T* tile, const T* source, int64_t stride,
                           int valid_rows) {
    constexpr int kRowsAtOnce = C::kThreads / 8;
    static_assert(kTileRows % kRowsAtOnce == 0);
    const int row = threadIdx.x / 8;
    tile += row * layout_.pitch;
    source += row * stride;
#pragma unroll 1
    for (int c = threadIdx.x % 8 * kChunk; c < params_.in_rank;
         c += 8 * kChunk) {
#pragma unroll
      for (int i = 0; i < kTileRows; i += kRowsAtOnce) {
        CopyAsync16(tile + i * layout_.pitch + c, source + i * stride + c,
                    row + i < valid_rows);
      }
    }
  }

  __device__ void LoadRows() {
    const int first = blockIdx.x * C::kRows;
    LoadTile<C::kRows>(
        P(), static_cast<const T*>(params_.p) + first * params_.p_stride,
        params_.p_stride, params_.rows - first);
  }

  // A step's tile of V1 and of the bias; zeros past the intermediate width.
  __device__ void LoadIn(int step) {
    const int first = step * C::kStepColumns;
    const int valid = params_.intermediate - first;
    for (int w = 0; w < C::kWeights; ++w) {
      const T* weight =
          static_cast<const T*>(w == 0 ? params_.v1 : params_.gate);
      LoadTile<C::kStepColumns>(V1() + w * C::kStepColumns * layout_.pitch,
                                weight + int64_t{first} * params_.in_rank,
                                params_.in_rank, valid);
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

  // From the lane's rows of the tiles, at the 16 columns.
  __device__ void LoadFragments(const T* p, const T* v1, Fragments& f) const {
    const int rows16 = 16 * layout_.pitch;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) LoadMatrix4(f.p[m], p + m * rows16);
#pragma unroll
    for (int w = 0; w < C::kWeights; ++w) {
#pragma unroll
      for (int n = 0; n < C::kHiddenTiles / 2; ++n) {
        LoadMatrix4(f.v1[w][n], v1 + (w * (C::kStepColumns / 16) + n) * rows16);
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

  // sum = p·V1ᵀ of the warp's rows and its half of the step's columns. The next
  // fragments are on their way while the tensor cores have these.
  __device__ void MultiplyIn() {
    const int lane = Lane();
    const T* p =
        P() + (FirstRow() + lane % 16) * layout_.pitch + lane / 16 * kChunk;
    const T* v1 = V1() +
                  (ColumnGroup() * C::kHidden + lane % 8 + lane / 16 * 8) *
                      layout_.pitch +
                  lane / 8 % 2 * kChunk;
    const T* end = p + params_.in_rank;
    sum_ = {};
    Fragments even, odd;
    LoadFragments(p, v1, even);
#pragma unroll 1
    for (; p + 16 < end; p += 32, v1 += 32) {
      LoadFragments(p + 16, v1 + 16, odd);
      AddProducts(even);
      if (p + 32 < end) LoadFragments(p + 32, v1 + 32, even);
      AddProducts(odd);
    }
    if (p < end) AddProducts(even);
  }

  // h = act(sum + bias) of a step, to shared memory.
  template <Activation kActivation>
  __device__ void ActivateAs(int step) {
    const int first = ColumnGroup() * C::kHidden + Lane() % 4 * 2;
#pragma unroll
    for (int n = 0; n < C::kHiddenTiles; ++n) {
      const int column = first + n * 8;
      float2 bias[C::kWeights];
#pragma unroll
      for (int w = 0; w < C::kWeights; ++w) {
        bias[w] = *reinterpret_cast<const float2*>(Bias(step, w) + column);
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
          const int row = FirstRow() + m * 16 + half * 8 + Lane() / 4;
          *reinterpret_cast<uint32_t*>(
              H(step) + Tile::Offset(row, column / kChunk) +
              column % kChunk * kElementBytes) = Pack<T>(x, y);
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
    T* staged = P() + FirstRow() * kPitch + first_column;
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

  __device__ T* P() const { return reinterpret_cast<T*>(shared_); }
  __device__ T* V1() const {
    return reinterpret_cast<T*>(shared_ + layout_.v1);
  }
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
  __device__ static int ColumnGroup() { return Warp() % kColumnGroups; }
  __device__ static int FirstRow() {
    return Warp() / kColumnGroups * kWarpRows;
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
