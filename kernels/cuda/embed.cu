// One warp a row: the row's values stay in registers from the sum of the three
// tables to the stored result.
#include "kernels/cuda/embed.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"

namespace svdserve::cuda {
namespace {

constexpr int kLanes = 32;
constexpr int kWarps = 4;   // of a block: small batches still reach many SMs
constexpr int kVector = 8;  // elements of 16 bytes
constexpr int kMaxHidden = 1024;
constexpr int kMaxVectors = kMaxHidden / (kLanes * kVector);  // of a lane

// Lane t holds the vectors t, t + 32, ... of its row.
struct Row {
  float values[kMaxVectors][kVector];
};

// The same of a table, as it is stored; zeros past the row's end.
struct PackedRow {
  uint4 vectors[kMaxVectors];
};

__device__ PackedRow Load(const void* table, int64_t index, int hidden) {
  const uint4* source =
      static_cast<const uint4*>(table) + index * (hidden / kVector);
  PackedRow row;
#pragma unroll
  for (int i = 0; i < kMaxVectors; ++i) {
    const int vector = threadIdx.x % kLanes + i * kLanes;
    row.vectors[i] = make_uint4(0, 0, 0, 0);
    if (vector * kVector < hidden) row.vectors[i] = __ldg(source + vector);
  }
  return row;
}

template <typename T>
__device__ void Add(Row& row, const PackedRow& packed) {
#pragma unroll
  for (int i = 0; i < kMaxVectors; ++i) {
    const uint4& vector = packed.vectors[i];
    const uint32_t pairs[] = {vector.x, vector.y, vector.z, vector.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 pair = Unpack<T>(pairs[j]);
      row.values[i][2 * j] += pair.x;
      row.values[i][2 * j + 1] += pair.y;
    }
  }
}

// The same in all lanes.
__device__ float WarpSum(float sum) {
#pragma unroll
  for (int mask = kLanes / 2; mask > 0; mask /= 2) sum += ShuffleXor(sum, mask);
  return sum;
}

// To mean 0 and variance 1.
__device__ void Normalize(Row& row, int hidden, float eps) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kMaxVectors; ++i) {
#pragma unroll
    for (int j = 0; j < kVector; ++j) sum += row.values[i][j];
  }
  const float mean = WarpSum(sum) / hidden;
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kMaxVectors; ++i) {
    const int vector = threadIdx.x % kLanes + i * kLanes;
    const bool inside = vector * kVector < hidden;
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      row.values[i][j] = inside ? row.values[i][j] - mean : 0;
      squares += row.values[i][j] * row.values[i][j];
    }
  }
  const float scale = 1 / sqrtf(WarpSum(squares) / hidden + eps);
#pragma unroll
  for (int i = 0; i < kMaxVectors; ++i) {
#pragma unroll
    for (int j = 0; j < kVector; ++j) row.values[i][j] *= scale;
  }
}

template <typename T>
__device__ uint2 Scale(const float* x, float4 gamma, float4 beta) {
  return {Pack<T>(fmaf(x[0], gamma.x, beta.x), fmaf(x[1], gamma.y, beta.y)),
          Pack<T>(fmaf(x[2], gamma.z, beta.z), fmaf(x[3], gamma.w, beta.w))};
}

template <typename T>
__device__ void Store(const Row& row, const EmbedParams& params, int index) {
  uint4* target = static_cast<uint4*>(params.x) +
                  int64_t{index} * (params.hidden / kVector);
#pragma unroll
  for (int i = 0; i < kMaxVectors; ++i) {
    const int vector = threadIdx.x % kLanes + i * kLanes;
    if (vector * kVector >= params.hidden) break;
    const float4* gamma =
        reinterpret_cast<const float4*>(params.gamma) + 2 * vector;
    const float4* beta =
        reinterpret_cast<const float4*>(params.beta) + 2 * vector;
    const uint2 low = Scale<T>(&row.values[i][0], gamma[0], beta[0]);
    const uint2 high = Scale<T>(&row.values[i][4], gamma[1], beta[1]);
    target[vector] = make_uint4(low.x, low.y, high.x, high.y);
  }
}

__device__ void StoreZeros(const EmbedParams& params, int index) {
  uint4* target = static_cast<uint4*>(params.x) +
                  int64_t{index} * (params.hidden / kVector);
  for (int vector = threadIdx.x % kLanes; vector * kVector < params.hidden;
       vector += kLanes) {
    target[vector] = make_uint4(0, 0, 0, 0);
  }
}

// Where the sequence of `row` starts: the last start that is not after it.
__device__ int SequenceStart(const EmbedParams& params, int row) {
  int low = 0;
  int high = params.sequences;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (params.cu_seqlens[middle] <= row) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return params.cu_seqlens[low];
}

template <typename T>
__global__ void __launch_bounds__(kWarps* kLanes)
    EmbedKernel(const EmbedParams params) {
  WaitForPriorKernels();
  LetNextKernelStartIfFew(params.rows);
  const int index = blockIdx.x * kWarps + threadIdx.x / kLanes;
  if (index >= params.rows) return;
  if (index >= params.cu_seqlens[params.sequences]) {
    StoreZeros(params, index);
    return;
  }
  // All three are under way before the first is needed.
  const int id = params.ids[index];
  const int type_id = params.type_ids[index];
  const int place = index - SequenceStart(params, index);
  const PackedRow word = Load(params.word, id, params.hidden);
  const PackedRow type = Load(params.token_type, type_id, params.hidden);
  const PackedRow position = Load(params.position, place, params.hidden);
  Row row = {};
  Add<T>(row, word);
  Add<T>(row, type);
  Add<T>(row, position);
  Normalize(row, params.hidden, params.eps);
  Store<T>(row, params, index);
}

bool MakesSense(const EmbedParams& params) {
  return params.rows >= 0 && params.sequences >= 0 && params.hidden > 0 &&
         params.hidden % kVector == 0 && params.hidden <= kMaxHidden &&
         params.ids != nullptr && params.type_ids != nullptr &&
         params.cu_seqlens != nullptr && params.word != nullptr &&
         params.position != nullptr && params.token_type != nullptr &&
         params.gamma != nullptr && params.beta != nullptr &&
         params.x != nullptr;
}

}  // namespace

cudaError_t Embed(const EmbedParams& params, cudaStream_t stream) {
  if (!MakesSense(params)) return cudaErrorInvalidValue;
  if (params.rows == 0) return cudaSuccess;
  const auto kernel = params.type == Type::kBF16 ? EmbedKernel<__nv_bfloat16>
                                                 : EmbedKernel<__half>;
  const unsigned blocks = (params.rows + kWarps - 1) / kWarps;
  return LaunchDependent(kernel, dim3(blocks), kWarps * kLanes, 0, stream,
                         params);
}

}  // namespace svdserve::cuda
