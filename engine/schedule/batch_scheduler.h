// The queue between admission and the device: tasks in, closed batches out.
//
// Thread-safe; the one owner of everything that waits. Submit() reserves, takes
// ownership if and only if it returns OK, and never blocks. Pull() closes one
// batch: it fits the arena (fixed + charges) and the limits, and nothing is
// added to it afterwards. Several devices may pull at once. Tasks that expired
// or whose callers went away are finished by Pull(), one by one, and never
// reach a batch.
//
// A batch may wait for company for up to `gather_window` after its first task
// came, but only while more tasks are known to be on their way (Expect()): an
// idle device never waits for nothing.
//
// Lock order: mu_ before the clock's own; no callback runs under mu_.
//
//   auto statuses = scheduler.SubmitAll(tasks, n);    // tokenizer pool
//   while (auto batch = scheduler.Pull(wake_at)) ...  // device worker
#ifndef SVDSERVE_ENGINE_SCHEDULE_BATCH_SCHEDULER_H_
#define SVDSERVE_ENGINE_SCHEDULE_BATCH_SCHEDULER_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "engine/schedule/admission.h"
#include "engine/schedule/clock.h"
#include "engine/schedule/fair_queue.h"
#include "engine/schedule/task.h"

namespace svdserve {

struct BatchLimits {
  // A single input may be longer: every batch takes at least one.
  int max_tokens = 16384;
  int max_inputs = 512;
  absl::Duration gather_window = absl::Milliseconds(1);
};

// Closed: at least one task, and fixed + charges fit the arena.
struct Batch {
  std::vector<std::shared_ptr<InputTask>> tasks;
  int tokens = 0;
  uint64_t charged_bytes = 0;  // fixed part included
};

class BatchScheduler {
 public:
  // `admission` and `clock` must outlive the scheduler.
  BatchScheduler(const BatchLimits& limits, Admission* admission, Clock* clock);

  // Queues a task whose ids are known and sets its charge. On an error (as
  // Admission::Reserve(), or UNAVAILABLE after Stop()) the task stays with the
  // caller.
  absl::Status Submit(std::shared_ptr<InputTask>* task) {
    return SubmitAll({task, 1}, /*expected=*/0).front();
  }
  // Several at once: the status of each. Of all that Expect() told, `expected`
  // are no longer on their way.
  std::vector<absl::Status> SubmitAll(
      absl::Span<std::shared_ptr<InputTask>> tasks, int expected)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Tells that so many more tasks are on their way.
  void Expect(int inputs) {
    expected_.fetch_add(inputs, std::memory_order_relaxed);
  }

  // Waits for a batch; null at `wake_at` or after Stop().
  std::optional<Batch> Pull(absl::Time wake_at) ABSL_LOCKS_EXCLUDED(mu_);
  // Null if no batch is due now.
  std::optional<Batch> TryPull() ABSL_LOCKS_EXCLUDED(mu_);

  // Refuses new tasks and ends waiting pulls. What is queued stays until the
  // scheduler dies.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);
  bool stopped() const ABSL_LOCKS_EXCLUDED(mu_);

  int size() const ABSL_LOCKS_EXCLUDED(mu_);
  // What one batch may hold beside the fixed part.
  BatchRoom FullRoom() const;

 private:
  struct Closing {
    Batch batch;
    std::vector<QueueEntry> dropped;
  };

  absl::Status Push(std::shared_ptr<InputTask>* task, QueueEntry* entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // When a batch is due: InfiniteFuture() if nothing is queued.
  absl::Time DueAt() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Closing CloseBatch(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::optional<Batch> FinishDropped(Closing closing, absl::Time now)
      ABSL_LOCKS_EXCLUDED(mu_);

  const BatchLimits limits_;
  Admission* const admission_;
  Clock* const clock_;

  std::atomic<int> expected_{0};

  mutable absl::Mutex mu_;
  absl::CondVar changed_;
  FairQueue queue_ ABSL_GUARDED_BY(mu_);
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  // When the oldest waiting task came, and the first moment at which some
  // waiting task expires (or earlier).
  absl::Time waiting_since_ ABSL_GUARDED_BY(mu_);
  absl::Time next_expiry_ ABSL_GUARDED_BY(mu_) = absl::InfiniteFuture();
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_SCHEDULE_BATCH_SCHEDULER_H_
