// How fast waiting bytes are worked off, as measured; turns a backlog into a
// retry hint. Thread-safe.
//
//   rate.Record(batch_bytes, batch_seconds);
//   detail.retry_after = rate.TimeFor(budget.reserved());
#ifndef SVDSERVE_ENGINE_SCHEDULE_DRAIN_RATE_H_
#define SVDSERVE_ENGINE_SCHEDULE_DRAIN_RATE_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace svdserve {

class DrainRate {
 public:
  void Record(uint64_t bytes, absl::Duration took) ABSL_LOCKS_EXCLUDED(mu_);

  // Never below 10 ms (a client that comes back at once finds the same queue),
  // never above 30 s. 100 ms as long as nothing was measured.
  absl::Duration TimeFor(uint64_t bytes) const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  mutable absl::Mutex mu_;
  double bytes_per_second_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_SCHEDULE_DRAIN_RATE_H_
