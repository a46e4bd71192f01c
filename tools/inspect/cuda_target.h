// What the planner must know of a CUDA device, when none is at hand.
#ifndef SVDSERVE_TOOLS_INSPECT_CUDA_TARGET_H_
#define SVDSERVE_TOOLS_INSPECT_CUDA_TARGET_H_

#include "engine/model/model_shape.h"
#include "engine/plan/plan.h"

namespace svdserve {

// An H100 or H200 (sm_90, 132 multiprocessors) that runs this model.
PlanTarget HopperTarget(const ModelShape& shape);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_INSPECT_CUDA_TARGET_H_
