#include "engine/schedule/task.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "engine/schedule/refusal.h"
#include "tests/engine/schedule/task_maker.h"

namespace svdserve {
namespace {

class CountingObserver : public Observer {
 public:
  void OnInput(const InputStats& stats) override {
    ++inputs;
    last_code = stats.code;
    last_total_seconds = absl::ToDoubleSeconds(stats.times.total);
  }
  void OnRefusal(RefusalReason reason) override {
    ++refusals;
    last_reason = reason;
  }
  std::atomic<int> inputs{0};
  std::atomic<int> refusals{0};
  std::atomic<absl::StatusCode> last_code{absl::StatusCode::kUnknown};
  std::atomic<RefusalReason> last_reason{RefusalReason::kInvalid};
  std::atomic<double> last_total_seconds{0};
};

InputResult ResultOf(int tokens) {
  InputResult result;
  result.tokens = tokens;
  return result;
}

class TaskTest : public testing::Test {
 protected:
  ManualClock clock_;
  CountingObserver observer_;
  TaskMaker maker_{&clock_, &observer_};
};

TEST_F(TaskTest, FinishesOnce) {
  MadeTask made = maker_.Make(3);
  EXPECT_FALSE(made.task->finished());
  EXPECT_TRUE(made.task->Finish(ResultOf(3)));
  EXPECT_FALSE(made.task->Finish(absl::InternalError("again")));
  EXPECT_TRUE(made.task->finished());
  EXPECT_EQ(made.ending->times(), 1);
  EXPECT_EQ(made.ending->result()->tokens, 3);
  EXPECT_EQ(observer_.inputs, 1);
}

TEST_F(TaskTest, CarriesItsTotalTime) {
  MadeTask made = maker_.Make(3);
  clock_.Advance(absl::Milliseconds(7));
  made.task->Finish(ResultOf(3));
  EXPECT_EQ(made.ending->result()->times.total, absl::Milliseconds(7));
  EXPECT_EQ(observer_.last_total_seconds, 0.007);
}

TEST_F(TaskTest, DyingUnfinishedIsAnError) {
  MadeTask made = maker_.Make(3);
  made.task.reset();
  EXPECT_EQ(made.ending->times(), 1);
  EXPECT_EQ(made.ending->code(), absl::StatusCode::kInternal);
}

TEST_F(TaskTest, ManyThreadsFinishItOnce) {
  for (int round = 0; round < 100; ++round) {
    MadeTask made = maker_.Make(3);
    std::atomic<int> claimed{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        if (made.task->Finish(absl::InternalError("x"))) ++claimed;
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(claimed, 1);
    EXPECT_EQ(made.ending->times(), 1);
  }
}

TEST_F(TaskTest, KnowsWhenItLapsed) {
  CancellationSource source;
  const absl::Time deadline = clock_.Now() + absl::Seconds(1);
  MadeTask expiring = maker_.Make(3, 0, deadline);
  MadeTask cancelled = maker_.Make(3, 0, deadline, source.token());
  EXPECT_TRUE(expiring.task->Lapsed(clock_.Now()).ok());
  EXPECT_TRUE(cancelled.task->Lapsed(clock_.Now()).ok());
  source.Cancel();
  const absl::Status gone = cancelled.task->Lapsed(clock_.Now());
  EXPECT_EQ(gone.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(GetRefusal(gone)->reason, RefusalReason::kCancelled);
  clock_.Advance(absl::Seconds(1));
  const absl::Status late = expiring.task->Lapsed(clock_.Now());
  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(GetRefusal(late)->reason, RefusalReason::kExpired);
}

TEST_F(TaskTest, RefusalsAreCountedByReason) {
  MadeTask made = maker_.Make(3);
  made.task->Finish(MakeRefusal(absl::StatusCode::kUnavailable, "draining",
                                {.reason = RefusalReason::kDraining}));
  EXPECT_EQ(observer_.refusals, 1);
  EXPECT_EQ(observer_.last_reason, RefusalReason::kDraining);
  EXPECT_EQ(observer_.last_code, absl::StatusCode::kUnavailable);
  maker_.Make(3).task->Finish(absl::InternalError("no refusal"));
  EXPECT_EQ(observer_.refusals, 1);
  EXPECT_EQ(observer_.inputs, 2);
}

TEST_F(TaskTest, InFlightAwaitsTheLastOne) {
  InFlight in_flight(&clock_);
  EXPECT_TRUE(in_flight.AwaitEmpty(absl::InfiniteFuture()));
  MadeTask first = maker_.Make(3);
  MadeTask second = maker_.Make(3);
  ASSERT_TRUE(in_flight.Enter(first.task));
  ASSERT_TRUE(in_flight.Enter(second.task));
  EXPECT_FALSE(in_flight.AwaitEmpty(clock_.Now()));
  first.task->Finish(InputResult{});
  EXPECT_FALSE(in_flight.AwaitEmpty(clock_.Now()));
  std::thread finisher([&] { second.task.reset(); });  // dying counts
  EXPECT_TRUE(in_flight.AwaitEmpty(absl::InfiniteFuture()));
  finisher.join();
}

TEST_F(TaskTest, ClosedInFlightTakesNoMoreAndFinishesTheRest) {
  InFlight in_flight(&clock_);
  MadeTask held = maker_.Make(3);
  ASSERT_TRUE(in_flight.Enter(held.task));
  in_flight.Close();
  MadeTask late = maker_.Make(3);
  EXPECT_FALSE(in_flight.Enter(late.task));
  in_flight.FinishAll(absl::UnavailableError("the end"));
  EXPECT_EQ(held.ending->code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(late.ending->times(), 0);  // its owner finishes it
  EXPECT_TRUE(in_flight.AwaitEmpty(clock_.Now()));
}

TEST_F(TaskTest, FinishAllMeetsTasksThatDieOnOtherThreads) {
  for (int round = 0; round < 50; ++round) {
    InFlight in_flight(&clock_);
    std::vector<MadeTask> made;
    for (int i = 0; i < 20; ++i) {
      made.push_back(maker_.Make(1));
      ASSERT_TRUE(in_flight.Enter(made.back().task));
    }
    std::thread owner([&] {
      for (MadeTask& each : made) each.task.reset();
    });
    in_flight.FinishAll(absl::UnavailableError("the end"));
    EXPECT_TRUE(in_flight.AwaitEmpty(absl::InfiniteFuture()));
    owner.join();
    for (const MadeTask& each : made) EXPECT_EQ(each.ending->times(), 1);
  }
}

}  // namespace
}  // namespace svdserve
