// What the engine tells the outside about itself. The server turns it into
// metrics; the engine never sees Prometheus.
#ifndef SVDSERVE_ENGINE_OBSERVER_H_
#define SVDSERVE_ENGINE_OBSERVER_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace svdserve {

// Why an input was refused or dropped. Each is one value of a metric label.
enum class RefusalReason {
  kTextBudget,   // text waiting for tokenization is at its bound
  kQueueBudget,  // activation bytes of the queue are at their bound
  kTooLarge,     // can never fit
  kInvalid,      // bad ids, empty, too long without truncation, bad option
  kExpired,      // its deadline passed while it waited
  kCancelled,    // its caller went away
  kDraining,     // the server is shutting down
};

struct StageTimes {
  absl::Duration tokenization;
  absl::Duration queue;
  absl::Duration compute;
  absl::Duration total;
};

struct InputStats {
  absl::StatusCode code = absl::StatusCode::kOk;
  int tokens = 0;
  uint64_t activation_bytes = 0;        // charged
  uint64_t dense_activation_bytes = 0;  // what the dense plan would have needed
  StageTimes times;
};

struct BatchStats {
  int sequences = 0;
  int tokens = 0;
  uint64_t charged_bytes = 0;  // sum of charges + fixed part
  uint64_t planned_bytes = 0;  // Plan::peak_bytes
  uint64_t dense_bytes = 0;
  absl::Duration compute;
};

// Called on engine threads; must be thread-safe and must not block.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void OnInput(const InputStats&) {}
  virtual void OnRefusal(RefusalReason) {}
  virtual void OnBatch(const BatchStats&) {}
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_OBSERVER_H_
