#include "engine/schedule/clock.h"

#include <gtest/gtest.h>

#include <thread>

namespace svdserve {
namespace {

TEST(ManualClockTest, StandsStillUntilAdvanced) {
  ManualClock clock;
  const absl::Time start = clock.Now();
  EXPECT_EQ(clock.Now(), start);
  clock.Advance(absl::Seconds(3));
  EXPECT_EQ(clock.Now() - start, absl::Seconds(3));
}

TEST(ManualClockTest, WakesAWaiterWhoseDeadlineHasCome) {
  ManualClock clock;
  const absl::Time deadline = clock.Now() + absl::Hours(1);
  absl::Mutex mu;
  absl::CondVar changed;
  std::thread waiter([&] {
    absl::MutexLock lock(&mu);
    while (clock.Now() < deadline) clock.WaitUntil(&changed, &mu, deadline);
  });
  clock.Advance(absl::Hours(1));
  waiter.join();
}

TEST(RealClockTest, MovesForward) {
  const absl::Time before = RealClock()->Now();
  absl::Mutex mu;
  absl::CondVar changed;
  absl::MutexLock lock(&mu);
  RealClock()->WaitUntil(&changed, &mu, before + absl::Milliseconds(1));
  EXPECT_GE(RealClock()->Now(), before);
}

}  // namespace
}  // namespace svdserve
