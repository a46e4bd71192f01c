// GemmNorm(): a block has all columns of a few rows, each of eight warps a
// slice of the columns; sums stay in registers until the row is finished. y and
// W pass through shared memory in stages. When no stage is left to load, the
// block's rows of x follow, as if they were stages, into the same memory.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels/cuda/gemm.h"
#include "kernels/cuda/gemm_norm.h"
#include "kernels/cuda/hopper/gemm_norm.h"
#include "kernels/cuda/kernel_family.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/product_loop.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/shared_tile.cuh"

namespace svdserve::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kSlices = 8;  // of the columns, one for each warp
constexpr int kThreads = kSlices * kWarp;
constexpr int kChunk = 8;  // elements of a 16-byte copy

constexpr int DivideUp(int a, int b) { return (a + b - 1) / b; }

// ---- The table ----

struct Tile {
  int columns;  // the hidden width, padded
  int rows;     // of a block
  int depth;    // of k, of a stage
  int stages;

  constexpr int StageBytes() const {
    return (rows + columns) * depth * kElementBytes;
  }
  // Of bias, gamma and beta.
  constexpr int VectorBytes() const { return 3 * columns * int{sizeof(float)}; }
  constexpr int SharedBytes() const {
    return stages * StageBytes() + VectorBytes();
  }

  // Of a multiprocessor, for a block and 16 of k. A model: the slower of
  // products, 1270 multiply-adds a cycle, and copies, 50 bytes a cycle.
  constexpr int Cycles() const {
    return std::max(rows * columns * 16 / 1270,
                    (rows + columns) * 16 * kElementBytes / 50);
  }
};

// Many rows read W fewer times: 192 sums of a thread are as many as registers
// hold. Few rows occupy more multiprocessors. Stages of 32 read half lines,
// those of 16 quarters, but they fit into 99 KB.
constexpr Tile kTiles[kGemmNormTiles] = {
    {1024, 48, 32, 3}, {1024, 16, 32, 3}, {1024, 16, 16, 2}, {768, 64, 32, 3},
    {768, 48, 32, 3},  {768, 32, 32, 3},  {768, 16, 32, 3},  {768, 32, 16, 3},
    {512, 64, 32, 3},  {512, 16, 32, 4},  {512, 32, 16, 4},  {384, 64, 32, 3},
    {384, 16, 32, 3},  {256, 64, 32, 3},  {256, 16, 32, 4},
};

constexpr int PaddedWidth(int hidden) {
  for (int columns : {256, 384, 512, 768}) {
    if (hidden <= columns) return columns;
  }
  return 1024;
}

// Whether each width has a tile for devices with so much memory.
constexpr bool AllWidthsFit(int shared_bytes) {
  for (int columns : {256, 384, 512, 768, 1024}) {
    bool fits = false;
    for (const Tile& tile : kTiles) {
      fits |= tile.columns == columns && tile.SharedBytes() <= shared_bytes;
    }
    if (!fits) return false;
  }
  return true;
}
static_assert(AllWidthsFit(99 << 10));                // sm_86
static_assert(kTiles[4].SharedBytes() <= 163 << 10);  // sm_80
static_assert(kTiles[0].SharedBytes() <= 227 << 10);  // sm_90
static_assert(kTiles[3].SharedBytes() <= 227 << 10);

// ---- The kernel ----

// What a kernel is compiled for.
template <typename T, int kTile>
struct Config {
  using Element = T;
  static constexpr Tile kShape = kTiles[kTile];
  static constexpr int kRows = kShape.rows;
  static constexpr int kColumns = kShape.columns;
  static constexpr int kDepth = kShape.depth;
  static constexpr int kStages = kShape.stages;

  // Of one warp, in pieces of 16.
  static constexpr int kSlice = kColumns / kSlices;
  static constexpr int kRowPieces = kRows / 16;
  static constexpr int kWeightPieces = kSlice / 16;
  static_assert(kRows % 16 == 0 && kSlice % 16 == 0);

  static constexpr int kYBytes = kRows * SharedTile<kDepth>::kRowBytes;
  static constexpr int kStageBytes = kShape.StageBytes();

  // x lies in all stages but one, so many rows in each; the last step's stage
  // is in use until the end, then holds sums of slices.
  static constexpr int kPartRows =
      DivideUp(DivideUp(kRows, kStages - 1), 8) * 8;
  static constexpr int kXPitch = kColumns + kChunk;  // spreads the banks
  static_assert(kPartRows * kXPitch * kElementBytes <= kStageBytes);
  static_assert(2 * kSlices * kRows * int{sizeof(float)} <= kStageBytes);
};

// A thread's part of a block's work. It has rows Row(0), Row(1), ..., in each
// two columns of every eight of its warp's slice.
template <typename C>
class GemmNormBlock {
  using T = typename C::Element;
  static constexpr int kThreadRows = 2 * C::kRowPieces;
  static constexpr int kThreadTiles = 2 * C::kWeightPieces;

 public:
  __device__ explicit GemmNormBlock(const GemmNormParams& params)
      : params_(params),
        shared_(SharedMemory()),
        loop_(shared_, Slice() * C::kSlice),
        first_row_(blockIdx.x * C::kRows) {}

  // Both products and norm.
  __device__ void Run() {
    steps_ = (params_.in + C::kDepth - 1) / C::kDepth;
    LoadVectors();
    WaitForPriorKernels();
    LetNextKernelStartIfFew(params_.rows);
    loop_.Run(steps_, *this);
    Normalize();
  }

  // The norm alone: sums come from memory. x is of kernels before Gemm(), which
  // has waited for them.
  __device__ void RunNorm() {
    steps_ = 0;
    LoadVectors();
#pragma unroll
    for (int part = 0; part < C::kStages - 1; ++part) {
      LoadRows(part * C::kPartRows);
    }
    CopyCommit();
    WaitForPriorKernels();
    LetNextKernelStartIfFew(params_.rows);
    LoadSums();
    Normalize();
  }

  // For the loop. Zeros past the rows, `hidden` and `in`; past the end come the
  // rows of x.
  __device__ __forceinline__ void Load(int step, int stage, int part) const {
    if (step < steps_) {
      constexpr int kParts = ProductLoop<C>::kParts;
      const int k = step * C::kDepth;
      unsigned char* tile = Stage(stage);
      CopyPart<C::kDepth, C::kRows, kThreads>(
          tile, static_cast<const T*>(params_.y) + k, params_.y_stride,
          params_.in - k, first_row_, params_.rows, part, kParts);
      CopyPart<C::kDepth, C::kColumns, kThreads>(
          tile + C::kYBytes, static_cast<const T*>(params_.w) + k, params_.in,
          params_.in - k, 0, params_.hidden, part, kParts);
    } else if (part == 0) {
      LoadRows((step - steps_) * C::kPartRows);
    }
  }

 private:
  __device__ static int Lane() { return threadIdx.x % kWarp; }
  __device__ static int Slice() { return threadIdx.x / kWarp; }
  // Of the thread, in the block.
  __device__ static int Row(int i) { return i * 8 + Lane() / 4; }
  // The first of two.
  __device__ static int Column(int n) {
    return Slice() * C::kSlice + n * 8 + Lane() % 4 * 2;
  }
  // The same for all of a warp; other columns are padding.
  __device__ bool IsColumn(int n) const {
    return Slice() * C::kSlice + n * 8 < params_.hidden;
  }
  __device__ float* Sums(int i, int n) {
    return &loop_.sum[i / 2][n][i % 2 * 2];
  }
  __device__ unsigned char* Stage(int stage) const {
    return shared_ + stage * C::kStageBytes;
  }
  // Row(i) of x, later of the result. Eight rows lie in one part.
  __device__ T* SharedThreadRow(int i) const {
    return SharedRow(i * 8) + Lane() / 4 * C::kXPitch;
  }
  __device__ T* SharedRow(int row) const {
    const int part = row / C::kPartRows;
    return reinterpret_cast<T*>(Stage((steps_ + part) % C::kStages)) +
           row % C::kPartRows * C::kXPitch;
  }

  // bias, gamma and beta: [kColumns] each.
  __device__ float* Vector(int which) const {
    return reinterpret_cast<float*>(Stage(C::kStages)) + which * C::kColumns;
  }
  __device__ void LoadVectors() const {
    const float* const vectors[] = {params_.bias, params_.gamma, params_.beta};
#pragma unroll
    for (int which = 0; which < 3; ++which) {
      const int column = threadIdx.x * 4;
      if (column < params_.hidden) {
        // No arithmetic on the null of a bias that is not there.
        const float* const from = vectors[which];
        const bool there = from != nullptr;
        CopyAsync16(Vector(which) + column, there ? from + column : from,
                    there);
      }
    }
  }

  // A part of the block's rows of x.
  __device__ void LoadRows(int first) const {
    const T* x = static_cast<const T*>(params_.x);
#pragma unroll 1
    for (int i = threadIdx.x; i < C::kPartRows * C::kColumns / kChunk;
         i += kThreads) {
      const int row = first + i / (C::kColumns / kChunk);
      const int column = i % (C::kColumns / kChunk) * kChunk;
      if (row >= C::kRows || column >= params_.hidden) continue;
      const bool valid = first_row_ + row < params_.rows;
      CopyAsync16(SharedRow(row) + column,
                  x + int64_t{first_row_ + row} * params_.hidden + column,
                  valid);
    }
  }

  // What Gemm() left.
  __device__ void LoadSums() {
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
      const int row = first_row_ + Row(i);
      const float* update = params_.update + int64_t{row} * params_.hidden;
#pragma unroll
      for (int n = 0; n < kThreadTiles; ++n) {
        float2 pair = {0, 0};
        if (row < params_.rows && IsColumn(n)) {
          pair = *reinterpret_cast<const float2*>(update + Column(n));
        }
        Sums(i, n)[0] = pair.x;
        Sums(i, n)[1] = pair.y;
      }
    }
  }

  // x = LayerNorm(x + sum + bias)
  __device__ void Normalize() {
    CopyWait<0>();
    __syncthreads();
    AddResidual();
    Standardize();
    Scale();
    __syncthreads();
    Store();
  }

  // sum + bias + x
  __device__ void AddResidual() {
#pragma unroll
    for (int n = 0; n < kThreadTiles; ++n) {
      const float2 bias = At(0, n);
#pragma unroll
      for (int i = 0; i < kThreadRows; ++i) {
        const float2 x = Unpack<T>(
            *reinterpret_cast<const uint32_t*>(SharedThreadRow(i) + Column(n)));
        float* sums = Sums(i, n);
        sums[0] = IsColumn(n) ? sums[0] + bias.x + x.x : 0;
        sums[1] = IsColumn(n) ? sums[1] + bias.y + x.y : 0;
      }
    }
  }
  __device__ float2 At(int vector, int n) const {
    return *reinterpret_cast<const float2*>(Vector(vector) + Column(n));
  }

  // Of whole rows, from the thread's parts: four lanes, then eight slices in
  // order. `which` of two buffers.
  __device__ void AddUp(float (&values)[kThreadRows], int which) const {
    float* slices = reinterpret_cast<float*>(
                        Stage((steps_ + C::kStages - 1) % C::kStages)) +
                    which * kSlices * C::kRows;  // [kSlices, kRows]
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
      values[i] += ShuffleXor(values[i], 1);
      values[i] += ShuffleXor(values[i], 2);
      if (Lane() % 4 == 0) slices[Slice() * C::kRows + Row(i)] = values[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
      values[i] = 0;
#pragma unroll
      for (int s = 0; s < kSlices; ++s) {
        values[i] += slices[s * C::kRows + Row(i)];
      }
    }
  }

  // Leaves deviations from the mean, and what to scale them by.
  __device__ void Standardize() {
    float mean[kThreadRows] = {};
#pragma unroll
    for (int n = 0; n < kThreadTiles; ++n) {
#pragma unroll
      for (int i = 0; i < kThreadRows; ++i) {  // zeros in padding
        mean[i] += Sums(i, n)[0];
        mean[i] += Sums(i, n)[1];
      }
    }
    AddUp(mean, 0);
    const float hidden = params_.hidden;
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
      mean[i] /= hidden;
      scale_[i] = 0;
    }
#pragma unroll
    for (int n = 0; n < kThreadTiles; ++n) {
#pragma unroll
      for (int i = 0; i < kThreadRows; ++i) {
        float* sums = Sums(i, n);
        sums[0] = IsColumn(n) ? sums[0] - mean[i] : 0;
        sums[1] = IsColumn(n) ? sums[1] - mean[i] : 0;
        scale_[i] = fmaf(sums[0], sums[0], scale_[i]);
        scale_[i] = fmaf(sums[1], sums[1], scale_[i]);
      }
    }
    AddUp(scale_, 1);
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
      scale_[i] = 1 / sqrtf(scale_[i] / hidden + params_.eps);
    }
  }

  // The result, rounded, takes the place of x.
  __device__ void Scale() {
#pragma unroll
    for (int n = 0; n < kThreadTiles; ++n) {
      const float2 gamma = At(1, n);
      const float2 beta = At(2, n);
#pragma unroll
      for (int i = 0; i < kThreadRows; ++i) {
        const float* sums = Sums(i, n);
        *reinterpret_cast<uint32_t*>(SharedThreadRow(i) + Column(n)) =
            Pack<T>(fmaf(sums[0] * scale_[i], gamma.x, beta.x),
                    fmaf(sums[1] * scale_[i], gamma.y, beta.y));
      }
    }
  }

  // Whole lines.
  __device__ void Store() const {
    T* x = static_cast<T*>(params_.x);
#pragma unroll 1
    for (int i = threadIdx.x; i < C::kRows * C::kColumns / kChunk;
         i += kThreads) {
      const int row = i / (C::kColumns / kChunk);
      const int column = i % (C::kColumns / kChunk) * kChunk;
      if (first_row_ + row >= params_.rows) return;
      if (column >= params_.hidden) continue;
      *reinterpret_cast<uint4*>(x + int64_t{first_row_ + row} * params_.hidden +
                                column) =
          *reinterpret_cast<const uint4*>(SharedRow(row) + column);
    }
  }

  const GemmNormParams& params_;
  // Stages: y [kRows, kDepth], W [kColumns, kDepth]. Then the vectors.
  unsigned char* shared_;
  ProductLoop<C> loop_;
  int first_row_;
  int steps_ = 0;
  float scale_[kThreadRows];
};

template <typename C>
__global__ void __launch_bounds__(kThreads, 1)
    GemmNormKernel(const GemmNormParams params) {
  GemmNormBlock<C>(params).Run();
}

template <typename C>
__global__ void __launch_bounds__(kThreads, 1)
    NormKernel(const GemmNormParams params) {
  GemmNormBlock<C>(params).RunNorm();
}

// ---- On the host ----

using Kernel = void (*)(GemmNormParams);

template <typename T, size_t... kTile>
Kernel Find(int tile, std::index_sequence<kTile...> /*all*/) {
  static constexpr Kernel kKernels[] = {GemmNormKernel<Config<T, kTile>>...};
  return kKernels[tile];
}

// Of few rows: by the tile of the fewest.
template <typename T, int kTile>
Kernel NormOf() {
  if constexpr (kTiles[kTile].rows == 16) return NormKernel<Config<T, kTile>>;
  return nullptr;
}

template <typename T, size_t... kTile>
Kernel FindNorm(int tile, std::index_sequence<kTile...> /*all*/) {
  static constexpr Kernel (*kFor[])() = {NormOf<T, kTile>...};
  return kFor[tile]();
}

bool MakesSense(const GemmNormParams& p) {
  return p.rows >= 0 && p.in > 0 && p.in % kChunk == 0 && p.hidden > 0 &&
         p.hidden % 32 == 0 && p.hidden <= 1024 && p.y_stride >= p.in &&
         p.y_stride % kChunk == 0 && p.y != nullptr && p.w != nullptr &&
         p.gamma != nullptr && p.beta != nullptr && p.x != nullptr &&
         IsAligned(p.y, 16) && IsAligned(p.w, 16) && IsAligned(p.x, 16) &&
         IsAligned(p.bias, 16) && IsAligned(p.gamma, 16) &&
         IsAligned(p.beta, 16) && IsAligned(p.update, 8);
}

// The order of a row's sums depends on the width, so that has one padding.
bool Takes(const Tile& tile, int hidden, const DeviceLimits& limits) {
  return tile.columns == PaddedWidth(hidden) &&
         tile.SharedBytes() <= limits.shared_bytes;
}

// The multiprocessor with the most blocks ends last.
int64_t Cycles(const Tile& tile, int rows, const DeviceLimits& limits) {
  const int multiprocessors = std::max(1, limits.multiprocessors);
  return int64_t{tile.Cycles()} *
         DivideUp(DivideUp(rows, tile.rows), multiprocessors);
}

// -1 where none is taken.
int FastestTile(const GemmNormParams& params, const DeviceLimits& limits) {
  int fastest = -1;
  for (int i = 0; i < kGemmNormTiles; ++i) {
    if (!Takes(kTiles[i], params.hidden, limits)) continue;
    if (fastest < 0 || Cycles(kTiles[i], params.rows, limits) <
                           Cycles(kTiles[fastest], params.rows, limits)) {
      fastest = i;
    }
  }
  return fastest;
}

// For the norm alone; -1 where none is taken.
int NormTile(int hidden, const DeviceLimits& limits) {
  for (int i = 0; i < kGemmNormTiles; ++i) {
    if (kTiles[i].rows == 16 && Takes(kTiles[i], hidden, limits)) return i;
  }
  return -1;
}

constexpr auto kAllTiles = std::make_index_sequence<kGemmNormTiles>();

cudaError_t LaunchTile(Kernel kernel, int tile, const GemmNormParams& params,
                       cudaStream_t stream) {
  return LaunchDependent(kernel, dim3(DivideUp(params.rows, kTiles[tile].rows)),
                         kThreads, kTiles[tile].SharedBytes(), stream, params);
}

// y·Wᵀ by blocks that have some of the columns each, then the norm.
cudaError_t GemmThenNorm(const GemmNormParams& params,
                         const DeviceLimits& limits, int tile,
                         cudaStream_t stream) {
  GemmParams product;
  product.type = params.type;
  product.rows = params.rows;
  product.in = params.in;
  product.out = params.hidden;
  product.x = params.y;
  product.x_stride = params.y_stride;
  product.w = params.w;
  product.sums = params.update;
  const cudaError_t error = Gemm(product, limits, stream);
  if (error != cudaSuccess || params.rows == 0) return error;
  return LaunchTile(params.type == Type::kBF16
                        ? FindNorm<__nv_bfloat16>(tile, kAllTiles)
                        : FindNorm<__half>(tile, kAllTiles),
                    tile, params, stream);
}

}  // namespace

cudaError_t GemmNormWithTile(int tile, const GemmNormParams& params,
                             const DeviceLimits& limits, cudaStream_t stream) {
  if (!MakesSense(params)) return cudaErrorInvalidValue;
  if (tile < 0 || tile >= kGemmNormTiles ||
      !Takes(kTiles[tile], params.hidden, limits)) {
    return cudaErrorNotSupported;
  }
  if (params.rows == 0) return cudaSuccess;
  return LaunchTile(params.type == Type::kBF16
                        ? Find<__nv_bfloat16>(tile, kAllTiles)
                        : Find<__half>(tile, kAllTiles),
                    tile, params, stream);
}

bool GemmNormTakesUpdate(int hidden, const DeviceLimits& limits) {
  return hidden > 0 && hidden <= 1024 && NormTile(hidden, limits) >= 0;
}

cudaError_t GemmNorm(const GemmNormParams& params, const DeviceLimits& limits,
                     cudaStream_t stream) {
  if (!MakesSense(params)) return cudaErrorInvalidValue;
  if constexpr (kHopperLinked) {
    if (TakesHopperKernels(limits) && hopper::GemmNormHas(params, limits)) {
      return hopper::GemmNorm(params, limits, stream);
    }
  }
  const int norm_tile = NormTile(params.hidden, limits);
  if (params.update != nullptr && norm_tile >= 0) {
    return GemmThenNorm(params, limits, norm_tile, stream);
  }
  return GemmNormWithTile(FastestTile(params, limits), params, limits, stream);
}

}  // namespace svdserve::cuda
