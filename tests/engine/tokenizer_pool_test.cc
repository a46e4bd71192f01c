#include "engine/tokenizer_pool.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/engine/schedule/task_maker.h"

namespace svdserve {
namespace {

// Texts say what happens to them: one that begins with "wait" takes its thread
// until Open().
class TokenizerPoolTest : public testing::Test {
 protected:
  TokenizerPool::Handler Handler() {
    return [this](absl::Span<TextJob> jobs, TokenizerScratch*) {
      for (TextJob& job : jobs) {
        absl::MutexLock lock(&mu_);
        begun_.push_back(job.input.text);
        if (job.input.text.starts_with("wait")) {
          mu_.Await(absl::Condition(&open_));
        }
        job.task->Finish(InputResult{});
        job.text_bytes.Release();
      }
    };
  }

  std::shared_ptr<Ending> Push(TokenizerPool* pool, std::string text,
                               uint64_t flow, uint64_t bytes = 100) {
    MadeTask made = maker_.Make(1, flow);
    TextJob job;
    job.task = std::move(made.task);
    job.input.text = std::move(text);
    job.text_bytes = *budget_.TryReserve(bytes);
    pool->Push({&job, 1});
    return made.ending;
  }
  void AwaitBegun(size_t count) {
    absl::MutexLock lock(&mu_);
    const auto reached = [&] {
      mu_.AssertReaderHeld();
      return begun_.size() >= count;
    };
    mu_.Await(absl::Condition(&reached));
  }
  void Open() {
    absl::MutexLock lock(&mu_);
    open_ = true;
  }
  std::vector<std::string> begun() {
    absl::MutexLock lock(&mu_);
    return begun_;
  }

  TaskMaker maker_{RealClock()};
  ByteBudget budget_{1 << 20};
  absl::Mutex mu_;
  bool open_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::string> begun_ ABSL_GUARDED_BY(mu_);
};

TEST_F(TokenizerPoolTest, FlowsTakeTurnsOneJobEach) {
  TokenizerPool pool(1, Handler());
  Push(&pool, "wait", 9);
  AwaitBegun(1);
  Push(&pool, "a1", 1);
  Push(&pool, "a2", 1);
  Push(&pool, "a3", 1);
  Push(&pool, "b1", 2);
  const auto last = Push(&pool, "c1", 0);
  Open();
  AwaitBegun(6);
  EXPECT_EQ(begun(),
            (std::vector<std::string>{"wait", "a1", "b1", "c1", "a2", "a3"}));
  last->Await();
}

TEST_F(TokenizerPoolTest, AJobDoesNotWaitBehindALongTextWhileAThreadSleeps) {
  TokenizerPool pool(2, Handler());
  const auto waits = Push(&pool, "wait", 1, 2 * TokenizerPool::kTurnBytes);
  AwaitBegun(1);
  Push(&pool, "short", 2)->Await();
  EXPECT_EQ(waits->times(), 0);
  Open();
  waits->Await();
}

TEST_F(TokenizerPoolTest, ABacklogWakesAllThreads) {
  TokenizerPool pool(3, Handler());
  for (int i = 0; i < 3; ++i) {
    Push(&pool, "wait", 1, TokenizerPool::kTurnBytes + 1);
  }
  AwaitBegun(3);  // each on a thread of its own
  Open();
}

TEST_F(TokenizerPoolTest, IsIdleOnceNothingIsLeftToDo) {
  TokenizerPool pool(1, Handler());
  EXPECT_TRUE(pool.idle());
  const auto waits = Push(&pool, "wait", 1);
  EXPECT_FALSE(pool.idle());
  AwaitBegun(1);
  EXPECT_FALSE(pool.idle());
  Open();
  while (!pool.idle()) std::this_thread::yield();
  EXPECT_EQ(waits->times(), 1);
}

TEST_F(TokenizerPoolTest, ManyJobsFromManyThreadsAreDoneOnce) {
  std::vector<std::shared_ptr<Ending>> endings[4];
  {
    TokenizerPool pool(3, Handler());
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 500; ++i) {
          endings[t].push_back(Push(&pool, "x", i % 7));
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const auto& each : endings) {
      for (const auto& ending : each) ending->Await();
    }
  }
  for (const auto& each : endings) {
    for (const auto& ending : each) EXPECT_EQ(ending->times(), 1);
  }
  EXPECT_EQ(budget_.reserved(), 0);
}

}  // namespace
}  // namespace svdserve
