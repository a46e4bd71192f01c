// Predicts how long a step takes on a CUDA device, from cuda_cost_table.h.
//
// A kernel takes its launch and then the longer of two: its bytes, or its
// waves, each one block on every multiprocessor. So few rows pay for the chip
// that they leave idle, and many small kernels for their launches.
#ifndef SVDSERVE_ENGINE_PLAN_CUDA_COST_MODEL_H_
#define SVDSERVE_ENGINE_PLAN_CUDA_COST_MODEL_H_

#include "engine/model/model_shape.h"
#include "engine/plan/plan.h"

namespace svdserve {

double CudaAttentionSeconds(const ModelShape& model, const PlanTarget& target,
                            const LayerShape& layer, const BatchShape& batch,
                            const Chunking& chunking);
double CudaFeedForwardSeconds(const ModelShape& model, const PlanTarget& target,
                              const LayerShape& layer, const BatchShape& batch,
                              const Chunking& chunking);

// Rows that give every multiprocessor one block of the fused feed-forward.
int FusedFeedForwardWaveRows(const PlanTarget& target);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_PLAN_CUDA_COST_MODEL_H_
