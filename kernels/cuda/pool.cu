#include <cmath>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/pool.h"
#include "kernels/cuda/ptx.cuh"

namespace svdserve::cuda {
namespace {

constexpr int kLanes = 32;

// ---- Pool: a block owns 64 columns of one sequence ----
//
// 8 threads read the 128 bytes of a row, so a warp reads 4 rows at once and a
// block 32. Thread (r, c) sums rows r, r + 32, ... upwards; then the 4 of a
// warp and the 8 warps are summed, each in one order.

constexpr int kVector = 8;                   // elements of 16 bytes
constexpr int kColumns = 64;                 // of a block
constexpr int kAcross = kColumns / kVector;  // threads of a row
constexpr int kPoolThreads = 256;
constexpr int kDown = kPoolThreads / kAcross;  // rows at once
constexpr int kFlight = 8;                     // loads of a thread at once
constexpr int kPoolWarps = kPoolThreads / kLanes;
constexpr int kPoolShared = kPoolWarps * kColumns * sizeof(float);

struct Sum {
  static constexpr float kStart = 0;
  static __device__ float Of(float a, float b) { return a + b; }
};
struct Maximum {
  static constexpr float kStart = -INFINITY;
  // NaN if either is.
  static __device__ float Of(float a, float b) {
    return a > b || a != a ? a : b;
  }
};

template <typename T, typename Reduce>
__device__ void Accumulate(float (&value)[kVector], const uint4& packed) {
  const uint32_t pairs[] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = Unpack<T>(pairs[i]);
    value[2 * i] = Reduce::Of(value[2 * i], pair.x);
    value[2 * i + 1] = Reduce::Of(value[2 * i + 1], pair.y);
  }
}

template <typename T, typename Reduce>
__device__ void ReduceRows(float (&value)[kVector], const PoolParams& params,
                           int first, int rows, int column) {
  const int64_t stride = params.hidden / kVector;
  const uint4* x =
      static_cast<const uint4*>(params.x) + first * stride + column / kVector;
  for (int row = threadIdx.x / kAcross; row < rows; row += kFlight * kDown) {
    uint4 packed[kFlight];
#pragma unroll
    for (int j = 0; j < kFlight; ++j) {
      const int mine = row + j * kDown;
      if (mine < rows) packed[j] = x[mine * stride];
    }
#pragma unroll
    for (int j = 0; j < kFlight; ++j) {
      if (row + j * kDown < rows) Accumulate<T, Reduce>(value, packed[j]);
    }
  }
}

// Threads c of row 0 of each warp hand the warp's values to `shared`.
template <typename Reduce>
__device__ void ReduceWarp(float (&value)[kVector], float* shared) {
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
#pragma unroll
    for (int mask = kAcross; mask < kLanes; mask *= 2) {
      value[i] = Reduce::Of(value[i], ShuffleXor(value[i], mask));
    }
  }
  const int lane = threadIdx.x % kLanes;
  if (lane >= kAcross) return;
  float* mine = shared + threadIdx.x / kLanes * kColumns + lane * kVector;
#pragma unroll
  for (int i = 0; i < kVector; ++i) mine[i] = value[i];
}

template <typename T, typename Reduce>
__global__ void __launch_bounds__(kPoolThreads)
    PoolKernel(const PoolParams params) {
  WaitForPriorKernels();
  LetNextKernelStart();
  float* shared = reinterpret_cast<float*>(SharedMemory());  // [warps, columns]
  const int sequence = blockIdx.x;
  const int first = params.cu_seqlens[sequence];
  const int length = params.cu_seqlens[sequence + 1] - first;
  const int rows = params.kind == PoolKind::kFirst ? min(length, 1) : length;

  float value[kVector];
#pragma unroll
  for (int i = 0; i < kVector; ++i) value[i] = Reduce::kStart;
  const int column = blockIdx.y * kColumns + threadIdx.x % kAcross * kVector;
  if (column < params.hidden) {
    ReduceRows<T, Reduce>(value, params, first, rows, column);
  }
  ReduceWarp<Reduce>(value, shared);
  __syncthreads();

  const int mine = blockIdx.y * kColumns + threadIdx.x;
  if (threadIdx.x >= kColumns || mine >= params.hidden) return;
  float y = Reduce::kStart;
#pragma unroll
  for (int warp = 0; warp < kPoolWarps; ++warp) {
    y = Reduce::Of(y, shared[warp * kColumns + threadIdx.x]);
  }
  if (params.kind == PoolKind::kMean) y /= length;
  params.y[int64_t{sequence} * params.hidden + mine] = rows > 0 ? y : 0.0f;
}

template <typename T>
cudaError_t LaunchPool(const PoolParams& params, cudaStream_t stream) {
  const auto kernel = params.kind == PoolKind::kMax ? PoolKernel<T, Maximum>
                                                    : PoolKernel<T, Sum>;
  const dim3 grid(params.sequences, (params.hidden + kColumns - 1) / kColumns);
  return LaunchDependent(kernel, grid, kPoolThreads, kPoolShared, stream,
                         params);
}

// ---- Head: a warp owns one column of y for a tile of rows ----
//
// Each weight is read once a tile. Lane t sums in = t, t + 32, ... upwards,
// then lanes are summed pairwise: a row's bits depend on that row alone.

constexpr int kHeadWarps = 8;
constexpr int kHeadRows = 4;

__device__ float Activate(float x, HeadActivation activation) {
  switch (activation) {
    case HeadActivation::kIdentity:
      return x;
    case HeadActivation::kTanh:
      return tanhf(x);
    case HeadActivation::kRelu:
      return x < 0 ? 0.0f : x;  // NaN stays
    case HeadActivation::kGelu:
      return x * 0.5f * (1 + erff(x * 0.70710678f));
  }
  return x;
}

__global__ void __launch_bounds__(kHeadWarps* kLanes)
    HeadKernel(const HeadParams params) {
  WaitForPriorKernels();
  LetNextKernelStart();
  const int column = blockIdx.x * kHeadWarps + threadIdx.x / kLanes;
  const int lane = threadIdx.x % kLanes;
  const int first = blockIdx.y * kHeadRows;
  if (column >= params.out) return;  // whole warps

  const float* w = params.w + int64_t{column} * params.in;
  const float* x[kHeadRows];  // past the last row: that one again
#pragma unroll
  for (int row = 0; row < kHeadRows; ++row) {
    x[row] = params.x + int64_t{min(first + row, params.rows - 1)} * params.in;
  }
  float sum[kHeadRows] = {};
#pragma unroll 4
  for (int k = lane; k < params.in; k += kLanes) {
    const float weight = __ldg(w + k);
#pragma unroll
    for (int row = 0; row < kHeadRows; ++row) {
      sum[row] = fmaf(x[row][k], weight, sum[row]);
    }
  }
#pragma unroll
  for (int row = 0; row < kHeadRows; ++row) {
    float y = sum[row];
#pragma unroll
    for (int mask = kLanes / 2; mask > 0; mask /= 2) y += ShuffleXor(y, mask);
    if (lane != 0 || first + row >= params.rows) continue;
    if (params.bias != nullptr) y += params.bias[column];
    params.y[int64_t{first + row} * params.out + column] =
        Activate(y, params.activation);
  }
}

// ---- FinishRows: a block owns a row ----
//
// Squares are summed in fp64, so that no length overflows or vanishes.

constexpr int kFinishThreads = 256;
constexpr int kFinishShared = kFinishThreads * sizeof(double);

__device__ double Length(const float* y, int count) {
  double* shared = reinterpret_cast<double*>(SharedMemory());  // [threads]
  double squares = 0;
  for (int i = threadIdx.x; i < count; i += kFinishThreads) {
    squares += static_cast<double>(y[i]) * y[i];
  }
  shared[threadIdx.x] = squares;
  for (int half = kFinishThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
  }
  __syncthreads();
  return sqrt(shared[0]);
}

__global__ void __launch_bounds__(kFinishThreads)
    FinishKernel(const FinishParams params) {
  WaitForPriorKernels();
  LetNextKernelStart();
  float* y = params.y + int64_t{blockIdx.x} * params.width;
  const int option = params.options[blockIdx.x];
  const int dimensions = option / 2;
  const int kept =
      dimensions == 0 ? params.width : min(dimensions, params.width);
  for (int i = kept + threadIdx.x; i < params.width; i += kFinishThreads) {
    y[i] = 0;
  }
  if (option % 2 == 0) return;  // the whole block
  const double length = fmax(Length(y, kept), 1e-12);
  for (int i = threadIdx.x; i < kept; i += kFinishThreads) {
    y[i] = static_cast<float>(y[i] / length);
  }
}

}  // namespace

cudaError_t Pool(const PoolParams& params, cudaStream_t stream) {
  if (params.sequences < 0 || params.hidden <= 0 ||
      params.hidden % kVector != 0 || params.cu_seqlens == nullptr ||
      params.x == nullptr || params.y == nullptr) {
    return cudaErrorInvalidValue;
  }
  if (params.sequences == 0) return cudaSuccess;
  return params.type == Type::kBF16 ? LaunchPool<__nv_bfloat16>(params, stream)
                                    : LaunchPool<__half>(params, stream);
}

cudaError_t Head(const HeadParams& params, cudaStream_t stream) {
  if (params.rows < 0 || params.in <= 0 || params.out <= 0 ||
      params.x == nullptr || params.w == nullptr || params.y == nullptr) {
    return cudaErrorInvalidValue;
  }
  if (params.rows == 0) return cudaSuccess;
  const dim3 grid((params.out + kHeadWarps - 1) / kHeadWarps,
                  (params.rows + kHeadRows - 1) / kHeadRows);
  return LaunchDependent(HeadKernel, grid, kHeadWarps * kLanes, 0, stream,
                         params);
}

cudaError_t FinishRows(const FinishParams& params, cudaStream_t stream) {
  if (params.rows < 0 || params.width <= 0 || params.options == nullptr ||
      params.y == nullptr) {
    return cudaErrorInvalidValue;
  }
  if (params.rows == 0) return cudaSuccess;
  return LaunchDependent(FinishKernel, dim3(params.rows), kFinishThreads,
                         kFinishShared, stream, params);
}

}  // namespace svdserve::cuda
