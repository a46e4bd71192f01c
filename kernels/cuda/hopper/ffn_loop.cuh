// The loop of the feed-forward kernels on wgmma, z = act(p·V1ᵀ + b1)·U2ᵀ of a
// block's rows. A block owns 128 rows; of its three warpgroups one thread of
// the last copies, the others compute 64 rows each:
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
// order in which they are used: V1(0), V1(1), U2(0), V1(2), U2(1), ... What a
// kernel needs before and after the loop comes through the same ring.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_FFN_LOOP_CUH_
#define SVDSERVE_KERNELS_CUDA_HOPPER_FFN_LOOP_CUH_

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/hopper/ring.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/types.h"

namespace svdserve::cuda::hopper::row_blocks {

constexpr int kRows = kConsumers * kGroupRows;  // of a block
// Values of a thread that are activated side by side, which hides latencies.
constexpr int kTogether = 8;
// A bias is read until its step's V1 has left the ring. Within a ring of 8,
// copies are at most 5 steps ahead of that.
constexpr int kBiasSlots = 8;

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

// Where things are in shared memory: p, then the ring of tiles of V1 or U2.
struct Layout : RingLayout {
  int panels;  // of p and V1
  int bias;    // [kBiasSlots][step] float
  int end;     // of all of it; z is staged over p and the ring

  // `row_panels`: for which there is place before the ring.
  __host__ __device__ constexpr Layout(int in_rank, int step, int out_columns,
                                       int row_panels, int most_stages,
                                       int shared_bytes)
      : panels(PanelsOf(in_rank)), bias(0), end(0) {
    ring = row_panels * kRows * kPanelBytes;
    stage_bytes =
        Larger(panels * step * kPanelBytes, out_columns * step * kElementBytes);
    const int bias_bytes = kBiasSlots * step * 4;
    const int fit =
        (shared_bytes - ring - bias_bytes - kBarrierBytes) / stage_bytes;
    stages = fit < most_stages ? fit : most_stages;
    const int staged_bytes = PanelsOf(out_columns) * kRows * kPanelBytes;
    bias = Larger(ring + stages * stage_bytes, staged_bytes);
    barriers = bias + bias_bytes;
    end = barriers + kBarrierBytes;
  }

 private:
  __host__ __device__ static constexpr int Larger(int a, int b) {
    return a > b ? a : b;
  }
};

struct LoopArguments {
  CUtensorMap v1;   // boxes of [kStep, kPanel]
  CUtensorMap u2;   // [kPieceColumns, kPanel]
  const float* b1;  // or null
  int in_rank;
  int intermediate;
};

// A thread's part of the loop; kernels derive from it.
template <typename C>
class Loop : protected Ring {
 protected:
  using T = typename C::Element;
  static constexpr int kStep = C::kStep;
  using Sums = float[C::kPieces][C::kPieceColumns / 2];

  __device__ Loop(const LoopArguments& arguments, const Layout& layout)
      : Ring(layout),
        args_(arguments),
        layout_(layout),
        steps_((arguments.intermediate + kStep - 1) / kStep) {}

  // ---- All threads ----

  // No bias is zero, and so is one past the intermediate width until another
  // step's takes its place: U2 is zero there, and the sum stays as it is.
  __device__ void ClearBiases() {
    for (int i = threadIdx.x; i < kBiasSlots * kStep; i += kThreads) {
      Bias(0)[i] = 0;
    }
  }
  __device__ void PrefetchMaps() const {
    PrefetchTensorMap(&args_.v1);
    PrefetchTensorMap(&args_.u2);
  }

  // ---- The thread that copies ----

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

  static constexpr int kRowPanelBytes = kRows * kPanelBytes;  // of p
  static constexpr int kInPanelBytes = kStep * kPanelBytes;   // of V1

  // ---- The warpgroups that compute ----

  // z += act(p·V1ᵀ + b1)·U2ᵀ * kScale; p is in shared memory. Afterwards the
  // warpgroup has left p.
  __device__ __forceinline__ void Multiply(Sums& z) {
    if (group_ == 1) PassTurn();
    Hidden h = {};
    Operand a;
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
    const int out_stage = MultiplyOut(a, z);
    if (group_ == 0) PassTurn();
    WgmmaWait<0>();
    Release(out_stage);
  }

  // Each warpgroup has a barrier for its turns, which the other arrives at.
  __device__ void TakeTurn() {
    NamedBarrierWait(kTurns + group_, kThreadsThatCompute);
  }
  __device__ void PassTurn() {
    NamedBarrierArrive(kTurns + (group_ ^ 1), kThreadsThatCompute);
  }

 private:
  using Hidden = float[kStep / 2];
  using Operand = uint32_t[kStep / 16][4];

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

 protected:
  // Rounded to the warpgroup's rows of the first places of shared memory, as
  // panels of kPanelRows rows from `panels` on. In lane order, so that the
  // warpgroup has left what was there.
  template <int kPanelRows>
  __device__ __forceinline__ void StoreSums(const Sums& sums, float scale,
                                            unsigned char* panels) const {
#pragma unroll
    for (int piece = 0; piece < C::kPieces; ++piece) {
      StoreRounded<T, kPanelRows, C::kPieceColumns>(
          sums[piece], piece * C::kPieceColumns, scale, panels);
    }
    FenceSharedForAsync();
  }

  __device__ float* Bias(int step) const {
    return reinterpret_cast<float*>(shared_ + layout_.bias) +
           step % kBiasSlots * kStep;
  }

  const LoopArguments& args_;
  const Layout layout_;
  const int steps_;
};

}  // namespace svdserve::cuda::hopper::row_blocks

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_FFN_LOOP_CUH_
