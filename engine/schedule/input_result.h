// What one input becomes, and who is told.
#ifndef SVDSERVE_ENGINE_SCHEDULE_INPUT_RESULT_H_
#define SVDSERVE_ENGINE_SCHEDULE_INPUT_RESULT_H_

#include <cstdint>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "engine/observer.h"

namespace svdserve {

struct InputResult {
  std::vector<float> values;  // [dimensions] embedding, or [labels] logits
  int tokens = 0;
  uint64_t activation_bytes = 0;
  uint64_t dense_activation_bytes = 0;
  StageTimes times;
};

using InputCallback = absl::AnyInvocable<void(absl::StatusOr<InputResult>) &&>;

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_SCHEDULE_INPUT_RESULT_H_
