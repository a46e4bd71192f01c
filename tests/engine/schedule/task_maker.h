// Makes tasks for tests and watches how they end.
#ifndef SVDSERVE_TESTS_ENGINE_SCHEDULE_TASK_MAKER_H_
#define SVDSERVE_TESTS_ENGINE_SCHEDULE_TASK_MAKER_H_

#include <atomic>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/observer.h"
#include "engine/schedule/clock.h"
#include "engine/schedule/task.h"

namespace svdserve {

// How one task ended. Thread-safe.
class Ending {
 public:
  void Set(absl::StatusOr<InputResult> result) {
    absl::MutexLock lock(&mu_);
    ++times_;
    result_ = std::move(result);
  }
  int times() const {
    absl::MutexLock lock(&mu_);
    return times_;
  }
  absl::StatusOr<InputResult> result() const {
    absl::MutexLock lock(&mu_);
    return result_;
  }
  absl::Status status() const { return result().status(); }
  absl::StatusCode code() const { return status().code(); }
  // Waits until the task has ended.
  void Await() const {
    absl::MutexLock lock(&mu_);
    const auto ended = [this] {
      mu_.AssertReaderHeld();
      return times_ > 0;
    };
    mu_.Await(absl::Condition(&ended));
  }

 private:
  mutable absl::Mutex mu_;
  int times_ ABSL_GUARDED_BY(mu_) = 0;
  absl::StatusOr<InputResult> result_ ABSL_GUARDED_BY(mu_) =
      absl::UnknownError("not ended");
};

struct MadeTask {
  std::shared_ptr<InputTask> task;
  std::shared_ptr<Ending> ending;
};

class TaskMaker {
 public:
  explicit TaskMaker(Clock* clock, Observer* observer = nullptr)
      : clock_(clock), observer_(observer != nullptr ? observer : &none_) {}

  MadeTask Make(int tokens, uint64_t flow = 0,
                absl::Time deadline = absl::InfiniteFuture(),
                CancellationToken cancelled = {}, int request_inputs = 0) {
    auto ending = std::make_shared<Ending>();
    auto task = std::make_shared<InputTask>(
        TaskCaller{.deadline = deadline,
                   .cancelled = std::move(cancelled),
                   .flow = flow,
                   .request_inputs = request_inputs,
                   .done =
                       [ending](absl::StatusOr<InputResult> result) {
                         ending->Set(std::move(result));
                       }},
        clock_, observer_);
    task->work.ids.assign(tokens, 1);
    return {std::move(task), std::move(ending)};
  }

 private:
  Clock* const clock_;
  Observer none_;
  Observer* const observer_;
};

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_ENGINE_SCHEDULE_TASK_MAKER_H_
