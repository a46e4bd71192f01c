// Simulated time: bulk streams keep the device saturated while lone queries
// come at random moments. A query's latency is counted in batch times.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "engine/schedule/batch_scheduler.h"
#include "tests/engine/schedule/task_maker.h"

namespace svdserve {
namespace {

struct Load {
  const char* name;
  int streams;
  int window;  // inputs that each stream keeps waiting
  int tokens;
};

class FairnessTest : public testing::TestWithParam<Load> {
 protected:
  static constexpr int kMaxBatchTokens = 4096;

  void FillStreams() {
    const Load& load = GetParam();
    waiting_.resize(load.streams, 0);
    for (int stream = 0; stream < load.streams; ++stream) {
      while (waiting_[stream] < load.window) {
        Submit(load.tokens, stream + 1);
        ++waiting_[stream];
      }
    }
  }

  void Submit(int tokens, uint64_t flow) {
    MadeTask made = maker_.Make(tokens, flow);
    ASSERT_TRUE(scheduler_.Submit(&made.task).ok());
  }

  // Runs one batch; a token takes a microsecond. Queries arrive meanwhile.
  void RunBatch() {
    std::optional<Batch> batch = scheduler_.TryPull();
    ASSERT_TRUE(batch.has_value());
    const absl::Time end = clock_.Now() + absl::Microseconds(batch->tokens);
    while (next_query_ < end) {
      clock_.Advance(next_query_ - clock_.Now());
      Submit(16, 0);
      next_query_ += absl::Microseconds(
          std::exponential_distribution<double>(1 / 3000.0)(random_));
    }
    clock_.Advance(end - clock_.Now());
    for (const auto& task : batch->tasks) Finish(task.get());
  }

  void Finish(InputTask* task) {
    if (task->flow() == 0) {
      latencies_.push_back(clock_.Now() - task->accepted_at());
    } else {
      --waiting_[task->flow() - 1];
      ++served_[task->flow()];
    }
    task->Finish(InputResult{});
  }

  std::mt19937 random_{7};
  ManualClock clock_;
  TaskMaker maker_{&clock_};
  Admission admission_{CostFunction(0, 1, 0), {512, 1 << 20, 1u << 30}};
  BatchScheduler scheduler_{
      {.max_tokens = kMaxBatchTokens, .max_inputs = 512}, &admission_, &clock_};
  std::vector<int> waiting_;
  std::map<uint64_t, int> served_;
  std::vector<absl::Duration> latencies_;
  // By then every stream has had its first turn.
  absl::Time next_query_ = clock_.Now() + absl::Milliseconds(100);
};

// It arrives in the middle of a batch, or of another query's small one, which a
// whole batch follows.
TEST_P(FairnessTest, ALoneQueryWaitsForAboutOneBatch) {
  for (int i = 0; i < 500; ++i) {
    FillStreams();
    RunBatch();
  }
  ASSERT_GT(latencies_.size(), 200);
  EXPECT_LE(*std::max_element(latencies_.begin(), latencies_.end()),
            (1 + 2.0 / FairQueue::kNewcomersShare) *
                absl::Microseconds(kMaxBatchTokens));
}

TEST_P(FairnessTest, EqualStreamsGetEqualShares) {
  for (int i = 0; i < 500; ++i) {
    FillStreams();
    RunBatch();
  }
  int least = served_[1];
  int most = served_[1];
  for (int stream = 1; stream <= GetParam().streams; ++stream) {
    least = std::min(least, served_[stream]);
    most = std::max(most, served_[stream]);
  }
  EXPECT_GT(least, 0);
  EXPECT_LE(most, least * 1.1 + GetParam().window);
}

INSTANTIATE_TEST_SUITE_P(Loads, FairnessTest,
                         testing::Values(Load{"OneDeepStream", 1, 2000, 256},
                                         Load{"FourDeepStreams", 4, 500, 256},
                                         Load{"ManyStreams", 100, 20, 256},
                                         Load{"LongInputs", 16, 64, 512},
                                         Load{"ShortInputs", 8, 256, 8}),
                         [](const auto& info) { return info.param.name; });

class QueueTest : public testing::Test {
 protected:
  void Push(uint64_t flow, int request_inputs) {
    QueueEntry entry;
    entry.task =
        maker_.Make(kTokens, flow, absl::InfiniteFuture(), {}, request_inputs)
            .task;
    entry.queue_bytes = *budget_.TryReserve(kTokens);
    entry.tokens = kTokens;
    queue_.Push(std::move(entry));
  }
  // How many inputs the next batch has.
  int Take() {
    std::vector<QueueEntry> taken;
    std::vector<QueueEntry> dropped;
    queue_.TakeBatch(
        {.bytes = 32 * kTokens, .tokens = 32 * kTokens, .inputs = 512},
        [](const QueueEntry&) { return false; }, &taken, &dropped);
    for (const QueueEntry& entry : taken) entry.task->Finish(InputResult{});
    return static_cast<int>(taken.size());
  }

  static constexpr int kTokens = 16;
  ManualClock clock_;
  TaskMaker maker_{&clock_};
  ByteBudget budget_{1 << 30};
  FairQueue queue_;
};

// Each request is a flow of its own, and the queue is never empty.
TEST_F(QueueTest, FlowsThatDoNotComeBackAreForgotten) {
  uint64_t flow = 0;
  for (int i = 0; i < 64; ++i) Push(++flow, 1);
  for (int batch = 0; batch < 200; ++batch) {
    const int taken = Take();
    for (int i = 0; i < taken; ++i) Push(++flow, 1);
    ASSERT_LE(queue_.flows(), 64 + 32 * (FairQueue::kRememberedBatches + 1));
  }
}

TEST_F(QueueTest, ASmallRequestOvertakesBulk) {
  for (int i = 0; i < 200; ++i) Push(1, 200);
  EXPECT_EQ(Take(), 32);
  Push(2, 2);
  Push(2, 2);
  EXPECT_EQ(Take(), 2);
}

TEST_F(QueueTest, TheFirstInputsOfALargeRequestDoNot) {
  for (int i = 0; i < 200; ++i) Push(1, 200);
  EXPECT_EQ(Take(), 32);
  Push(2, 64);
  Push(2, 64);
  EXPECT_EQ(Take(), 32);
}

}  // namespace
}  // namespace svdserve
