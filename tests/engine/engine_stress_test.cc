// Many threads at once, for ThreadSanitizer: whatever happens, every input ends
// exactly once and no budget is exceeded by any sample.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "tests/engine/engine_fixture.h"

namespace svdserve {
namespace {

class EngineStressTest : public EngineFixture {
 protected:
  static constexpr int kThreads = 4;
  static constexpr int kInputsPerThread = 1500;

  void Prepare(int slots) {
    slots_ = slots;
    options_.tokenizer_threads = 2;
    options_.text_budget_bytes = 64 << 10;
    options_.queue_budget_bytes = 1 << 20;
    options_.max_batch_inputs = 16;
    options_.gather_window = absl::Microseconds(200);
    MustBuild();
  }

  void SubmitMany(int thread) {
    std::mt19937 random(thread + 1);
    const auto pick = [&](int n) { return static_cast<int>(random() % n); };
    for (int i = 0; i < kInputsPerThread; ++i) {
      RequestContext context;
      context.flow = pick(4);
      if (pick(8) == 0) {
        context.deadline = absl::Now() + absl::Microseconds(pick(2000));
      }
      CancellationSource source;
      if (pick(8) == 0) context.cancelled = source.token();
      engine_->Submit(RandomInput(pick), {}, std::move(context),
                      [this](absl::StatusOr<InputResult> result) {
                        ++ended_;
                        if (result.ok()) ++succeeded_;
                      });
      source.Cancel();
      if (pick(16) == 0) std::this_thread::yield();
    }
  }

  template <typename Pick>
  static Input RandomInput(Pick pick) {
    switch (pick(6)) {
      case 0:
        return IdsInput({pick(80), pick(80)});
      case 1:
        return IdsInput({pick(120)});  // NaN, poisoned or no id at all
      case 2:
        return PairInput(std::string(pick(40), 'a'), "b");
      default:
        return TextInput(std::string(pick(80), 'a'));  // empty, fine, too long
    }
  }

  // Reads everything that may be read while others write.
  void Watch(const std::atomic<bool>* stop) {
    while (!*stop) {
      const EngineGauges gauges = engine_->Gauges();
      EXPECT_LE(gauges.queue_reserved_bytes, gauges.queue_budget_bytes);
      EXPECT_LE(gauges.text_reserved_bytes, gauges.text_budget_bytes);
      EXPECT_LE(gauges.arena_in_use_bytes, gauges.arena_bytes);
      const auto estimate = engine_->Estimate(TextInput("abc"), {});
      EXPECT_TRUE(estimate.ok() ||
                  absl::IsResourceExhausted(estimate.status()));
      std::this_thread::yield();
    }
  }

  void RunThreads(std::function<void()> meanwhile) {
    std::atomic<bool> stop{false};
    std::thread watcher([&] { Watch(&stop); });
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([this, t] { SubmitMany(t); });
    }
    meanwhile();
    for (std::thread& thread : threads) thread.join();
    stop = true;
    watcher.join();
  }

  void ExpectAllEndedOnce() {
    EXPECT_EQ(ended_, kThreads * kInputsPerThread);
    EXPECT_EQ(observer_.all_inputs(), kThreads * kInputsPerThread);
    for (const BatchStats& batch : observer_.batches()) {
      EXPECT_LE(batch.planned_bytes, batch.charged_bytes);
      EXPECT_LE(batch.charged_bytes, arena_bytes_);
    }
  }

  std::atomic<int> ended_{0};
  std::atomic<int> succeeded_{0};
};

TEST_F(EngineStressTest, EverythingEndsOnce) {
  for (const int slots : {1, 2}) {
    ended_ = 0;
    observer_.Reset();
    Prepare(slots);
    RunThreads([&] {
      for (int i = 0; i < 20; ++i) {
        backend_->failures_left += 1;
        backend_->collect_failures_left += 1;
        std::this_thread::yield();
      }
    });
    engine_->Drain(absl::InfiniteFuture());
    ExpectAllEndedOnce();
    EXPECT_GT(succeeded_, 0);
    // A tokenizer's thread gives a text's bytes back once its input is queued,
    // which may have ended by then.
    const absl::Time patience = absl::Now() + absl::Seconds(30);
    while (engine_->Gauges().text_reserved_bytes > 0 &&
           absl::Now() < patience) {
      std::this_thread::yield();
    }
    const EngineGauges gauges = engine_->Gauges();
    EXPECT_EQ(gauges.queue_reserved_bytes, 0);
    EXPECT_EQ(gauges.text_reserved_bytes, 0);
    EXPECT_EQ(gauges.queued_inputs, 0);
    EXPECT_EQ(gauges.arena_in_use_bytes, 0);
  }
}

TEST_F(EngineStressTest, DrainUnderLoadEndsEverythingOnce) {
  for (int round = 0; round < 5; ++round) {
    ended_ = 0;
    observer_.Reset();
    Prepare(/*slots=*/1);
    RunThreads([&] {
      while (ended_ < 200 * (round + 1)) std::this_thread::yield();
      std::thread other(
          [&] { engine_->Drain(absl::Now() + absl::Milliseconds(1)); });
      engine_->Drain(absl::Now());
      other.join();
    });
    ExpectAllEndedOnce();
    EXPECT_GT(observer_.refusals(RefusalReason::kDraining), 0);
    engine_.reset();
  }
}

}  // namespace
}  // namespace svdserve
