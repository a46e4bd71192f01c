#include "engine/schedule/clock.h"

#include "absl/time/clock.h"

namespace svdserve {
namespace {

class SystemClock : public Clock {
 public:
  absl::Time Now() const override { return absl::Now(); }
  void WaitUntil(absl::CondVar* changed, absl::Mutex* mu,
                 absl::Time deadline) override {
    changed->WaitWithDeadline(mu, deadline);
  }
};

}  // namespace

Clock* RealClock() {
  static SystemClock* const clock = new SystemClock;
  return clock;
}

absl::Time ManualClock::Now() const {
  absl::MutexLock lock(&now_mu_);
  return now_;
}

void ManualClock::WaitUntil(absl::CondVar* changed, absl::Mutex* mu,
                            absl::Time deadline) {
  if (Now() >= deadline) return;
  // Advance() cannot know who waits, so a waiter looks again by itself.
  changed->WaitWithTimeout(mu, absl::Milliseconds(1));
}

void ManualClock::Advance(absl::Duration by) {
  absl::MutexLock lock(&now_mu_);
  now_ += by;
}

}  // namespace svdserve
