#include "engine/schedule/task.h"

#include <optional>
#include <utility>

#include "engine/schedule/refusal.h"

namespace svdserve {
namespace {

InputStats StatsOf(const absl::StatusOr<InputResult>& result,
                   absl::Duration total) {
  InputStats stats;
  stats.code = result.status().code();
  stats.times.total = total;
  if (!result.ok()) return stats;
  stats.tokens = result->tokens;
  stats.activation_bytes = result->activation_bytes;
  stats.dense_activation_bytes = result->dense_activation_bytes;
  stats.times = result->times;
  return stats;
}

}  // namespace

InputTask::InputTask(TaskCaller caller, const Clock* clock, Observer* observer)
    : clock_(clock),
      observer_(observer),
      accepted_at_(clock->Now()),
      deadline_(caller.deadline),
      cancelled_(std::move(caller.cancelled)),
      flow_(caller.flow),
      request_inputs_(caller.request_inputs),
      done_(std::move(caller.done)) {}

InputTask::~InputTask() {
  if (!finished()) {
    Finish(absl::InternalError("the engine dropped this input unfinished"));
  }
}

bool InputTask::Finish(absl::StatusOr<InputResult> result) {
  if (finished_.exchange(true, std::memory_order_acq_rel)) return false;
  const absl::Duration total = clock_->Now() - accepted_at_;
  if (result.ok()) {
    result->times.total = total;
  } else if (const auto refusal = GetRefusal(result.status())) {
    observer_->OnRefusal(refusal->reason);
  }
  observer_->OnInput(StatsOf(result, total));
  std::move(done_)(std::move(result));
  done_ = nullptr;  // what the caller captured dies here
  if (in_flight_ != nullptr) in_flight_->Leave(this);
  return true;
}

absl::Status InputTask::Lapsed(absl::Time now) const {
  if (finished()) return absl::AbortedError("finished elsewhere");
  if (cancelled_.cancelled()) {
    return MakeRefusal(absl::StatusCode::kCancelled,
                       "the caller went away before the input ran",
                       {.reason = RefusalReason::kCancelled});
  }
  if (now >= deadline_) {
    return MakeRefusal(absl::StatusCode::kDeadlineExceeded,
                       "the deadline passed before the input ran",
                       {.reason = RefusalReason::kExpired});
  }
  return absl::OkStatus();
}

bool InFlight::Enter(const std::shared_ptr<InputTask>& task) {
  Part& part = PartOf(task.get());
  absl::MutexLock lock(&part.mu);
  if (part.closed) return false;
  task->in_flight_ = this;
  part.tasks.insert(task.get());
  return true;
}

void InFlight::Leave(InputTask* task) {
  Part& part = PartOf(task);
  absl::MutexLock lock(&part.mu);
  part.tasks.erase(task);
  if (part.tasks.empty()) part.emptied.SignalAll();
}

void InFlight::Close() {
  for (Part& part : parts_) {
    absl::MutexLock lock(&part.mu);
    part.closed = true;
  }
}

bool InFlight::AwaitEmpty(absl::Time deadline) {
  for (Part& part : parts_) {
    absl::MutexLock lock(&part.mu);
    while (!part.tasks.empty()) {
      if (clock_->Now() >= deadline) return false;
      clock_->WaitUntil(&part.emptied, &part.mu, deadline);
    }
  }
  return true;
}

void InFlight::FinishAll(const absl::Status& status) {
  std::vector<std::shared_ptr<InputTask>> left;
  for (Part& part : parts_) {
    absl::MutexLock lock(&part.mu);
    for (InputTask* task : part.tasks) {
      // Null while the task's destructor waits for the lock: it finishes
      // itself.
      if (auto held = task->weak_from_this().lock()) {
        left.push_back(std::move(held));
      }
    }
  }
  for (const auto& task : left) task->Finish(status);
}

}  // namespace svdserve
