// Predicts how long a step takes with given chunk sizes: on a CPU from
// cost_table.h, on a CUDA device as cuda_cost_model.h does.
#ifndef SVDSERVE_ENGINE_PLAN_COST_MODEL_H_
#define SVDSERVE_ENGINE_PLAN_COST_MODEL_H_

#include "engine/model/model_shape.h"
#include "engine/plan/plan.h"

namespace svdserve {

double AttentionSeconds(const ModelShape& model, const PlanTarget& target,
                        const LayerShape& layer, const BatchShape& batch,
                        const Chunking& chunking);
double FeedForwardSeconds(const ModelShape& model, const PlanTarget& target,
                          const LayerShape& layer, const BatchShape& batch,
                          const Chunking& chunking);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_PLAN_COST_MODEL_H_
