// Machine-readable detail of a refusal, carried as a payload of absl::Status.
#ifndef SVDSERVE_ENGINE_SCHEDULE_REFUSAL_H_
#define SVDSERVE_ENGINE_SCHEDULE_REFUSAL_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/observer.h"

namespace svdserve {

struct RefusalDetail {
  RefusalReason reason = RefusalReason::kQueueBudget;
  // The budget: "queue_activation_bytes", "text_bytes".
  std::string subject = {};
  uint64_t needed_bytes = 0;
  uint64_t available_bytes = 0;
  uint64_t limit_bytes = 0;
  // Zero: retrying will not help.
  absl::Duration retry_after = absl::ZeroDuration();
};

const char* RefusalReasonName(RefusalReason reason);  // "queue_budget"

absl::Status MakeRefusal(absl::StatusCode code, const std::string& message,
                         const RefusalDetail& detail);
std::optional<RefusalDetail> GetRefusal(const absl::Status& status);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_SCHEDULE_REFUSAL_H_
