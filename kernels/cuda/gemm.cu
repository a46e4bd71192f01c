// Gemm(): tiles of x and W pass through shared memory in stages, by copies in
// the background; warps multiply their parts of the stage that has arrived. The
// result passes through the same memory, so that whole lines are written.
//
// A gated block computes half as many columns: the lower half of its W tile are
// rows of W, the upper half rows of the gate, and each warp has the same
// columns of both.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/hopper/gemm.h"
#include "kernels/cuda/hopper/split_gemm.h"
#include "kernels/cuda/kernel_family.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/shared_tile.cuh"

namespace svdserve::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kChunk = 8;  // elements of a 16-byte copy

// ---- The table ----

struct Tile {
  int rows, columns;  // of a block
  int depth;          // of k, of a stage
  int stages;
  int warp_rows, warp_columns;
  int blocks;  // of a multiprocessor that registers are kept for
  bool gated;  // whether compiled for gates as well
  bool few;    // of few rows: whether for sums and groups as well
  // Of a multiprocessor, for 16 of k: for each of many blocks, and for one
  // that is alone.
  int cycles, alone;
  int copiers = 0;  // further warps, which copy in place of those that multiply
  int least_in = 0;  // shorter sums end sooner by other tiles

  constexpr int MultiplyingThreads() const {
    return rows / warp_rows * (columns / warp_columns) * kWarp;
  }
  constexpr int Threads() const {
    return MultiplyingThreads() + copiers * kWarp;
  }
  constexpr int StageBytes() const {
    return (rows + columns) * depth * kElementBytes;
  }
  constexpr int SharedBytes() const { return stages * StageBytes(); }
};

// Cycles are a model in which only ratios matter, fitted to an H100: of 15
// shapes of 1024 to 16384 rows it takes the fastest tile. Where multiprocessors
// have more than one of the last two, nothing but the latency of products that
// wait for one another was measured. Warps of 64 x 64 read the fewest bytes of
// shared memory per product that registers allow.
constexpr Tile kTiles[kGemmTiles] = {
    // Most shapes of many rows: two blocks, one stores while one multiplies.
    {128, 128, 64, 3, 64, 64, 2, true, false, 210, 256},
    // 3/4 of the copies of two of the first, and no faster.
    {256, 128, 64, 3, 64, 64, 1, false, false, 420, 420},
    // Ranks that are odd multiples of 64 (192, 320, 576).
    {128, 64, 64, 3, 64, 32, 3, false, false, 115, 150},
    // Up to some thousand rows.
    {64, 64, 64, 4, 32, 32, 3, true, true, 73, 102},
    // So few tiles that multiprocessors would idle. What counts is the time of
    // one block: deep stages, many of them.
    {32, 32, 128, 4, 16, 16, 3, false, true, 41, 41},
    {16, 32, 128, 6, 16, 16, 3, false, true, 36, 36},
    // The same for long sums: warps that only copy, and half as many stages.
    {16, 32, 256, 4, 16, 16, 2, false, true, 36, 33, 2, 1024},
};

// What every device has; the wide tile is for others.
static_assert(kTiles[0].SharedBytes() <= 99 << 10);
static_assert(kTiles[1].SharedBytes() <= 163 << 10);
static_assert(kTiles[2].SharedBytes() <= 99 << 10);
static_assert(kTiles[3].SharedBytes() <= 99 << 10);
static_assert(kTiles[4].SharedBytes() <= 99 << 10);
static_assert(kTiles[5].SharedBytes() <= 99 << 10);
static_assert(kTiles[6].SharedBytes() <= 99 << 10);

constexpr int DivideUp(int a, int b) { return (a + b - 1) / b; }

// ---- The kernel ----

enum class Form { kPlain, kGated, kSums };

// What a kernel is compiled for.
template <typename T, int kTile, Form kForm>
struct Config {
  using Element = T;
  static constexpr Tile kShape = kTiles[kTile];
  static constexpr int kThreads = kShape.Threads();
  static constexpr int kMultiplying = kShape.MultiplyingThreads();
  static constexpr int kRows = kShape.rows;
  static constexpr int kDepth = kShape.depth;
  static constexpr bool kGated = kForm == Form::kGated;
  static constexpr bool kSums = kForm == Form::kSums;
  static constexpr int kWeights = kGated ? 2 : 1;
  static constexpr int kColumns = kShape.columns / kWeights;  // of the result

  // Of one warp, in pieces of 16 rows and of 16 columns of one weight.
  static constexpr int kRowPieces = kShape.warp_rows / 16;
  static constexpr int kWarpColumns = kShape.warp_columns / kWeights;
  static constexpr int kColumnPieces = kWarpColumns / 16;
  static_assert(kWarpColumns % 16 == 0);

  using SharedX = SharedTile<kDepth>;
  static constexpr int kXBytes = kRows * SharedX::kRowBytes;
  static constexpr int kWeightBytes = kColumns * SharedX::kRowBytes;
  static constexpr int kStageBytes = kShape.StageBytes();
  static_assert(kXBytes + kWeights * kWeightBytes == kStageBytes);

  static constexpr int kStagedPitch = kColumns + kChunk;  // spreads the banks
  static_assert(kRows * kStagedPitch * kElementBytes <= kShape.SharedBytes());
};

// A thread's part of a block's work.
template <typename C>
class GemmBlock {
  using T = typename C::Element;

 public:
  __device__ explicit GemmBlock(const GemmParams& params)
      : params_(params), shared_(SharedMemory()) {
    // Neighbours share rows of x; W stays in the cache.
    const int across = (params.out + C::kColumns - 1) / C::kColumns;
    first_row_ = blockIdx.x / across * C::kRows;
    first_column_ = blockIdx.x % across * C::kColumns;
  }

  __device__ void Run() {
    constexpr int kStages = C::kShape.stages;
    const int steps = (params_.in + C::kDepth - 1) / C::kDepth;
#pragma unroll
    for (int step = 0; step < kStages - 1; ++step) {
      LoadWeights(step, step, threadIdx.x);
    }
    WaitForPriorKernels();
    LetNextKernelStartIfFew(params_.rows);
#pragma unroll
    for (int step = 0; step < kStages - 1; ++step) {
      LoadRows(step, step, threadIdx.x);
      CopyCommit();
    }
    int stage = 0;
    int next_stage = kStages - 1;
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      CopyWait<kStages - 2>();
      __syncthreads();
      if (Multiplies()) {
        MultiplyAdd(stage, step + kStages - 1, next_stage);
      } else {
        Load(step + kStages - 1, next_stage);
      }
      next_stage = stage;
      if (++stage == kStages) stage = 0;
    }
    CopyWait<0>();
    if constexpr (C::kSums) {
      if (Multiplies()) StoreSums();
      return;
    }
    __syncthreads();
    if (Multiplies()) Finish();
    __syncthreads();
    if (Multiplies()) Store();
  }

 private:
  __device__ static int Lane() { return threadIdx.x % kWarp; }
  __device__ static bool Multiplies() {
    return C::kShape.copiers == 0 || threadIdx.x < C::kMultiplying;
  }
  // Of the warp, in the block's tile.
  __device__ static int FirstRow() {
    return threadIdx.x / kWarp % (C::kRows / C::kShape.warp_rows) *
           C::kShape.warp_rows;
  }
  __device__ static int FirstColumn() {
    return threadIdx.x / kWarp / (C::kRows / C::kShape.warp_rows) *
           C::kWarpColumns;
  }
  __device__ unsigned char* Stage(int stage) const {
    return shared_ + stage * C::kStageBytes;
  }

  // By those who copy while products run; the others' part is empty.
  __device__ void Load(int step, int stage) const {
    constexpr int kCopiers = C::kThreads - C::kMultiplying;
    if constexpr (kCopiers == 0) {
      LoadRows(step, stage, threadIdx.x);
      LoadWeights(step, stage, threadIdx.x);
    } else if (!Multiplies()) {
      const int copier = threadIdx.x - C::kMultiplying;
      LoadRows<kCopiers>(step, stage, copier);
      LoadWeights<kCopiers>(step, stage, copier);
    }
    CopyCommit();
  }
  // By so many threads. Zeros past the rows, past `out` and past `in`.
  template <int kThreads = C::kThreads>
  __device__ void LoadRows(int step, int stage, int thread) const {
    const int k = step * C::kDepth;
    CopyTile<C::kDepth, C::kRows, kThreads>(
        Stage(stage), static_cast<const T*>(params_.x) + k, params_.x_stride,
        params_.in - k, first_row_, params_.rows, thread);
  }
  template <int kThreads = C::kThreads>
  __device__ void LoadWeights(int step, int stage, int thread) const {
    const int k = step * C::kDepth;
    unsigned char* tile = Stage(stage);
#pragma unroll
    for (int i = 0; i < C::kWeights; ++i) {
      const T* weight =
          static_cast<const T*>(i == 0 ? params_.w : params_.gate);
      CopyTile<C::kDepth, C::kColumns, kThreads>(
          tile + C::kXBytes + i * C::kWeightBytes, weight + k, params_.in,
          params_.in - k, first_column_, params_.out, thread);
    }
  }

  // What the products of 16 values of k take.
  struct Fragments {
    uint32_t x[C::kRowPieces][4];
    uint32_t w[C::kWeights][C::kColumnPieces][4];
  };

  // sum += x·Wᵀ of a stage. The next fragments are on their way while the
  // tensor cores have these; copies of `next_step` are started beside products.
  __device__ void MultiplyAdd(int stage, int next_step, int next_stage) {
    const PieceReader<C::kDepth, Piece::kA> x(
        Stage(stage) + FirstRow() * C::SharedX::kRowBytes, Lane());
    const PieceReader<C::kDepth, Piece::kB> w(
        Stage(stage) + C::kXBytes + FirstColumn() * C::SharedX::kRowBytes,
        Lane());
    constexpr int kPieces = C::kDepth / 16;
    Fragments fragments[2];
    LoadFragments(x, w, 0, fragments[0]);
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      if (k + 1 < kPieces) LoadFragments(x, w, k + 1, fragments[(k + 1) % 2]);
      AddProducts(fragments[k % 2]);
      if (k == 0) Load(next_step, next_stage);
    }
  }

  __device__ static void LoadFragments(
      const PieceReader<C::kDepth, Piece::kA>& x,
      const PieceReader<C::kDepth, Piece::kB>& w, int k, Fragments& f) {
#pragma unroll
    for (int m = 0; m < C::kRowPieces; ++m) x.Load(f.x[m], m, k);
#pragma unroll
    for (int i = 0; i < C::kWeights; ++i) {
#pragma unroll
      for (int n = 0; n < C::kColumnPieces; ++n) {
        w.Load(f.w[i][n], i * (C::kColumns / 16) + n, k);
      }
    }
  }

  __device__ void AddProducts(const Fragments& f) {
#pragma unroll
    for (int m = 0; m < C::kRowPieces; ++m) {
#pragma unroll
      for (int i = 0; i < C::kWeights; ++i) {
#pragma unroll
        for (int n = 0; n < C::kColumnPieces; ++n) {
          const auto& w = f.w[i][n];
          Mma<T>(sum_[i][m][2 * n], f.x[m], w[0], w[1]);
          Mma<T>(sum_[i][m][2 * n + 1], f.x[m], w[2], w[3]);
        }
      }
    }
  }

  __device__ static float2 BiasAt(const float* bias, int column, bool valid) {
    if (bias == nullptr || !valid) return {0, 0};
    return *reinterpret_cast<const float2*>(bias + column);
  }

  // act(sum + bias), rounded, to shared memory.
  template <Activation kActivation>
  __device__ void FinishAs() {
    T* staged = reinterpret_cast<T*>(shared_);  // [kRows, kStagedPitch]
#pragma unroll
    for (int n = 0; n < 2 * C::kColumnPieces; ++n) {
      const int column = FirstColumn() + n * 8 + Lane() % 4 * 2;
      const bool valid = first_column_ + column < params_.out;
      const float2 bias = BiasAt(params_.bias, first_column_ + column, valid);
      float2 gate_bias = {0, 0};
      if constexpr (C::kGated) {
        gate_bias = BiasAt(params_.gate_bias, first_column_ + column, valid);
      }
#pragma unroll
      for (int m = 0; m < C::kRowPieces; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float* sums = &sum_[0][m][n][half * 2];
          float low = Activate<T>(kActivation, sums[0] + bias.x);
          float high = Activate<T>(kActivation, sums[1] + bias.y);
          if constexpr (C::kGated) {
            const float* gates = &sum_[1][m][n][half * 2];
            low *= gates[0] + gate_bias.x;
            high *= gates[1] + gate_bias.y;
          }
          const int row = FirstRow() + m * 16 + half * 8 + Lane() / 4;
          *reinterpret_cast<uint32_t*>(staged + row * C::kStagedPitch +
                                       column) = Pack<T>(low, high);
        }
      }
    }
  }

  __device__ void Finish() {
    switch (params_.activation) {
      case Activation::kNone:
        return FinishAs<Activation::kNone>();
      case Activation::kGelu:
        return FinishAs<Activation::kGelu>();
      case Activation::kGeluTanh:
        return FinishAs<Activation::kGeluTanh>();
      case Activation::kRelu:
        return FinishAs<Activation::kRelu>();
      case Activation::kSilu:
        return FinishAs<Activation::kSilu>();
    }
  }

  // Neighbouring threads write neighbouring chunks.
  __device__ void Store() const {
    constexpr int kAcross = C::kColumns / kChunk;
    constexpr int kDown = C::kMultiplying / kAcross;
    static_assert(C::kMultiplying % kAcross == 0 && C::kRows % kDown == 0);
    const T* staged = reinterpret_cast<const T*>(shared_);
    const int column = threadIdx.x % kAcross * kChunk;
    if (first_column_ + column >= params_.out) return;
    T* y = static_cast<T*>(params_.y) + first_column_ + column;
#pragma unroll
    for (int i = 0; i < C::kRows; i += kDown) {
      const int row = threadIdx.x / kAcross + i;
      if (first_row_ + row >= params_.rows) return;
      *reinterpret_cast<uint4*>(y + (first_row_ + row) * params_.y_stride) =
          *reinterpret_cast<const uint4*>(staged + row * C::kStagedPitch +
                                          column);
    }
  }

  // Four lanes write 32 bytes of a row.
  __device__ void StoreSums() const {
#pragma unroll
    for (int m = 0; m < C::kRowPieces; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row =
            first_row_ + FirstRow() + m * 16 + half * 8 + Lane() / 4;
        if (row >= params_.rows) continue;
        float* to = params_.sums + int64_t{row} * params_.out;
#pragma unroll
        for (int n = 0; n < 2 * C::kColumnPieces; ++n) {
          const int column =
              first_column_ + FirstColumn() + n * 8 + Lane() % 4 * 2;
          if (column >= params_.out) continue;
          const float* sums = &sum_[0][m][n][half * 2];
          *reinterpret_cast<float2*>(to + column) = {sums[0], sums[1]};
        }
      }
    }
  }

  const GemmParams& params_;
  unsigned char* shared_;  // stages: x [kRows, kDepth], W [columns, kDepth]
  int first_row_;
  int first_column_;
  float sum_[C::kWeights][C::kRowPieces][2 * C::kColumnPieces][4] = {};
};

template <typename C>
__global__ void __launch_bounds__(C::kThreads, C::kShape.blocks)
    GemmKernel(const GemmParams params) {
  GemmBlock<C>(params).Run();
}

// A part of the group for each y of the grid.
struct GroupParams {
  GemmParams parts[kGemmGroup];
};

template <typename C>
__global__ void __launch_bounds__(C::kThreads, C::kShape.blocks)
    GemmGroupKernel(const GroupParams group) {
  GemmBlock<C>(group.parts[blockIdx.y]).Run();
}

// ---- On the host ----

template <typename Params>
using Kernel = void (*)(Params);

// Null where not compiled.
template <typename T, int kTile>
Kernel<GemmParams> CompiledFor(Form form) {
  switch (form) {
    case Form::kPlain:
      return GemmKernel<Config<T, kTile, Form::kPlain>>;
    case Form::kGated:
      if constexpr (kTiles[kTile].gated) {
        return GemmKernel<Config<T, kTile, Form::kGated>>;
      }
      return nullptr;
    case Form::kSums:
      if constexpr (kTiles[kTile].few) {
        return GemmKernel<Config<T, kTile, Form::kSums>>;
      }
      return nullptr;
  }
  return nullptr;
}

template <typename T, int kTile>
Kernel<GroupParams> CompiledForGroups() {
  if constexpr (kTiles[kTile].few) {
    return GemmGroupKernel<Config<T, kTile, Form::kPlain>>;
  }
  return nullptr;
}

template <typename T, size_t... kTile>
Kernel<GemmParams> Find(int tile, Form form,
                        std::index_sequence<kTile...> /*all*/) {
  static constexpr Kernel<GemmParams> (*kFor[])(Form) = {
      CompiledFor<T, kTile>...};
  return kFor[tile](form);
}

template <typename T, size_t... kTile>
Kernel<GroupParams> FindForGroups(int tile,
                                  std::index_sequence<kTile...> /*all*/) {
  static constexpr Kernel<GroupParams> (*kFor[])() = {
      CompiledForGroups<T, kTile>...};
  return kFor[tile]();
}

Form FormOf(const GemmParams& p) {
  if (p.sums != nullptr) return Form::kSums;
  return p.gate != nullptr ? Form::kGated : Form::kPlain;
}

bool MakesSense(const GemmParams& p) {
  const bool has_result =
      p.sums != nullptr
          ? p.gate == nullptr && IsAligned(p.sums, 8)
          : p.y != nullptr && p.y_stride >= p.out && p.y_stride % kChunk == 0;
  return p.rows >= 0 && p.in > 0 && p.in % kChunk == 0 && p.out > 0 &&
         p.out % kChunk == 0 && p.x_stride >= p.in &&
         p.x_stride % kChunk == 0 && p.x != nullptr && p.w != nullptr &&
         has_result && IsAligned(p.x, 16) && IsAligned(p.w, 16) &&
         IsAligned(p.y, 16) && IsAligned(p.gate, 16) && IsAligned(p.bias, 8) &&
         IsAligned(p.gate_bias, 8) &&
         (p.gate != nullptr || p.gate_bias == nullptr);
}

bool MakeSense(const GemmParams* parts, int count) {
  if (count < 1 || count > kGemmGroup) return false;
  for (int i = 0; i < count; ++i) {
    if (!MakesSense(parts[i]) || FormOf(parts[i]) != Form::kPlain ||
        parts[i].rows != parts[0].rows || parts[i].out != parts[0].out ||
        parts[i].type != parts[0].type) {
      return false;
    }
  }
  return true;
}

int64_t Blocks(const Tile& tile, const GemmParams& p) {
  const int columns = p.gate != nullptr ? tile.columns / 2 : tile.columns;
  return int64_t{DivideUp(p.rows, tile.rows)} * DivideUp(p.out, columns);
}

bool Takes(const Tile& tile, const GemmParams& p, const DeviceLimits& limits) {
  const Form form = FormOf(p);
  return tile.SharedBytes() <= limits.shared_bytes &&
         (form == Form::kPlain ||
          (form == Form::kGated ? tile.gated : tile.few));
}

// The multiprocessor with the most blocks ends last.
int64_t Cycles(const Tile& tile, const GemmParams& p, int count,
               const DeviceLimits& limits) {
  const int multiprocessors = std::max(1, limits.multiprocessors);
  const int64_t most =
      (count * Blocks(tile, p) + multiprocessors - 1) / multiprocessors;
  return std::max<int64_t>(most * tile.cycles, tile.alone) * DivideUp(p.in, 16);
}

// For `count` such products at once; -1 where none is taken.
int FastestTile(const GemmParams& params, int count,
                const DeviceLimits& limits) {
  int fastest = -1;
  for (int i = 0; i < kGemmTiles; ++i) {
    if (!Takes(kTiles[i], params, limits)) continue;
    if (params.in < kTiles[i].least_in) continue;
    if (fastest < 0 || Cycles(kTiles[i], params, count, limits) <
                           Cycles(kTiles[fastest], params, count, limits)) {
      fastest = i;
    }
  }
  return fastest;
}

constexpr auto kAllTiles = std::make_index_sequence<kGemmTiles>();

}  // namespace

cudaError_t GemmWithTile(int tile, const GemmParams& params,
                         const DeviceLimits& limits, cudaStream_t stream) {
  if (!MakesSense(params)) return cudaErrorInvalidValue;
  if (tile < 0 || tile >= kGemmTiles || !Takes(kTiles[tile], params, limits)) {
    return cudaErrorNotSupported;
  }
  if (params.rows == 0) return cudaSuccess;
  const Kernel<GemmParams> kernel =
      params.type == Type::kBF16
          ? Find<__nv_bfloat16>(tile, FormOf(params), kAllTiles)
          : Find<__half>(tile, FormOf(params), kAllTiles);
  const auto blocks = static_cast<unsigned>(Blocks(kTiles[tile], params));
  return LaunchDependent(
      kernel, dim3(blocks), kTiles[tile].Threads(),
      SpreadIfFew(kTiles[tile].SharedBytes(), blocks, params.rows, limits),
      stream, params);
}

bool SplitsSum([[maybe_unused]] const GemmParams& params,
               [[maybe_unused]] const DeviceLimits& limits) {
  if constexpr (kHopperLinked) {
    return params.split_sum && FormOf(params) == Form::kPlain &&
           TakesHopperKernels(limits) && hopper::SplitGemmTakes(params, limits);
  }
  return false;
}

cudaError_t Gemm(const GemmParams& params, const DeviceLimits& limits,
                 cudaStream_t stream) {
  if (!MakesSense(params)) return cudaErrorInvalidValue;
  if constexpr (kHopperLinked) {
    if (SplitsSum(params, limits)) {
      return hopper::SplitGemm(params, limits, stream);
    }
    if (TakesHopperKernels(limits) && hopper::GemmTakes(params, limits)) {
      return hopper::Gemm(params, limits, stream);
    }
  }
  return GemmWithTile(FastestTile(params, 1, limits), params, limits, stream);
}

cudaError_t GemmGroup(const GemmParams* parts, int count,
                      const DeviceLimits& limits, cudaStream_t stream) {
  if (!MakeSense(parts, count)) return cudaErrorInvalidValue;
  if (parts[0].rows == 0) return cudaSuccess;
  if constexpr (kHopperLinked) {
    if (TakesHopperKernels(limits) &&
        hopper::GemmGroupTakes(parts, count, limits)) {
      return hopper::GemmGroup(parts, count, limits, stream);
    }
  }
  const int tile = FastestTile(parts[0], count, limits);
  if (tile < 0) return cudaErrorNotSupported;
  if (!kTiles[tile].few) {  // many rows: launches cost little
    for (int i = 0; i < count; ++i) {
      const cudaError_t error = Gemm(parts[i], limits, stream);
      if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
  }
  GroupParams group;
  std::copy_n(parts, count, group.parts);
  const Kernel<GroupParams> kernel =
      parts[0].type == Type::kBF16
          ? FindForGroups<__nv_bfloat16>(tile, kAllTiles)
          : FindForGroups<__half>(tile, kAllTiles);
  const auto blocks = static_cast<unsigned>(Blocks(kTiles[tile], parts[0]));
  return LaunchDependent(
      kernel, dim3(blocks, count), kTiles[tile].Threads(),
      SpreadIfFew(kTiles[tile].SharedBytes(), int64_t{count} * blocks,
                  parts[0].rows, limits),
      stream, group);
}

}  // namespace svdserve::cuda
