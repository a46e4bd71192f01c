// FfnLayer(): there is no portable kernel; the one for Hopper is called.
#include "kernels/cuda/ffn_layer.h"
#include "kernels/cuda/hopper/ffn_layer.h"
#include "kernels/cuda/kernel_family.h"

namespace svdserve::cuda {
namespace {

bool IsRank(int rank) { return rank > 0 && rank % 16 == 0; }

bool Valid(const FfnLayerParams& p) {
  return p.rows >= 0 && p.hidden > 0 && IsRank(p.in_rank) &&
         IsRank(p.out_rank) && p.intermediate > 0 && p.intermediate % 32 == 0;
}

}  // namespace

bool FfnLayerTakes(int hidden, int in_rank, int out_rank, Activation activation,
                   const DeviceLimits& limits) {
  if constexpr (kHopperLinked) {
    return IsRank(in_rank) && IsRank(out_rank) && TakesHopperKernels(limits) &&
           hopper::FfnLayerTakes(hidden, in_rank, out_rank, activation, limits);
  }
  return false;
}

cudaError_t FfnLayer(const FfnLayerParams& params, const DeviceLimits& limits,
                     cudaStream_t stream) {
  if (!Valid(params)) return cudaErrorInvalidValue;
  if constexpr (kHopperLinked) {
    if (TakesHopperKernels(limits)) {
      return hopper::FfnLayer(params, limits, stream);
    }
  }
  return cudaErrorNotSupported;
}

}  // namespace svdserve::cuda
