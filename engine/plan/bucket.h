// Batch shapes are rounded up, so that few plans serve many batches.
//
// The steps are bounded by constants, not by a share of the shape: what
// rounding adds to a plan is part of the fixed bytes of the cost function.
#ifndef SVDSERVE_ENGINE_PLAN_BUCKET_H_
#define SVDSERVE_ENGINE_PLAN_BUCKET_H_

#include "engine/plan/plan.h"

namespace svdserve {

// The most that a bucket adds to a shape.
inline constexpr int kMaxTokenSlack = 255;
inline constexpr int kMaxSequenceSlack = 15;

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_PLAN_BUCKET_H_
