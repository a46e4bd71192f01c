// One accepted input on its way through the engine, and the set of all of them.
//
// A task finishes exactly once: Finish() claims the callback atomically, later
// calls do nothing, and a task that dies unfinished finishes itself with
// INTERNAL, in release builds too. Whoever holds the task fills `work`, one
// holder at a time; Finish() may come from any thread.
//
//   auto task = std::make_shared<InputTask>(caller, clock, observer);
//   if (!in_flight.Enter(task)) return task->Finish(MakeDrainingRefusal());
#ifndef SVDSERVE_ENGINE_SCHEDULE_TASK_H_
#define SVDSERVE_ENGINE_SCHEDULE_TASK_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/device/backend.h"
#include "engine/observer.h"
#include "engine/schedule/cancellation.h"
#include "engine/schedule/clock.h"
#include "engine/schedule/input_result.h"

namespace svdserve {

class InFlight;

// Who waits for the result, and until when.
struct TaskCaller {
  absl::Time deadline = absl::InfiniteFuture();
  CancellationToken cancelled;
  uint64_t flow = 0;       // 0: a flow of its own
  int request_inputs = 0;  // how many come with it, itself included; 0: unknown
  InputCallback done;
};

// What the device needs of an input, and what is known of it on the way.
struct TaskWork {
  std::vector<int32_t> ids;       // [tokens]
  std::vector<uint8_t> type_ids;  // [tokens], or empty: all zero
  OutputOptions output;
  uint64_t activation_bytes = 0;  // charged
  absl::Time queued_at;
  StageTimes times;

  int tokens() const { return static_cast<int>(ids.size()); }
};

class InputTask : public std::enable_shared_from_this<InputTask> {
 public:
  // `clock` and `observer` must outlive the task.
  InputTask(TaskCaller caller, const Clock* clock, Observer* observer);
  InputTask(const InputTask&) = delete;
  InputTask& operator=(const InputTask&) = delete;
  ~InputTask();

  // Tells the observer, then the caller. False if the task was finished before.
  bool Finish(absl::StatusOr<InputResult> result);

  bool finished() const { return finished_.load(std::memory_order_acquire); }
  // Why this task needs no more work: finished, cancelled or expired. OK if it
  // does need it.
  absl::Status Lapsed(absl::Time now) const;

  uint64_t flow() const { return flow_; }
  int request_inputs() const { return request_inputs_; }
  absl::Time deadline() const { return deadline_; }
  absl::Time accepted_at() const { return accepted_at_; }

  TaskWork work;

 private:
  friend class InFlight;

  const Clock* const clock_;
  Observer* const observer_;
  const absl::Time accepted_at_;
  const absl::Time deadline_;
  const CancellationToken cancelled_;
  const uint64_t flow_;
  const int request_inputs_;
  InFlight* in_flight_ = nullptr;  // set by Enter(), before the task is shared
  std::atomic<bool> finished_{false};
  InputCallback done_;  // belongs to whoever set finished_
};

// The accepted tasks that are not finished yet, wherever they are. Thread-safe;
// must outlive its tasks. Holds none of them alive. Every input comes and goes
// through here, on any thread, so it is in parts that have a lock each.
class InFlight {
 public:
  explicit InFlight(Clock* clock) : clock_(clock) {}

  // False once closed.
  bool Enter(const std::shared_ptr<InputTask>& task);
  void Close();
  // Waits until no task is left of those that have entered; false if the
  // deadline came first.
  bool AwaitEmpty(absl::Time deadline);
  // Finishes every task that is not, in no order.
  void FinishAll(const absl::Status& status);

 private:
  friend class InputTask;
  struct alignas(64) Part {
    absl::Mutex mu;
    absl::CondVar emptied;
    bool closed ABSL_GUARDED_BY(mu) = false;
    absl::flat_hash_set<InputTask*> tasks ABSL_GUARDED_BY(mu);
  };

  void Leave(InputTask* task);
  Part& PartOf(const InputTask* task) {
    return parts_[reinterpret_cast<uintptr_t>(task) / 64 % parts_.size()];
  }

  Clock* const clock_;
  std::array<Part, 16> parts_;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_SCHEDULE_TASK_H_
