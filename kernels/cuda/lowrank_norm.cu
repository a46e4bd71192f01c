// LowRankNorm(): there is no portable kernel; the one for Hopper is called.
#include <cstdint>
#include <initializer_list>

#include "kernels/cuda/hopper/lowrank_norm.h"
#include "kernels/cuda/kernel_family.h"
#include "kernels/cuda/lowrank_norm.h"

namespace svdserve::cuda {
namespace {

constexpr int kChunk = 8;  // elements of a 16-byte copy

bool MakesSense(const LowRankNormParams& p) {
  for (int width : {p.in, p.rank, p.hidden}) {
    if (width <= 0 || width % kChunk != 0) return false;
  }
  for (const void* pointer :
       {p.y, p.narrow, p.w, static_cast<const void*>(p.gamma),
        static_cast<const void*>(p.beta), static_cast<const void*>(p.x)}) {
    if (pointer == nullptr || !IsAligned(pointer, 16)) return false;
  }
  return p.rows >= 0 && IsAligned(p.bias, 16);
}

}  // namespace

bool LowRankNormTakes([[maybe_unused]] const LowRankNormParams& params,
                      [[maybe_unused]] const DeviceLimits& limits) {
  if constexpr (kHopperLinked) {
    return TakesHopperKernels(limits) &&
           hopper::LowRankNormTakes(params, limits);
  }
  return false;
}

// us, two launches and one, of a chain of twelve in bfloat16:
//   rows              1024        4096        8192       16384       32768
//   768 -> 192 -> 768  7.3  11.9  13.9  13.5  22.2  17.2  36.2  33.3  62  64
//   768 -> 128 -> 768  7.2  10.4  15.3  12.5  21.5  16.3  34.3  31.4  58  60
//   384 -> 96 -> 384   6.9   6.4  10.2   6.7  14.1   9.9  20.8  18.6  33  36
// In whole encoders the two overlap with their neighbours: of width 768 one
// launch gains (4 %, 32x128) of 4,096 rows and rank 128 alone, and of 5,632
// rows it loses 1 %.
bool LowRankNormIsFaster(const LowRankNormParams& params,
                         const DeviceLimits& limits) {
  const bool rows_pay = params.hidden == 384
                            ? params.rows >= 512 && params.rows <= 16384
                            : params.rows >= 3072 && params.rows <= 4096;
  return rows_pay && LowRankNormTakes(params, limits);
}

cudaError_t LowRankNorm(const LowRankNormParams& params,
                        const DeviceLimits& limits, cudaStream_t stream) {
  if (!MakesSense(params)) return cudaErrorInvalidValue;
  if constexpr (kHopperLinked) {
    if (TakesHopperKernels(limits)) {
      return hopper::LowRankNorm(params, limits, stream);
    }
  }
  return cudaErrorNotSupported;
}

}  // namespace svdserve::cuda
