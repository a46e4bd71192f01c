// x = LayerNorm(x + act(x·U1ᵀ·V1ᵀ + b1)·U2ᵀ·V2ᵀ + b2), in place: a whole
// feed-forward half-layer of factored weights in one kernel.
//
// A block owns rows; nothing but x is in memory. The bits are those of Gemm(),
// FusedFfn() and GemmNorm() one after another: the same sums in the same order,
// rounded where those store.
#ifndef SVDSERVE_KERNELS_CUDA_FFN_LAYER_H_
#define SVDSERVE_KERNELS_CUDA_FFN_LAYER_H_

#include "kernels/cuda/types.h"

namespace svdserve::cuda {

// Pointers are 16-byte aligned, matrices packed.
struct FfnLayerParams {
  Type type = Type::kBF16;
  int rows = 0;          // 0 launches nothing
  int hidden = 0;        // 384 or 768
  int in_rank = 0;       // r1, a multiple of 16
  int intermediate = 0;  // a multiple of 32
  int out_rank = 0;      // r2, a multiple of 16
  Activation activation = Activation::kGelu;
  const void* u1 = nullptr;      // [in_rank, hidden]
  const void* v1 = nullptr;      // [intermediate, in_rank]
  const float* b1 = nullptr;     // [intermediate], or null
  const void* u2 = nullptr;      // [out_rank, intermediate]
  const void* v2 = nullptr;      // [hidden, out_rank]
  const float* b2 = nullptr;     // [hidden], or null
  const float* gamma = nullptr;  // [hidden]
  const float* beta = nullptr;   // [hidden]
  float eps = 1e-12f;
  void* x = nullptr;  // [rows, hidden]; read and written
};

// Whether the current device and these limits have it: a Hopper GPU; ranks of
// at most 320; GELU in both forms or ReLU.
bool FfnLayerTakes(int hidden, int in_rank, int out_rank, Activation activation,
                   const DeviceLimits& limits);

// cudaErrorNotSupported where FfnLayerTakes() is false.
cudaError_t FfnLayer(const FfnLayerParams& params, const DeviceLimits& limits,
                     cudaStream_t stream);

}  // namespace svdserve::cuda

#endif  // SVDSERVE_KERNELS_CUDA_FFN_LAYER_H_
