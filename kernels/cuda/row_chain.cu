#include <cstdint>
#include <initializer_list>

#include "kernels/cuda/hopper/row_chain.h"
#include "kernels/cuda/kernel_family.h"
#include "kernels/cuda/row_chain.h"

namespace svdserve::cuda {
namespace {

constexpr int kChunk = 8;  // elements of a 16-byte copy

bool MakesSense(const RowChainParams& p) {
  for (int width : {p.in, p.rank, p.hidden, p.out}) {
    if (width <= 0 || width % kChunk != 0) return false;
  }
  for (const void* pointer :
       {p.y, p.narrow, p.w, static_cast<const void*>(p.gamma),
        static_cast<const void*>(p.beta), static_cast<const void*>(p.x), p.next,
        static_cast<const void*>(p.z)}) {
    if (pointer == nullptr || !IsAligned(pointer, 16)) return false;
  }
  return p.rows >= 0 && IsAligned(p.bias, 16);
}

}  // namespace

bool RowChainTakes([[maybe_unused]] const RowChainParams& params,
                   [[maybe_unused]] const DeviceLimits& limits) {
  if constexpr (kHopperLinked) {
    return TakesHopperKernels(limits) && hopper::RowChainHas(params, limits);
  }
  return false;
}

cudaError_t RowChain(const RowChainParams& params, const DeviceLimits& limits,
                     cudaStream_t stream) {
  if (!MakesSense(params)) return cudaErrorInvalidValue;
  if (!RowChainTakes(params, limits)) return cudaErrorNotSupported;
  if constexpr (kHopperLinked) return hopper::RowChain(params, stream);
  return cudaErrorNotSupported;
}

}  // namespace svdserve::cuda
