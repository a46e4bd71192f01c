#include <algorithm>

#include "kernels/cuda/hopper/lowrank_attention.cuh"
#include "kernels/cuda/hopper/lowrank_attention.h"
#include "kernels/cuda/hopper/short_attention.h"
#include "kernels/cuda/launch.cuh"

namespace svdserve::cuda::hopper {
namespace {

// A block of threads builds, and then attends for, kBlockRows rows at a time:
// 64 a warpgroup. Each warp fetches rows of P for itself, as in the portable
// kernel; factors, keys and values are what wgmma reads from shared memory.
template <typename T, int kDim, int kWarpgroups, int kBlocks, int kColumns,
          int kStageCount>
struct Config : AttentionShape<T, kDim, kDim, 1> {
  using Shape = AttentionShape<T, kDim, kDim, 1>;
  static constexpr int kHeadDim = kDim;
  static constexpr int kThreads = kWarpgroups * kWarpgroupThreads;
  static constexpr int kBlockRows = kWarpgroups * kWarpgroupRows;
  static constexpr int kBlocksPerMultiprocessor = kBlocks;
  // Columns of P that arrive together, and how many such chunks are on their
  // way to a warp.
  static constexpr int kChunk = kColumns;
  static constexpr int kStages = kStageCount;
  static constexpr int kChunkBytes =
      Shape::kRows * SharedTile<kChunk>::kRowBytes;
  static constexpr int kFactorChunkBytes = kDim * SharedTile<kChunk>::kRowBytes;
};

// Shared memory: keys, values, a factor, perhaps another one, the warps'
// chunks.
struct Layout {
  int key_bytes;
  int value_bytes;  // at least factor_bytes without a second factor
  int factor_bytes;
  bool two_factors;

  // The factor of values lies in the first place, that of queries, too, once
  // values are built, unless there is a second. That of keys lies in the second
  // place, or where values will be.
  __device__ int FactorOffset(int part) const {
    const int first = key_bytes + value_bytes;
    if (part == kValue) return first;
    if (two_factors) return first + factor_bytes;
    return part == kKey ? key_bytes : first;
  }
  __host__ __device__ int StagesOffset() const {
    return key_bytes + value_bytes + (two_factors ? 2 : 1) * factor_bytes;
  }
};

struct Arguments {
  LowRankAttentionParams params;
  Layout layout;
};

// A warp's chunks of P on their way: all of its rows of all parts, one after
// the other without a gap, kStages at any time. The next rows' first chunks are
// under way while the last ones' results are stored, or attended to.
template <class C>
class RowStream {
 public:
  using T = typename C::Element;

  __device__ RowStream(const LowRankAttentionParams& params, const Place& place,
                       unsigned char* memory)
      : params_(params),
        place_(place),
        to_(memory + Tile::Offset(LaneOf() / kAcross, LaneOf() % kAcross)),
        reader_(memory, LaneOf()) {
    StartTile();
#pragma unroll 1
    for (int i = 0; i < C::kStages; ++i) Fetch();
  }

  // The oldest chunk's rows as fragments; its place is filled anew.
  __device__ void Take(uint32_t (&a)[C::kChunk / 16][4]) {
    CopyWait<C::kStages - 1>();
    __syncwarp();
#pragma unroll
    for (int step = 0; step < C::kChunk / 16; ++step) {
      reader_.Load(a[step], 0, step, stage_ * C::kChunkBytes);
    }
    __syncwarp();
    Fetch();
  }

 private:
  using Tile = SharedTile<C::kChunk>;
  static constexpr int kAcross = Tile::kChunks;
  static constexpr int kDown = 32 / kAcross;
  static_assert(kDown == 8 || Tile::kRowBytes == 128);

  __device__ void StartTile() {
    const auto operand = OperandOf<C>(params_, place_, part_);
    const int row = tile_ * C::kBlockRows + WarpRowOf<C>() + LaneOf() / kAcross;
    from_ = operand.p + row * params_.p_stride + LaneOf() % kAcross * 8;
    rows_ = place_.length - row;
    columns_ = operand.rank - LaneOf() % kAcross * 8;
    chunks_ = (operand.rank + C::kChunk - 1) / C::kChunk;
  }

  __device__ void Fetch() {
    if (part_ < kParts) {
      const int stage = stage_ * C::kChunkBytes;
#pragma unroll
      for (int r = 0; r < C::kRows; r += kDown) {
        // Four rows further down the permutation of 128 bytes flips.
        const int flip = kDown == 4 && r % 8 != 0 ? 64 : 0;
        unsigned char* to = reinterpret_cast<unsigned char*>(
            reinterpret_cast<uintptr_t>(to_) ^ flip);
        CopyAsync16(to + stage + r * Tile::kRowBytes,
                    from_ + r * params_.p_stride, r < rows_ && columns_ > 0);
      }
      from_ += C::kChunk;
      columns_ -= C::kChunk;
      if (--chunks_ == 0) {
        if (++tile_ == place_.tiles) {
          tile_ = 0;
          ++part_;
        }
        if (part_ < kParts) StartTile();
      }
    }
    CopyCommit();
    stage_ = stage_ + 1 == C::kStages ? 0 : stage_ + 1;
  }

  const LowRankAttentionParams& params_;
  const Place& place_;
  unsigned char* const to_;
  const PieceReader<C::kChunk, Piece::kA> reader_;
  int stage_ = 0;
  // What to fetch next: this thread's first row of it.
  int part_ = 0;
  int tile_ = 0;
  int chunks_;  // of the tile that are left
  const T* from_;
  int rows_;  // of the sequence, from that row on
  int columns_;
};

// The warpgroup's rows of a tile, with bias, from the stream's next chunks.
template <class C>
__device__ void ProjectRows(Sums<C>& sums, RowStream<C>& stream,
                            const Operand<typename C::Element>& operand,
                            uint32_t factor, bool has_rows) {
  constexpr int kSteps = C::kChunk / 16;
  float2 bias[C::kValueColumns] = {};
  LoadBias<C>(bias, operand.bias);  // under way while products are computed
#pragma unroll
  for (int n = 0; n < C::kValueColumns; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[0][n][i] = 0;
  }
#pragma unroll 1
  for (int column = 0; column < operand.rank; column += C::kChunk) {
    uint32_t rows[kSteps][4];
    stream.Take(rows);
    if (has_rows) {
      WgmmaFence();
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        Wgmma<typename C::Element>(
            Flat(sums[0]), rows[step],
            PanelTile<C::kChunk>::template Operand<C::kHeadDim>(factor, step),
            true);
      }
      WgmmaCommit();
      WgmmaWait<0>();
      KeepAfterWait(Flat(sums[0]));
    }
    factor += C::kFactorChunkBytes;
  }
  AddBias<C>(sums, bias, operand.bias);
}

// Waits for all copies but the stream's youngest, which have nothing to do with
// factors unless a part has fewer chunks than are on their way.
template <class C>
__device__ void WaitForFactor(const Place& place, int rank) {
  if (place.tiles * rank > C::kStages * C::kChunk) {
    CopyWait<C::kStages - 1>();
  } else {
    CopyWait<0>();
  }
}

template <class C>
__global__ void __launch_bounds__(C::kThreads, C::kBlocksPerMultiprocessor)
    LowRankAttentionKernel(const __grid_constant__ Arguments arguments) {
  const LowRankAttentionParams& params = arguments.params;
  const Layout& layout = arguments.layout;
  Place place = {static_cast<int>(blockIdx.x), 0, 0, 0};
  unsigned char* keys = SwizzledSharedMemory();
  unsigned char* values = keys + layout.key_bytes;
  const auto copy_factor = [&](int part) {
    CopyFactor<C>(keys + layout.FactorOffset(part),
                  OperandOf<C>(params, place, part));
  };

  copy_factor(kKey);  // does not ask where the sequence is
  place = FindPlace<C>(params);
  WaitForPriorKernels();
  LetNextKernelStart();
  if (place.length <= 0) {
    CopyWait<0>();
    return;
  }
  RowStream<C> stream(params, place,
                      keys + layout.StagesOffset() +
                          threadIdx.x / 32 * (C::kStages * C::kChunkBytes));
  // Of the part before; at first so that only the first chunk is waited for.
  int rank = C::kStages * C::kChunk + 1;
#pragma unroll 1
  for (int part = 0; part < kParts; ++part) {
    if (part == kQuery && !layout.two_factors) {
      __syncthreads();  // the factor of values was read
      copy_factor(kQuery);
      CopyCommit();
      CopyWait<0>();
    }
    WaitForFactor<C>(place, rank);
    FenceSharedForAsync();
    // The factor is here, and what the last part built; the last factor was
    // read. The next one arrives meanwhile.
    __syncthreads();
    if (part == kKey || (part == kValue && layout.two_factors)) {
      copy_factor(part + 1);
    }
    const auto operand = OperandOf<C>(params, place, part);
    rank = operand.rank;
    const uint32_t factor = SharedAddress(keys + layout.FactorOffset(part));
#pragma unroll 1
    for (int tile = 0; tile < place.tiles; ++tile) {
      const int warpgroup_row =
          tile * C::kBlockRows + WarpgroupOf() * kWarpgroupRows;
      const int warp_row = tile * C::kBlockRows + WarpRowOf<C>();
      const bool has_rows = warpgroup_row < place.length;
      Sums<C> sums;
      ProjectRows<C>(sums, stream, operand, factor, has_rows);
      if (!has_rows) continue;
      // Keys and values beyond the sequence's end are the bias: finite, and
      // never seen.
      if (part == kQuery) {
        AttendRows<C>(sums, params, place, SharedAddress(keys),
                      SharedAddress(values), warpgroup_row, warp_row);
      } else {
        StoreTileRows<C>(sums, part == kKey ? keys : values, warp_row,
                         warpgroup_row + kWarpgroupRows, LaneOf());
      }
    }
  }
}

// ---- Host ----

using Launcher = cudaError_t (*)(const Arguments&, int shared_bytes,
                                 const DeviceLimits&, cudaStream_t);

template <class C>
cudaError_t LaunchConfig(const Arguments& arguments, int shared_bytes,
                         const DeviceLimits& limits, cudaStream_t stream) {
  const LowRankAttentionParams& params = arguments.params;
  const int64_t blocks = int64_t{1} * params.heads * params.sequences;
  return LaunchDependent(LowRankAttentionKernel<C>,
                         dim3(params.heads, params.sequences), C::kThreads,
                         SpreadBytes(shared_bytes, blocks, limits), stream,
                         arguments);
}

struct Instance {
  int head_dim;
  int most_tokens;
  int blocks;  // of threads, of a multiprocessor
  bool many;   // only where there are more blocks than multiprocessors
  bool two_factors;
  int chunk;  // columns
  int stages_bytes;
  Launcher launch[2];  // bf16, fp16
};

template <int kDim, int kWarpgroups, int kBlocks, int kChunk, int kStages>
constexpr Instance MakeInstance(int most_tokens, int factors,
                                bool many = false) {
  using Bf16 =
      Config<__nv_bfloat16, kDim, kWarpgroups, kBlocks, kChunk, kStages>;
  using F16 = Config<__half, kDim, kWarpgroups, kBlocks, kChunk, kStages>;
  return {kDim,
          most_tokens,
          kBlocks,
          many,
          factors == 2,
          kChunk,
          4 * kWarpgroups * kStages * F16::kChunkBytes,
          {LaunchConfig<Bf16>, LaunchConfig<F16>}};
}

constexpr int kAnyLength = 1 << 20;

// The committed list of instances: the first that takes the shape runs, by
// measurement. Short sequences: as many warpgroups as they have rows, several
// blocks on a multiprocessor. Chunks are whole lines of memory, 64 columns,
// where memory is not too short.
constexpr Instance kInstances[] = {
    MakeInstance<64, 1, 3, 64, 2>(64, 2),
    MakeInstance<64, 1, 3, 64, 2>(64, 1),
    MakeInstance<64, 1, 2, 64, 2>(64, 2),
    MakeInstance<64, 2, 2, 64, 2>(128, 2),
    MakeInstance<64, 2, 2, 64, 2>(128, 1),
    MakeInstance<64, 2, 2, 32, 2>(256, 1, /*many=*/true),
    MakeInstance<64, 4, 1, 64, 2>(kAnyLength, 2),
    MakeInstance<64, 4, 1, 64, 2>(kAnyLength, 1),
    MakeInstance<64, 4, 1, 32, 3>(kAnyLength, 1),
    MakeInstance<64, 4, 1, 32, 2>(kAnyLength, 1),
    MakeInstance<32, 1, 4, 64, 2>(64, 2),
    MakeInstance<32, 2, 2, 64, 2>(256, 2),
    MakeInstance<32, 4, 1, 64, 2>(kAnyLength, 2),
    MakeInstance<32, 4, 1, 32, 2>(kAnyLength, 1),
};

// What the device itself takes of a multiprocessor's memory, a block.
constexpr int kReservedBytes = 1 << 10;

int RoundUp(int value, int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

Layout MakeLayout(const Instance& instance,
                  const LowRankAttentionParams& params) {
  const int max_rank = std::max({params.q_rank, params.k_rank, params.v_rank});
  const int row_bytes = params.head_dim * kElementBytes;
  const int tile_bytes = RoundUp(params.max_tokens, kAttentionKeys) * row_bytes;
  const int factor_bytes = RoundUp(max_rank, instance.chunk) * row_bytes;
  return {
      tile_bytes,
      instance.two_factors ? tile_bytes : std::max(tile_bytes, factor_bytes),
      factor_bytes, instance.two_factors};
}

// Bytes of shared memory; 0 if the instance does not take the shape.
int SharedBytes(const Instance& instance, const LowRankAttentionParams& params,
                const DeviceLimits& limits) {
  if (instance.head_dim != params.head_dim ||
      instance.most_tokens < params.max_tokens ||
      (instance.many && int64_t{1} * params.sequences * params.heads <=
                            limits.multiprocessors)) {
    return 0;
  }
  const int bytes =
      MakeLayout(instance, params).StagesOffset() + instance.stages_bytes;
  return instance.blocks * (bytes + kReservedBytes) >
                 limits.shared_bytes + kReservedBytes
             ? 0
             : bytes;
}

}  // namespace

cudaError_t LowRankAttention(const LowRankAttentionParams& params,
                             const DeviceLimits& limits, cudaStream_t stream) {
  if (ShortAttentionTakes(params, limits)) {
    return ShortAttention(params, limits, stream);
  }
  for (const Instance& instance : kInstances) {
    const int bytes = SharedBytes(instance, params, limits);
    if (bytes > 0) {
      return instance.launch[params.type == Type::kBF16 ? 0 : 1](
          {params, MakeLayout(instance, params)}, bytes, limits, stream);
    }
  }
  return cudaErrorNotSupported;
}

}  // namespace svdserve::cuda::hopper
