// Decides in bytes what may wait and what can ever run.
//
// The number used here is the planner's: an input of n tokens is charged
// CostFunction::ChargeFor(n). A charge lives in exactly one budget at a time:
// in the queue budget from Reserve() until its batch is closed, in the arena
// from then on. Hence what waits never exceeds the queue budget, and what runs
// never exceeds the arena. Thread-safe.
//
//   absl::StatusOr<Reservation> bytes = admission.Reserve(tokens);
#ifndef SVDSERVE_ENGINE_SCHEDULE_ADMISSION_H_
#define SVDSERVE_ENGINE_SCHEDULE_ADMISSION_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/plan/plan.h"
#include "engine/schedule/byte_budget.h"
#include "engine/schedule/drain_rate.h"

namespace svdserve {

struct AdmissionLimits {
  int model_max_tokens = 0;         // special tokens included
  uint64_t arena_bytes = 0;         // budget of what runs
  uint64_t queue_budget_bytes = 0;  // budget of what waits
};

class Admission {
 public:
  Admission(CostFunction cost, const AdmissionLimits& limits);

  // Tokens of the longest input that can run at all; 0 if none can.
  int longest_input() const { return longest_input_; }
  const CostFunction& cost() const { return cost_; }
  const AdmissionLimits& limits() const { return limits_; }

  // INVALID_ARGUMENT if an input of this length can never run; the message
  // names what it needs, what is allowed and the longest input that fits.
  absl::Status CheckFits(int tokens) const;

  // Takes an input's charge out of the queue budget, or says why not: as
  // CheckFits(), or RESOURCE_EXHAUSTED with the time after which a retry may
  // help.
  absl::StatusOr<Reservation> Reserve(int tokens);

  const ByteBudget& queue() const { return queue_; }
  // Charged bytes that the device works off, and in what time.
  void RecordDrained(uint64_t bytes, absl::Duration took) {
    rate_.Record(bytes, took);
  }

 private:
  const CostFunction cost_;
  const AdmissionLimits limits_;
  const int longest_by_memory_;
  const int longest_input_;
  ByteBudget queue_;
  DrainRate rate_;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_SCHEDULE_ADMISSION_H_
