// Time, injected, so that no test sleeps.
//
// Thread-safe. RealClock() is the system's clock and lives for ever;
// ManualClock stands still until a test moves it.
//
//   const absl::Time start = clock->Now();
//   while (!ready_) clock->WaitUntil(&changed_, &mu_, start + timeout);
#ifndef SVDSERVE_ENGINE_SCHEDULE_CLOCK_H_
#define SVDSERVE_ENGINE_SCHEDULE_CLOCK_H_

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace svdserve {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;
  // Waits, with `mu` held, until `changed` is signalled or the deadline has
  // come. It may return early: callers loop over their condition.
  virtual void WaitUntil(absl::CondVar* changed, absl::Mutex* mu,
                         absl::Time deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) = 0;
};

Clock* RealClock();

class ManualClock : public Clock {
 public:
  explicit ManualClock(absl::Time now = absl::UnixEpoch()) : now_(now) {}

  absl::Time Now() const override ABSL_LOCKS_EXCLUDED(now_mu_);
  void WaitUntil(absl::CondVar* changed, absl::Mutex* mu,
                 absl::Time deadline) override;
  void Advance(absl::Duration by) ABSL_LOCKS_EXCLUDED(now_mu_);

 private:
  mutable absl::Mutex now_mu_;
  absl::Time now_ ABSL_GUARDED_BY(now_mu_);
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_SCHEDULE_CLOCK_H_
