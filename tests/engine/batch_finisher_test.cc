#include "engine/batch_finisher.h"

#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

#include "tests/engine/schedule/task_maker.h"

namespace svdserve {
namespace {

class BatchFinisherTest : public testing::Test {
 protected:
  static ModelShape Shape() {
    ModelShape shape;
    shape.hidden = 64;
    shape.heads = 2;
    shape.head_dim = 32;
    shape.intermediate = 128;
    shape.max_tokens = 64;
    shape.layers.resize(1);
    return shape;
  }

  // A batch of inputs whose rows are {their place, 0.5}.
  RunBatch Make(int inputs) {
    RunBatch run;
    run.compute = absl::Milliseconds(7);
    run.output.width = 2;
    for (int i = 0; i < inputs; ++i) {
      MadeTask made = maker_.Make(3);
      run.batch.tasks.push_back(std::move(made.task));
      endings_.push_back(std::move(made.ending));
      run.output.values.push_back(static_cast<float>(i));
      run.output.values.push_back(0.5F);
    }
    return run;
  }
  // A batch whose callback waits until Open().
  RunBatch MakeBlocked() {
    RunBatch run;
    run.output = {.width = 1, .values = {1}};
    TaskCaller caller;
    caller.done = [this](const absl::StatusOr<InputResult>&) {
      absl::MutexLock lock(&mu_);
      ++blocked_;
      mu_.Await(absl::Condition(&open_));
      ++passed_;
    };
    run.batch.tasks.push_back(
        std::make_shared<InputTask>(std::move(caller), RealClock(), &none_));
    return run;
  }
  void AwaitBlocked(int count) {
    absl::MutexLock lock(&mu_);
    const auto reached = [&] {
      mu_.AssertReaderHeld();
      return blocked_ >= count;
    };
    mu_.Await(absl::Condition(&reached));
  }
  void Open() {
    absl::MutexLock lock(&mu_);
    open_ = true;
  }
  int passed() {
    absl::MutexLock lock(&mu_);
    return passed_;
  }

  const Planner planner_{Shape(), {}, 64 << 20};
  Observer none_;
  TaskMaker maker_{RealClock()};
  std::vector<std::shared_ptr<Ending>> endings_;
  absl::Mutex mu_;
  bool open_ ABSL_GUARDED_BY(mu_) = false;
  int blocked_ ABSL_GUARDED_BY(mu_) = 0;
  int passed_ ABSL_GUARDED_BY(mu_) = 0;
};

TEST_F(BatchFinisherTest, EachTaskGetsItsRow) {
  BatchFinisher finisher(2, &planner_);
  finisher.HandOver(Make(3));
  finisher.FinishHere(Make(2));
  finisher.AwaitIdle();
  const std::vector<int> places = {0, 1, 2, 0, 1};
  for (size_t i = 0; i < endings_.size(); ++i) {
    ASSERT_EQ(endings_[i]->times(), 1);
    const auto result = endings_[i]->result();
    ASSERT_TRUE(result.ok());
    EXPECT_EQ(result->values, (std::vector<float>{1.0F * places[i], 0.5F}));
    EXPECT_EQ(result->tokens, 3);
    EXPECT_EQ(result->times.compute, absl::Milliseconds(7));
  }
}

TEST_F(BatchFinisherTest, RowsAreCutAndNonFiniteOnesAreErrors) {
  RunBatch run = Make(4);
  run.output.values = {1,
                       2,
                       std::numeric_limits<float>::quiet_NaN(),
                       3,
                       4,
                       -std::numeric_limits<float>::infinity(),
                       5,
                       -std::numeric_limits<float>::max()};
  run.batch.tasks[0]->work.output.dimensions = 1;
  run.batch.tasks[2]->work.output.dimensions = 1;  // what is bad is cut off
  BatchFinisher finisher(1, &planner_);
  finisher.FinishHere(std::move(run));
  EXPECT_EQ(endings_[0]->result()->values, std::vector<float>{1});
  EXPECT_EQ(endings_[1]->code(), absl::StatusCode::kInternal);
  EXPECT_EQ(endings_[2]->result()->values, std::vector<float>{4});
  EXPECT_TRUE(endings_[3]->result().ok());
}

TEST_F(BatchFinisherTest, WhoHandsOverIsNotHeldUpUntilTheThreadsAreBehind) {
  BatchFinisher finisher(1, &planner_);
  finisher.HandOver(MakeBlocked());
  AwaitBlocked(1);
  finisher.HandOver(MakeBlocked());  // waits
  finisher.HandOver(Make(2));        // is finished here
  EXPECT_EQ(endings_[0]->times(), 1);
  EXPECT_EQ(endings_[1]->times(), 1);
  EXPECT_EQ(passed(), 0);
  Open();
  finisher.AwaitIdle();
  EXPECT_EQ(passed(), 2);
}

TEST_F(BatchFinisherTest, ItsEndWaitsForWhatWasHandedOver) {
  std::thread opener([&] {
    AwaitBlocked(2);
    Open();
  });
  {
    BatchFinisher finisher(2, &planner_);
    for (int i = 0; i < 4; ++i) finisher.HandOver(MakeBlocked());
  }
  EXPECT_EQ(passed(), 4);
  opener.join();
}

}  // namespace
}  // namespace svdserve
