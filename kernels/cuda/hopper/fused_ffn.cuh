// The device side of the fused FFN on wgmma. A block owns 128 rows; of its
// three warpgroups one thread of the last copies, the others compute 64 rows
// each:
//   h = act(p·V1ᵀ + b1) of a step's columns, rounded, in registers,
//   z += h·U2ᵀ, in fp32 registers over the whole intermediate width.
// An accumulator rounded in pairs is wgmma's left operand as it stands, so h
// never leaves the registers.
//
// A step issues the products of the next step's h, then those of z, and
// activates h while z's run. The two warpgroups issue in turns: one's products
// run while the other activates.
//
// p stays in shared memory; tiles of V1 and U2 come through one ring in the
// order in which they are used: V1(0), V1(1), U2(0), V1(2), U2(1), ...
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_FUSED_FFN_CUH_
#define SVDSERVE_KERNELS_CUDA_HOPPER_FUSED_FFN_CUH_

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/hopper/instructions.cuh"
#include "kernels/cuda/hopper/wgmma.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/types.h"

namespace svdserve::cuda::hopper::fused_ffn {

constexpr int kWarp = 32;
constexpr int kWarpgroup = 128;
constexpr int kConsumers = 2;   // warpgroups that compute
constexpr int kGroupRows = 64;  // of one of them
constexpr int kRows = kConsumers * kGroupRows;
constexpr int kThreads = (kConsumers + 1) * kWarpgroup;
constexpr int kPanel = 64;  // columns of 128 bytes, a swizzle's width
constexpr int kPanelBytes = kPanel * kElementBytes;  // of a row
// Values of a thread that are activated side by side, which hides latencies.
constexpr int kTogether = 8;
constexpr int kMostStages = 8;
// A bias is read until its step's V1 has left the ring. Within a ring of 8,
// copies are at most 5 steps ahead of that.
constexpr int kBiasSlots = 8;

// The registers of 168 for each of 384 threads, shared out.
constexpr int kConsumerRegisters = 240;
constexpr int kProducerRegisters = 24;

// What a kernel is compiled for.
template <typename T, int kStepColumns, int kIn, int kOut, Activation kAct>
struct Config {
  using Element = T;
  static constexpr int kStep = kStepColumns;  // of the intermediate
  static_assert(kStep % kPanel == 0);
  // in_rank, or 0: known when it runs. A panel of a loop costs 70 clocks more.
  static constexpr int kInColumns = kIn;
  static constexpr Activation kActivation = kAct;
  // Twice the activation is an instruction less; doubling and, of z, halving
  // are exact, below 2^127.
  static constexpr bool kByTanh =
      std::is_same_v<T, __nv_bfloat16> &&
      (kAct == Activation::kGelu || kAct == Activation::kGeluTanh);
  static constexpr float kScale = kByTanh ? 2 : 1;
  static constexpr int kOutColumns = kOut;  // out_rank, padded
  // z in pieces of at most 256 columns, a wgmma's limit, and a copy's.
  static constexpr int kPieces = kOut > 256 ? 2 : 1;
  static constexpr int kPieceColumns = kOut / kPieces;
  static_assert(kPieceColumns % 16 == 0);
  static constexpr int kOutPanelBytes = kOut * kPanelBytes;  // of U2
  static constexpr int kOutPanels = (kOut + kPanel - 1) / kPanel;
};

// Where things are in shared memory, in bytes from a multiple of 1024. Tiles
// are panels of 64 columns, swizzled.
struct Layout {
  int panels;       // of p and V1
  int stage_bytes;  // of the ring: a tile of V1 or of U2
  int stages;
  int ring;      // after p
  int bias;      // [kBiasSlots][step] float
  int barriers;  // of p, then [kMostStages] full, [kMostStages] empty
  int end;       // of all of it; z is staged over p and the ring

  __host__ __device__ constexpr Layout(int in_rank, int step, int out_columns,
                                       int shared_bytes)
      : panels((in_rank + kPanel - 1) / kPanel),
        stage_bytes(Larger(panels * step * kPanelBytes,
                           out_columns * step * kElementBytes)),
        stages(0),
        ring(panels * kRows * kPanelBytes),
        bias(0),
        barriers(0),
        end(0) {
    const int bias_bytes = kBiasSlots * step * 4;
    constexpr int kBarrierBytes = (1 + 2 * kMostStages) * 8;
    const int fit =
        (shared_bytes - ring - bias_bytes - kBarrierBytes) / stage_bytes;
    stages = fit < kMostStages ? fit : kMostStages;
    const int staged_bytes =
        (out_columns + kPanel - 1) / kPanel * kRows * kPanelBytes;
    bias = Larger(ring + stages * stage_bytes, staged_bytes);
    barriers = bias + bias_bytes;
    end = barriers + kBarrierBytes;
  }

 private:
  __host__ __device__ static constexpr int Larger(int a, int b) {
    return a > b ? a : b;
  }
};

struct Arguments {
  CUtensorMap p;    // boxes of [kRows, kPanel]
  CUtensorMap v1;   // [kStep, kPanel]
  CUtensorMap u2;   // [kPieceColumns, kPanel]
  CUtensorMap z;    // [kGroupRows, kPanel]
  const float* b1;  // or null
  int in_rank;
  int intermediate;
  int rows;
  int shared_bytes;  // that the layout may use
};

// A place in the ring, and the parity of its barrier's phase.
class Place {
 public:
  __device__ explicit Place(int stages) : stages_(stages) {}
  __device__ int stage() const { return stage_; }
  __device__ uint32_t parity() const { return parity_; }
  __device__ void Advance() {
    if (++stage_ < stages_) return;
    stage_ = 0;
    parity_ ^= 1;
  }

 private:
  const int stages_;
  int stage_ = 0;
  uint32_t parity_ = 0;
};

// A thread's part of a block's work.
template <typename C>
class Block {
  using T = typename C::Element;
  static constexpr int kStep = C::kStep;

 public:
  __device__ explicit Block(const Arguments& arguments)
      : args_(arguments),
        layout_(arguments.in_rank, kStep, C::kOutColumns,
                arguments.shared_bytes),
        shared_(SwizzledSharedMemory()),
        steps_((arguments.intermediate + kStep - 1) / kStep),
        group_(__shfl_sync(~0u, threadIdx.x / kWarpgroup, 0)),
        place_(layout_.stages) {}

  __device__ void Run() {
    Begin();
    if (group_ == kConsumers) {
      ReturnRegisters<kProducerRegisters>();
      if (threadIdx.x / kWarp == kConsumers * kWarpgroup / kWarp &&
          ElectOne()) {
        Produce();
      } else {
        WaitForPriorKernels();
      }
    } else {
      TakeRegisters<kConsumerRegisters>();
      WaitForPriorKernels();
      LetNextKernelStart();
      Consume();
    }
  }

 private:
  // ---- All threads ----

  // No bias is zero, and so is one past the intermediate width until another
  // step's takes its place: U2 is zero there, and the sum stays as it is.
  __device__ void Begin() {
    for (int i = threadIdx.x; i < kBiasSlots * kStep; i += kThreads) {
      Bias(0)[i] = 0;
    }
    if (threadIdx.x == 0) {
      for (const CUtensorMap* map :
           {&args_.p, &args_.v1, &args_.u2, &args_.z}) {
        PrefetchTensorMap(map);
      }
      BarrierInit(RowsFull(), 1);
      for (int stage = 0; stage < layout_.stages; ++stage) {
        BarrierInit(Full(stage), 1);
        BarrierInit(Empty(stage), kConsumers * kWarpgroup / kWarp);
      }
      BarrierInitFence();
    }
    // Zeros by ordinary writes, then copies over them.
    FenceSharedForAsync();
    __syncthreads();
  }

  // ---- The thread that copies ----

  // Two tiles of weights, which the ring has place for in any case, do not wait
  // for prior kernels.
  __device__ void Produce() {
    LoadIn(0);
    if (steps_ > 1) LoadIn(1);
    WaitForPriorKernels();
    ArriveExpect(RowsFull(), layout_.panels * kRows * kPanelBytes);
    for (int panel = 0; panel < layout_.panels; ++panel) {
      TensorCopy(shared_ + panel * kRows * kPanelBytes, &args_.p,
                 panel * kPanel, blockIdx.x * kRows, RowsFull());
    }
    LoadOut(0);
#pragma unroll 1
    for (int step = 1; step < steps_; ++step) {
      if (step + 1 < steps_) LoadIn(step + 1);
      LoadOut(step);
    }
  }

  // A step's tile of V1, and its bias.
  __device__ void LoadIn(int step) {
    const int first = step * kStep;
    const int valid = min(kStep, args_.intermediate - first);
    const int bias_bytes = args_.b1 == nullptr ? 0 : valid * 4;
    uint64_t* full = Claim(layout_.panels * kInPanelBytes + bias_bytes);
    unsigned char* tile = Stage(place_);
    for (int panel = 0; panel < layout_.panels; ++panel) {
      TensorCopy(tile + panel * kInPanelBytes, &args_.v1, panel * kPanel, first,
                 full);
    }
    if (bias_bytes > 0)
      BulkCopy(Bias(step), args_.b1 + first, bias_bytes, full);
    place_.Advance();
  }

  __device__ void LoadOut(int step) {
    uint64_t* full = Claim(kStep / kPanel * C::kOutPanelBytes);
    unsigned char* tile = Stage(place_);
#pragma unroll
    for (int column = 0; column < kStep; column += kPanel) {
#pragma unroll
      for (int row = 0; row < C::kOutColumns; row += C::kPieceColumns) {
        TensorCopy(tile + row * kPanelBytes, &args_.u2, step * kStep + column,
                   row, full);
      }
      tile += C::kOutPanelBytes;
    }
    place_.Advance();
  }

  // Waits until the place is free; `bytes` will come.
  __device__ uint64_t* Claim(int bytes) {
    BarrierWait(Empty(place_.stage()), place_.parity() ^ 1);
    ArriveExpect(Full(place_.stage()), bytes);
    return Full(place_.stage());
  }

  static constexpr int kRowPanelBytes = kRows * kPanelBytes;  // of p
  static constexpr int kInPanelBytes = kStep * kPanelBytes;   // of V1

  // ---- The warpgroups that compute ----

  using Hidden = float[kStep / 2];
  using Operand = uint32_t[kStep / 16][4];
  using Sums = float[C::kPieces][C::kPieceColumns / 2];

  __device__ __forceinline__ void Consume() {
    Hidden h = {};
    Operand a;
    Sums z = {};
    if (group_ == 1) PassTurn();
    BarrierWait(RowsFull(), 0);

    WgmmaFence();
    int in_stage = MultiplyIn(h);
    WgmmaWait<0>();
    Release(in_stage);
    Activate(0, h);
    Round(h, a);
#pragma unroll 1
    for (int step = 0; step + 1 < steps_; ++step) {
      Clear(h);
      TakeTurn();
      WgmmaFence();
      in_stage = MultiplyIn(h);
      const int out_stage = MultiplyOut(a, z);
      PassTurn();
      WgmmaWait<1>();
      Release(in_stage);
      Activate(step + 1, h);
      WgmmaWait<0>();
      Release(out_stage);
      // Not before: the products were reading a.
      Round(h, a);
    }
    TakeTurn();
    WgmmaFence();
    MultiplyOut(a, z);
    if (group_ == 0) PassTurn();
    WgmmaWait<0>();
    Store(z);
  }

  // Each warpgroup has a barrier for its turns, which the other arrives at.
  __device__ void TakeTurn() {
    NamedBarrierWait(kTurns + group_, kConsumers * kWarpgroup);
  }
  __device__ void PassTurn() {
    NamedBarrierArrive(kTurns + (group_ ^ 1), kConsumers * kWarpgroup);
  }

  // h += p·V1ᵀ of the next tile, under way; returns its stage.
  __device__ __forceinline__ int MultiplyIn(Hidden& h) {
    BarrierWait(Full(place_.stage()), place_.parity());
    uint64_t p = Descriptor128(shared_ + group_ * kGroupRows * kPanelBytes);
    uint64_t v1 = Descriptor128(Stage(place_));
    if constexpr (C::kInColumns > 0) {
      MultiplyLast<C::kInColumns / 16>(C::kInColumns / 16, p, v1, h);
      return Advance();
    }
    int sixteens = args_.in_rank / 16;
#pragma unroll 1
    for (; sixteens > 4; sixteens -= 4) {
      MultiplySixteens<4>(p, v1, h);
      p += kRowPanelBytes >> 4;
      v1 += kInPanelBytes >> 4;
    }
    MultiplyLast<4>(sixteens, p, v1, h);
    return Advance();
  }
  // Committed where the last product stands: elsewhere it would be one more.
  template <int kSixteens>
  __device__ __forceinline__ static void MultiplyLast(int sixteens, uint64_t p,
                                                      uint64_t v1, Hidden& h) {
    if (kSixteens == 1 || sixteens == kSixteens) {
      MultiplySixteens<kSixteens>(p, v1, h);
      WgmmaCommit();
    } else if constexpr (kSixteens > 1) {
      MultiplyLast<kSixteens - 1>(sixteens, p, v1, h);
    }
  }
  template <int kSixteens>
  __device__ __forceinline__ static void MultiplySixteens(uint64_t p,
                                                          uint64_t v1,
                                                          Hidden& h) {
#pragma unroll
    for (int k = 0; k < kSixteens; ++k) {
      const int within = k % 4 * 16 * kElementBytes;  // a panel
      Wgmma<T>(h, p + ((k / 4 * kRowPanelBytes + within) >> 4),
               v1 + ((k / 4 * kInPanelBytes + within) >> 4), true);
    }
  }

  // z += a·U2ᵀ of the next tile, under way; returns its stage.
  __device__ __forceinline__ int MultiplyOut(const Operand& a, Sums& z) {
    BarrierWait(Full(place_.stage()), place_.parity());
    const uint64_t u2 = Descriptor128(Stage(place_));
#pragma unroll
    for (int k = 0; k < kStep / 16; ++k) {
#pragma unroll
      for (int piece = 0; piece < C::kPieces; ++piece) {
        const int offset = k / 4 * C::kOutPanelBytes +
                           piece * C::kPieceColumns * kPanelBytes +
                           k % 4 * 16 * kElementBytes;
        Wgmma<T>(z[piece], a[k], u2 + (offset >> 4), true);
      }
    }
    WgmmaCommit();
    return Advance();
  }

  __device__ int Advance() {
    const int stage = place_.stage();
    place_.Advance();
    return stage;
  }

  // This warp is done with the stage.
  __device__ void Release(int stage) {
    if (Lane() == 0) Arrive(Empty(stage));
  }

  // h = act(h + bias) * kScale
  __device__ __forceinline__ void Activate(int step, Hidden& h) {
    const float* biases = Bias(step) + Lane() % 4 * 2;
#pragma unroll
    for (int first = 0; first < kStep / 2; first += kTogether) {
      float* x = h + first;
#pragma unroll
      for (int i = 0; i < kTogether; i += 4) {
        const float2 bias =
            *reinterpret_cast<const float2*>(biases + (first + i) * 2);
        x[i] += bias.x;
        x[i + 1] += bias.y;
        x[i + 2] += bias.x;
        x[i + 3] += bias.y;
      }
      if constexpr (C::kByTanh) {
        float u[kTogether];
#pragma unroll
        for (int i = 0; i < kTogether; ++i) {
          u[i] = GeluTanhArgument<C::kActivation>(x[i]);
        }
#pragma unroll
        for (int i = 0; i < kTogether; ++i) u[i] = TanhInOrder(u[i]);
#pragma unroll
        for (int i = 0; i < kTogether; ++i) x[i] = fmaf(x[i], u[i], x[i]);
      } else {
#pragma unroll
        for (int i = 0; i < kTogether; ++i) {
          x[i] = cuda::Activate<T>(C::kActivation, x[i]);
        }
      }
    }
  }
  // FastTanh() where it stands, so that several follow one another.
  __device__ __forceinline__ static float TanhInOrder(float x) {
    float y;
    asm volatile("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }

  __device__ __forceinline__ static void Clear(Hidden& h) {
#pragma unroll
    for (float& value : h) value = 0;
  }

  __device__ __forceinline__ static void Round(const Hidden& h, Operand& a) {
#pragma unroll
    for (int i = 0; i < kStep / 4; ++i) {
      a[i / 4][i % 4] = Pack<T>(h[2 * i], h[2 * i + 1]);
    }
  }

  // z through shared memory, panel by panel; the copy engine leaves out rows
  // and columns past z's.
  __device__ __forceinline__ void Store(const Sums& z) {
    // Both warpgroups have left p and the ring.
    NamedBarrierWait(kAll, kConsumers * kWarpgroup);
    constexpr int kStagedBytes = kGroupRows * kPanelBytes;  // of a panel
    unsigned char* staged = shared_ + group_ * C::kOutPanels * kStagedBytes;
    const int row = threadIdx.x % kWarpgroup / kWarp * 16 + Lane() % 16;
#pragma unroll
    for (int piece = 0; piece < C::kPieces; ++piece) {
#pragma unroll
      for (int n = 0; n < C::kPieceColumns / 16; ++n) {
        const float* q = &z[piece][n * 8];
        const int column = piece * C::kPieceColumns + n * 16;
        const int chunk = column % kPanel / 8 + Lane() / 16;
        StoreMatrix4(staged + column / kPanel * kStagedBytes +
                         row * kPanelBytes + ((chunk ^ (row % 8)) << 4),
                     Unscaled(q[0], q[1]), Unscaled(q[2], q[3]),
                     Unscaled(q[4], q[5]), Unscaled(q[6], q[7]));
      }
    }
    FenceSharedForAsync();
    NamedBarrierWait(kGroups + group_, kWarpgroup);
    const int first_row = blockIdx.x * kRows + group_ * kGroupRows;
    if (threadIdx.x % kWarpgroup != 0 || first_row >= args_.rows) return;
    for (int panel = 0; panel < C::kOutPanels; ++panel) {
      TensorStore(&args_.z, panel * kPanel, first_row,
                  staged + panel * kStagedBytes);
    }
    BulkCommit();
    BulkWaitRead<0>();
  }

  __device__ static uint32_t Unscaled(float low, float high) {
    return Pack<T>(low * (1 / C::kScale), high * (1 / C::kScale));
  }

  // ---- Places ----

  // Named barriers.
  static constexpr int kAll = 1;
  static constexpr int kGroups = 2;  // and 3
  static constexpr int kTurns = 4;   // and 5

  __device__ static int Lane() { return threadIdx.x % kWarp; }
  __device__ unsigned char* Stage(const Place& place) const {
    return shared_ + layout_.ring + place.stage() * layout_.stage_bytes;
  }
  __device__ float* Bias(int step) const {
    return reinterpret_cast<float*>(shared_ + layout_.bias) +
           step % kBiasSlots * kStep;
  }
  __device__ uint64_t* RowsFull() const {
    return reinterpret_cast<uint64_t*>(shared_ + layout_.barriers);
  }
  __device__ uint64_t* Full(int stage) const { return RowsFull() + 1 + stage; }
  __device__ uint64_t* Empty(int stage) const {
    return Full(kMostStages + stage);
  }

  const Arguments& args_;
  const Layout layout_;
  unsigned char* const shared_;
  const int steps_;
  const int group_;  // warpgroup
  Place place_;
};

}  // namespace svdserve::cuda::hopper::fused_ffn

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_FUSED_FFN_CUH_
