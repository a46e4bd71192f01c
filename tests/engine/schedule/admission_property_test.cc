// Random arrivals against a manual clock: thousands of steps, in each of which
// inputs come, time passes, callers go away and a simulated device takes
// batches. What must hold always is checked after every step.
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "engine/schedule/batch_scheduler.h"
#include "engine/schedule/refusal.h"
#include "tests/engine/schedule/task_maker.h"

namespace svdserve {
namespace {

constexpr uint64_t kFixed = 5000;
constexpr uint64_t kArena = 200000;
constexpr uint64_t kQueue = 600000;
constexpr int kMaxBatchTokens = 1500;
constexpr int kMaxBatchInputs = 24;

struct Arrival {
  std::shared_ptr<Ending> ending;
  CancellationSource source;
  bool cancellable = false;
  absl::Time deadline = absl::InfiniteFuture();
  absl::Time arrived;
  uint64_t charge = 0;
};

class Simulation {
 public:
  explicit Simulation(uint32_t seed) : random_(seed) {}

  void Step() {
    for (int i = Pick(0, 6); i > 0; --i) Arrive();
    CancelSome();
    clock_.Advance(absl::Microseconds(Pick(0, 400)));
    RunDevice();
    CheckBudgets();
  }

  // No more arrivals: everything that was accepted must come to its end.
  void Settle() {
    for (int i = 0; i < 100000 && scheduler_.size() + running_.size() > 0;
         ++i) {
      clock_.Advance(absl::Microseconds(200));
      RunDevice();
      CheckBudgets();
    }
    EXPECT_EQ(scheduler_.size(), 0);
    EXPECT_EQ(admission_.queue().reserved(), 0);
    for (const Arrival& arrival : arrivals_) {
      EXPECT_EQ(arrival.ending->times(), 1);
    }
  }

  int refused() const { return refused_; }
  int completed() const { return completed_; }
  int dropped() const { return dropped_; }
  absl::Duration longest_wait() const { return longest_wait_; }

 private:
  int Pick(int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random_);
  }

  void Arrive() {
    Arrival arrival;
    arrival.arrived = clock_.Now();
    if (Pick(0, 9) == 0) {
      arrival.deadline = clock_.Now() + absl::Microseconds(Pick(0, 5000));
    }
    CancellationToken token;
    arrival.cancellable = Pick(0, 9) == 0;
    if (arrival.cancellable) token = arrival.source.token();
    const int tokens = Pick(0, 9) == 0 ? Pick(1, 512) : Pick(1, 128);
    MadeTask made =
        maker_.Make(tokens, Pick(0, 6), arrival.deadline, std::move(token));
    arrival.ending = made.ending;
    arrival.charge = admission_.cost().ChargeFor(tokens);
    made.task->work.ids[0] = static_cast<int>(arrivals_.size());
    const uint64_t free = admission_.queue().available();
    const absl::Status status = scheduler_.Submit(&made.task);
    // One thread: what the budget says and what it does agree.
    EXPECT_EQ(status.ok(), arrival.charge <= free) << status;
    if (!status.ok()) {
      EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
      EXPECT_EQ(GetRefusal(status)->available_bytes, free);
      made.task->Finish(status);
      ++refused_;
    } else {
      queued_.insert(static_cast<int>(arrivals_.size()));
    }
    arrivals_.push_back(std::move(arrival));
  }

  void CancelSome() {
    if (arrivals_.empty()) return;
    Arrival& arrival =
        arrivals_[Pick(std::max(0, static_cast<int>(arrivals_.size()) - 40),
                       static_cast<int>(arrivals_.size()) - 1)];
    if (arrival.cancellable) arrival.source.Cancel();
  }

  // One batch at a time; a token takes a microsecond.
  void RunDevice() {
    if (!running_.empty() && clock_.Now() >= done_at_) {
      for (const auto& task : running_) {
        EXPECT_TRUE(task->Finish(InputResult{}));
        ++completed_;
      }
      running_.clear();
    }
    if (!running_.empty()) return;
    std::optional<Batch> batch = scheduler_.TryPull();
    if (!batch) return;
    CheckBatch(*batch);
    running_ = std::move(batch->tasks);
    done_at_ = clock_.Now() + absl::Microseconds(batch->tokens);
  }

  void CheckBatch(const Batch& batch) {
    uint64_t charged = kFixed;
    int tokens = 0;
    for (const auto& task : batch.tasks) {
      const int index = task->work.ids[0];
      const Arrival& arrival = arrivals_[index];
      EXPECT_EQ(queued_.erase(index), 1) << "not queued, or taken before";
      EXPECT_EQ(arrival.ending->times(), 0);
      EXPECT_LT(clock_.Now(), arrival.deadline);
      EXPECT_FALSE(arrival.source.token().cancelled());
      charged += arrival.charge;
      tokens += task->work.tokens();
      longest_wait_ = std::max(longest_wait_, clock_.Now() - arrival.arrived);
    }
    EXPECT_EQ(batch.charged_bytes, charged);
    EXPECT_EQ(batch.tokens, tokens);
    EXPECT_LE(charged, kArena);
    EXPECT_LE(batch.tasks.size(), kMaxBatchInputs);
    EXPECT_LE(tokens, kMaxBatchTokens);
  }

  // The budget's own number against one that is counted from outside.
  void CheckBudgets() {
    uint64_t waiting = 0;
    for (auto it = queued_.begin(); it != queued_.end();) {
      const Arrival& arrival = arrivals_[*it];
      const bool dropped = arrival.ending->times() > 0;
      if (dropped) {
        ++dropped_;
        EXPECT_TRUE(arrival.ending->code() == absl::StatusCode::kCancelled ||
                    clock_.Now() >= arrival.deadline);
      } else {
        waiting += arrival.charge;
      }
      it = dropped ? queued_.erase(it) : std::next(it);
    }
    EXPECT_EQ(admission_.queue().reserved(), waiting);
    EXPECT_LE(admission_.queue().peak(), kQueue);
  }

  std::mt19937 random_;
  ManualClock clock_;
  TaskMaker maker_{&clock_};
  Admission admission_{CostFunction(kFixed, 100, 1000), {512, kArena, kQueue}};
  BatchScheduler scheduler_{{.max_tokens = kMaxBatchTokens,
                             .max_inputs = kMaxBatchInputs,
                             .gather_window = absl::Microseconds(100)},
                            &admission_,
                            &clock_};
  std::vector<Arrival> arrivals_;
  std::set<int> queued_;  // indices of those that wait
  std::vector<std::shared_ptr<InputTask>> running_;
  absl::Time done_at_;
  int refused_ = 0;
  int completed_ = 0;
  int dropped_ = 0;
  absl::Duration longest_wait_;
};

class AdmissionPropertyTest : public testing::TestWithParam<uint32_t> {};

TEST_P(AdmissionPropertyTest, BudgetsHoldAndEveryTaskEndsOnce) {
  SCOPED_TRACE(testing::Message() << "seed " << GetParam());
  Simulation simulation(GetParam());
  for (int i = 0; i < 3000 && !HasFailure(); ++i) simulation.Step();
  simulation.Settle();
  // It was a real test: work was done and the limits were met.
  EXPECT_GT(simulation.completed(), 1000);
  EXPECT_GT(simulation.refused(), 100);
  EXPECT_GT(simulation.dropped(), 100);
  // The queue holds 600,000 bytes, at most 6 ms of work; half of each batch
  // goes by age, so no wait is longer than about twice that.
  EXPECT_LT(simulation.longest_wait(), absl::Milliseconds(15));
}

INSTANTIATE_TEST_SUITE_P(Seeds, AdmissionPropertyTest, testing::Range(1u, 6u));

}  // namespace
}  // namespace svdserve
