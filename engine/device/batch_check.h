// What a batch must be before a device sees it; shared by all backends.
#ifndef SVDSERVE_ENGINE_DEVICE_BATCH_CHECK_H_
#define SVDSERVE_ENGINE_DEVICE_BATCH_CHECK_H_

#include "absl/status/status.h"
#include "engine/device/backend.h"
#include "engine/plan/plan.h"

namespace svdserve {

struct BatchLimits {
  int vocab = 0;
  int type_vocab = 0;
  int max_positions = 0;
  int output_width = 0;
};

// OK if the batch is well formed, within the limits and fits the plan's shape.
// INVALID_ARGUMENT otherwise; the message names the sequence.
absl::Status CheckBatch(const Plan& plan, const PackedBatch& batch,
                        const BatchLimits& limits);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_DEVICE_BATCH_CHECK_H_
