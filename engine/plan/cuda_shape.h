// A model as the CUDA kernels run it: ranks and the intermediate width rounded
// up to what their tiles take. Weights are padded with zeros, which add nothing
// to any sum.
#ifndef SVDSERVE_ENGINE_PLAN_CUDA_SHAPE_H_
#define SVDSERVE_ENGINE_PLAN_CUDA_SHAPE_H_

#include "engine/model/model_shape.h"

namespace svdserve {

inline constexpr int kCudaRankStep = 16;
inline constexpr int kCudaIntermediateStep = 32;

inline ModelShape CudaShape(ModelShape shape) {
  const auto pad = [](int* value, int step) {
    *value = (*value + step - 1) / step * step;
  };
  pad(&shape.intermediate, kCudaIntermediateStep);
  for (LayerShape& ranks : shape.layers) {
    for (int* rank : {&ranks.query, &ranks.key, &ranks.value,
                      &ranks.attention_output, &ranks.ffn_in, &ranks.ffn_out}) {
      pad(rank, kCudaRankStep);
    }
  }
  return shape;
}

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_PLAN_CUDA_SHAPE_H_
