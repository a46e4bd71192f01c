#include "engine/schedule/batch_scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "engine/schedule/refusal.h"
#include "gmock/gmock.h"
#include "tests/engine/schedule/task_maker.h"

namespace svdserve {
namespace {

// An arena for ten inputs of 90 tokens: fixed 100, 10 bytes an input, 1 a
// token, so an input of 90 tokens costs 100.
class BatchSchedulerTest : public testing::Test {
 protected:
  BatchSchedulerTest() { Configure({}); }

  void Configure(const BatchLimits& limits, uint64_t queue_budget = 1 << 20) {
    scheduler_.reset();
    admission_ = std::make_unique<Admission>(
        CostFunction(100, 1, 10), AdmissionLimits{512, 1100, queue_budget});
    scheduler_ =
        std::make_unique<BatchScheduler>(limits, admission_.get(), &clock_);
  }

  std::shared_ptr<Ending> Submit(int tokens, uint64_t flow = 0,
                                 absl::Time deadline = absl::InfiniteFuture(),
                                 CancellationToken cancelled = {}) {
    MadeTask made = maker_.Make(tokens, flow, deadline, std::move(cancelled));
    EXPECT_TRUE(scheduler_->Submit(&made.task).ok());
    EXPECT_EQ(made.task, nullptr);  // owned by the scheduler now
    return made.ending;
  }

  static std::vector<uint64_t> FlowsOf(const Batch& batch) {
    std::vector<uint64_t> flows;
    for (const auto& task : batch.tasks) flows.push_back(task->flow());
    return flows;
  }

  ManualClock clock_;
  TaskMaker maker_{&clock_};
  std::unique_ptr<Admission> admission_;
  std::unique_ptr<BatchScheduler> scheduler_;
};

TEST_F(BatchSchedulerTest, NothingQueuedMeansNoBatch) {
  EXPECT_FALSE(scheduler_->TryPull().has_value());
  EXPECT_FALSE(scheduler_->Pull(clock_.Now()).has_value());
}

TEST_F(BatchSchedulerTest, ABatchFitsTheArena) {
  for (int i = 0; i < 11; ++i) Submit(90);
  const auto batch = scheduler_->TryPull();
  ASSERT_TRUE(batch.has_value());
  EXPECT_EQ(batch->tasks.size(), 10);
  EXPECT_EQ(batch->tokens, 900);
  EXPECT_EQ(batch->charged_bytes, 1100);
  EXPECT_EQ(scheduler_->size(), 1);
  EXPECT_EQ(scheduler_->TryPull()->tasks.size(), 1);
}

TEST_F(BatchSchedulerTest, ABatchKeepsTheLimitsOfTokensAndInputs) {
  Configure({.max_tokens = 600, .max_inputs = 100});
  for (int i = 0; i < 10; ++i) Submit(90);
  EXPECT_EQ(scheduler_->TryPull()->tasks.size(), 6);
  Configure({.max_tokens = 10000, .max_inputs = 3});
  for (int i = 0; i < 10; ++i) Submit(90);
  EXPECT_EQ(scheduler_->TryPull()->tasks.size(), 3);
}

TEST_F(BatchSchedulerTest, AnInputLongerThanTheTokenLimitRunsAlone) {
  Configure({.max_tokens = 64});
  Submit(500);
  Submit(500);
  EXPECT_EQ(scheduler_->TryPull()->tasks.size(), 1);
  EXPECT_EQ(scheduler_->TryPull()->tasks.size(), 1);
}

TEST_F(BatchSchedulerTest, ABatchFreesTheQueueWhenItCloses) {
  Submit(90);
  Submit(40);
  EXPECT_EQ(admission_->queue().reserved(), 150);
  const auto batch = scheduler_->TryPull();
  EXPECT_EQ(admission_->queue().reserved(), 0);
  EXPECT_EQ(batch->tasks[0]->work.activation_bytes, 100);
  EXPECT_EQ(batch->tasks[1]->work.activation_bytes, 50);
}

TEST_F(BatchSchedulerTest, ARefusedTaskStaysWithItsOwner) {
  Configure({}, /*queue_budget=*/150);
  Submit(90);
  MadeTask made = maker_.Make(90);
  const absl::Status full = scheduler_->Submit(&made.task);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  ASSERT_NE(made.task, nullptr);
  EXPECT_EQ(made.ending->times(), 0);
  EXPECT_EQ(scheduler_->size(), 1);
  scheduler_->TryPull();
  EXPECT_TRUE(scheduler_->Submit(&made.task).ok());
}

TEST_F(BatchSchedulerTest, QueueTimeIsMeasured) {
  Submit(90);
  clock_.Advance(absl::Milliseconds(3));
  EXPECT_EQ(scheduler_->TryPull()->tasks[0]->work.times.queue,
            absl::Milliseconds(3));
}

TEST_F(BatchSchedulerTest, ExpiredAndCancelledAreFinishedAndNotRun) {
  CancellationSource source;
  const auto expired = Submit(90, 0, clock_.Now() + absl::Seconds(1));
  const auto cancelled = Submit(90, 0, absl::InfiniteFuture(), source.token());
  const auto alive = Submit(90);
  source.Cancel();
  clock_.Advance(absl::Seconds(1));
  const auto batch = scheduler_->TryPull();
  ASSERT_TRUE(batch.has_value());
  EXPECT_EQ(batch->tasks.size(), 1);
  EXPECT_EQ(expired->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(cancelled->code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(alive->times(), 0);
  EXPECT_EQ(admission_->queue().reserved(), 0);
}

TEST_F(BatchSchedulerTest, ExpiredTasksBehindAFullBatchFreeTheQueueToo) {
  for (int i = 0; i < 10; ++i) Submit(90);
  const auto expired = Submit(90, 0, clock_.Now() + absl::Seconds(1));
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(scheduler_->TryPull()->tasks.size(), 10);
  EXPECT_EQ(expired->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(admission_->queue().reserved(), 0);
}

TEST_F(BatchSchedulerTest, OnlyLapsedTasksMeansNoBatch) {
  const auto expired = Submit(90, 0, clock_.Now());
  EXPECT_FALSE(scheduler_->TryPull().has_value());
  EXPECT_EQ(expired->times(), 1);
  EXPECT_EQ(scheduler_->size(), 0);
}

TEST_F(BatchSchedulerTest, ABatchWaitsOnlyWhileMoreIsComing) {
  Configure({.gather_window = absl::Milliseconds(5)});
  Submit(90);
  EXPECT_TRUE(scheduler_->TryPull().has_value());  // nothing is coming
  scheduler_->Expect(1);
  Submit(90);
  EXPECT_FALSE(scheduler_->TryPull().has_value());
  clock_.Advance(absl::Milliseconds(4));
  EXPECT_FALSE(scheduler_->TryPull().has_value());
  clock_.Advance(absl::Milliseconds(1));
  EXPECT_TRUE(scheduler_->TryPull().has_value());
}

TEST_F(BatchSchedulerTest, TheWindowEndsWhenTheLastExpectedCame) {
  Configure({.gather_window = absl::Hours(1)});
  scheduler_->Expect(1);
  Submit(90);
  EXPECT_FALSE(scheduler_->TryPull().has_value());
  std::thread arrival([&] {
    MadeTask last = maker_.Make(90);
    EXPECT_TRUE(scheduler_->SubmitAll({&last.task, 1}, 1).front().ok());
  });
  EXPECT_EQ(scheduler_->Pull(absl::InfiniteFuture())->tasks.size(), 2);
  arrival.join();
}

TEST_F(BatchSchedulerTest, TheWindowEndsWhenWhatWasExpectedDoesNotCome) {
  Configure({.gather_window = absl::Hours(1)});
  scheduler_->Expect(2);
  Submit(90);
  EXPECT_FALSE(scheduler_->TryPull().has_value());
  EXPECT_TRUE(scheduler_->SubmitAll({}, 2).empty());
  EXPECT_TRUE(scheduler_->TryPull().has_value());
}

TEST_F(BatchSchedulerTest, OfSeveralEachIsTakenOrStaysWithItsOwner) {
  Configure({}, /*queue_budget=*/150);
  std::vector<MadeTask> made = {maker_.Make(90), maker_.Make(90),
                                maker_.Make(30)};
  std::vector<std::shared_ptr<InputTask>> tasks;
  for (const MadeTask& each : made) tasks.push_back(each.task);
  const auto statuses = scheduler_->SubmitAll(absl::MakeSpan(tasks), 0);
  ASSERT_EQ(statuses.size(), 3);
  EXPECT_TRUE(statuses[0].ok());
  EXPECT_EQ(statuses[1].code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(statuses[2].ok());
  EXPECT_EQ(tasks[0], nullptr);
  EXPECT_EQ(tasks[1], made[1].task);
  EXPECT_EQ(tasks[2], nullptr);
  EXPECT_EQ(scheduler_->TryPull()->tasks.size(), 2);
}

TEST_F(BatchSchedulerTest, TheWindowEndsWhenTheBatchIsFull) {
  Configure({.gather_window = absl::Hours(1)});
  scheduler_->Expect(100);
  for (int i = 0; i < 9; ++i) Submit(90);
  EXPECT_FALSE(scheduler_->TryPull().has_value());
  Submit(90);
  EXPECT_EQ(scheduler_->TryPull()->tasks.size(), 10);
}

TEST_F(BatchSchedulerTest, WindowZeroNeverWaits) {
  Configure({.gather_window = absl::ZeroDuration()});
  scheduler_->Expect(1);
  Submit(90);
  EXPECT_TRUE(scheduler_->TryPull().has_value());
}

TEST_F(BatchSchedulerTest, ALoneQueryIsInTheNextBatch) {
  for (int i = 0; i < 100; ++i) {
    for (uint64_t flow = 1; flow <= 5; ++flow) Submit(90, flow);
  }
  scheduler_->TryPull();
  Submit(90, 77);
  const std::vector<uint64_t> flows = FlowsOf(*scheduler_->TryPull());
  EXPECT_EQ(std::count(flows.begin(), flows.end(), 77), 1);
}

TEST_F(BatchSchedulerTest, FewSmallNewcomersRunByThemselves) {
  for (int i = 0; i < 40; ++i) Submit(90, 1);
  scheduler_->TryPull();
  Submit(10, 7);
  Submit(10, 8);
  EXPECT_THAT(FlowsOf(*scheduler_->TryPull()),
              testing::UnorderedElementsAre(7, 8));
  Submit(10, 9);  // not twice in a row, but in the next batch all the same
  const std::vector<uint64_t> flows = FlowsOf(*scheduler_->TryPull());
  EXPECT_EQ(flows.size(), 10);
  EXPECT_EQ(std::count(flows.begin(), flows.end(), 9), 1);
  Submit(10, 10);
  EXPECT_EQ(FlowsOf(*scheduler_->TryPull()), std::vector<uint64_t>{10});
}

TEST_F(BatchSchedulerTest, ManyNewcomersAreBulk) {
  for (int i = 0; i < 40; ++i) Submit(90, 1);
  scheduler_->TryPull();
  for (int i = 0; i < 4; ++i) Submit(10);  // 80 bytes of 1,000 / 16
  EXPECT_GT(scheduler_->TryPull()->tokens, 500);
}

TEST_F(BatchSchedulerTest, ANewcomerJoinsWhatFitsIntoOneBatch) {
  for (int i = 0; i < 5; ++i) Submit(90, 1);
  Submit(10, 7);
  EXPECT_EQ(scheduler_->TryPull()->tasks.size(), 6);
}

TEST_F(BatchSchedulerTest, NewcomersThatLapsedLeaveNoEmptyBatch) {
  for (int i = 0; i < 40; ++i) Submit(90, 1);
  scheduler_->TryPull();
  CancellationSource source;
  const auto ending = Submit(10, 7, absl::InfiniteFuture(), source.token());
  source.Cancel();
  const auto batch = scheduler_->Pull(absl::InfiniteFuture());
  ASSERT_TRUE(batch.has_value());
  EXPECT_EQ(batch->tasks.size(), 10);
  EXPECT_EQ(ending->times(), 1);
}

TEST_F(BatchSchedulerTest, FlowsShareABatchEvenly) {
  for (int i = 0; i < 50; ++i) Submit(90, 1);
  for (int i = 0; i < 50; ++i) Submit(90, 2);
  int from_second = 0;
  for (int i = 0; i < 4; ++i) {
    for (const uint64_t flow : FlowsOf(*scheduler_->TryPull())) {
      from_second += flow == 2 ? 1 : 0;
    }
  }
  // The half of a batch that goes by age is the first flow's, whose inputs all
  // came first; the fair half makes up for it.
  EXPECT_GE(from_second, 15);
}

TEST_F(BatchSchedulerTest, InputsOfAFlowKeepTheirOrder) {
  for (int tokens = 1; tokens <= 60; ++tokens) Submit(tokens, tokens % 2 + 1);
  std::vector<int> last(3, 0);
  while (auto batch = scheduler_->TryPull()) {
    for (const auto& task : batch->tasks) {
      EXPECT_GT(task->work.tokens(), last[task->flow()]);
      last[task->flow()] = task->work.tokens();
    }
  }
  EXPECT_EQ(last[1], 60);
  EXPECT_EQ(last[2], 59);
}

TEST_F(BatchSchedulerTest, NewFlowsDoNotStarveAnOldOne) {
  const auto first = Submit(90, 1);
  for (int i = 0; i < 19; ++i) Submit(90, 1);
  int left = 20;
  int batches = 0;
  while (left > 0 && batches < 100) {
    for (int i = 0; i < 20; ++i) Submit(90);  // twice what a batch takes
    for (const uint64_t flow : FlowsOf(*scheduler_->TryPull())) {
      left -= flow == 1 ? 1 : 0;
    }
    ++batches;
  }
  EXPECT_EQ(left, 0);
  EXPECT_LE(batches, 8);
}

TEST_F(BatchSchedulerTest, AHugeInputIsNotPassedOverForEver) {
  Submit(500, 1);
  Submit(500, 1);  // neither fits beside ten of 90
  int huge_left = 2;
  for (int i = 0; i < 6; ++i) {
    for (int j = 0; j < 12; ++j) Submit(90);
    for (const uint64_t flow : FlowsOf(*scheduler_->TryPull())) {
      huge_left -= flow == 1 ? 1 : 0;
    }
  }
  EXPECT_EQ(huge_left, 0);
}

TEST_F(BatchSchedulerTest, StopRefusesAndWakes) {
  std::thread puller([&] {
    EXPECT_FALSE(scheduler_->Pull(absl::InfiniteFuture()).has_value());
  });
  scheduler_->Stop();
  puller.join();
  MadeTask made = maker_.Make(1);
  const absl::Status status = scheduler_->Submit(&made.task);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(GetRefusal(status)->reason, RefusalReason::kDraining);
  EXPECT_NE(made.task, nullptr);
}

TEST_F(BatchSchedulerTest, PullWakesAtTheGivenTime) {
  const absl::Time wake_at = clock_.Now() + absl::Seconds(1);
  std::thread puller(
      [&] { EXPECT_FALSE(scheduler_->Pull(wake_at).has_value()); });
  clock_.Advance(absl::Seconds(1));
  puller.join();
}

}  // namespace
}  // namespace svdserve
