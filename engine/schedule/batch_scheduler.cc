#include "engine/schedule/batch_scheduler.h"

#include <algorithm>
#include <utility>

#include "engine/schedule/refusal.h"

namespace svdserve {

BatchScheduler::BatchScheduler(const BatchLimits& limits, Admission* admission,
                               Clock* clock)
    : limits_(limits), admission_(admission), clock_(clock) {}

std::vector<absl::Status> BatchScheduler::SubmitAll(
    absl::Span<std::shared_ptr<InputTask>> tasks, int expected) {
  const absl::Time now = clock_->Now();
  std::vector<absl::Status> statuses(tasks.size());
  std::vector<QueueEntry> entries(tasks.size());
  for (size_t i = 0; i < tasks.size(); ++i) {
    TaskWork& work = tasks[i]->work;
    absl::StatusOr<Reservation> reserved = admission_->Reserve(work.tokens());
    if (!reserved.ok()) {
      statuses[i] = reserved.status();
      continue;
    }
    work.activation_bytes = reserved->bytes();
    work.queued_at = now;
    entries[i].queue_bytes = *std::move(reserved);
    entries[i].tokens = work.tokens();
  }

  absl::MutexLock lock(&mu_);
  expected_.fetch_sub(expected, std::memory_order_relaxed);
  const bool was_empty = queue_.empty();
  for (size_t i = 0; i < tasks.size(); ++i) {
    if (statuses[i].ok()) statuses[i] = Push(&tasks[i], &entries[i]);
  }
  if (queue_.empty()) return statuses;
  // Whoever waits for a batch wakes up to wait for its gathering, and to take
  // it, but not for each task that joins it.
  if (was_empty) waiting_since_ = now;
  if (was_empty || DueAt() <= now) changed_.Signal();
  return statuses;
}

absl::Status BatchScheduler::Push(std::shared_ptr<InputTask>* task,
                                  QueueEntry* entry) {
  if (stopped_) {
    return MakeRefusal(absl::StatusCode::kUnavailable, "the engine has stopped",
                       {.reason = RefusalReason::kDraining});
  }
  next_expiry_ = std::min(next_expiry_, (*task)->deadline());
  entry->task = std::move(*task);
  queue_.Push(std::move(*entry));
  return absl::OkStatus();
}

std::optional<Batch> BatchScheduler::Pull(absl::Time wake_at) {
  while (true) {
    Closing closing;
    absl::Time now;
    {
      absl::MutexLock lock(&mu_);
      while (true) {
        now = clock_->Now();
        if (stopped_) return std::nullopt;
        const absl::Time due = DueAt();
        if (due <= now) break;
        if (now >= wake_at) return std::nullopt;
        clock_->WaitUntil(&changed_, &mu_, std::min(due, wake_at));
      }
      closing = CloseBatch(now);
    }
    // All of them may have lapsed: then there is no batch yet.
    auto batch = FinishDropped(std::move(closing), now);
    if (batch.has_value()) return batch;
  }
}

std::optional<Batch> BatchScheduler::TryPull() {
  const absl::Time now = clock_->Now();
  Closing closing;
  {
    absl::MutexLock lock(&mu_);
    if (stopped_ || DueAt() > now) return std::nullopt;
    closing = CloseBatch(now);
  }
  return FinishDropped(std::move(closing), now);
}

void BatchScheduler::Stop() {
  absl::MutexLock lock(&mu_);
  stopped_ = true;
  changed_.SignalAll();
}

bool BatchScheduler::stopped() const {
  absl::MutexLock lock(&mu_);
  return stopped_;
}

int BatchScheduler::size() const {
  absl::MutexLock lock(&mu_);
  return queue_.size();
}

BatchRoom BatchScheduler::FullRoom() const {
  return {.bytes = admission_->limits().arena_bytes -
                   admission_->cost().fixed_bytes(),
          .tokens = std::max(limits_.max_tokens, admission_->longest_input()),
          .inputs = std::max(limits_.max_inputs, 1)};
}

absl::Time BatchScheduler::DueAt() const {
  if (queue_.empty()) return absl::InfiniteFuture();
  const BatchRoom room = FullRoom();
  const bool full = queue_.size() >= room.inputs ||
                    queue_.tokens() >= room.tokens ||
                    queue_.bytes() >= room.bytes;
  if (full || expected_.load(std::memory_order_relaxed) <= 0)
    return waiting_since_;
  return waiting_since_ + limits_.gather_window;
}

BatchScheduler::Closing BatchScheduler::CloseBatch(absl::Time now) {
  Closing closing;
  const auto lapsed = [now](const QueueEntry& entry) {
    return !entry.task->Lapsed(now).ok();
  };
  if (now >= next_expiry_) {
    absl::Time next_expiry = absl::InfiniteFuture();
    const auto expired = [&](const QueueEntry& entry) {
      if (lapsed(entry)) return true;
      next_expiry = std::min(next_expiry, entry.task->deadline());
      return false;
    };
    queue_.Drop(expired, &closing.dropped);
    next_expiry_ = next_expiry;
  }
  std::vector<QueueEntry> taken;
  queue_.TakeBatch(FullRoom(), lapsed, &taken, &closing.dropped);
  if (queue_.empty()) {
    next_expiry_ = absl::InfiniteFuture();
  } else {
    changed_.Signal();  // another device may take what is left
  }

  Batch& batch = closing.batch;
  batch.charged_bytes = admission_->cost().fixed_bytes();
  batch.tasks.reserve(taken.size());
  for (QueueEntry& entry : taken) {
    batch.tokens += entry.tokens;
    batch.charged_bytes += entry.charge();
    entry.task->work.times.queue = now - entry.task->work.queued_at;
    batch.tasks.push_back(std::move(entry.task));
  }
  return closing;  // `taken` dies here: what runs no longer waits
}

std::optional<Batch> BatchScheduler::FinishDropped(Closing closing,
                                                   absl::Time now) {
  for (QueueEntry& entry : closing.dropped) {
    entry.queue_bytes.Release();
    entry.task->Finish(entry.task->Lapsed(now));
  }
  if (closing.batch.tasks.empty()) return std::nullopt;
  return std::move(closing.batch);
}

}  // namespace svdserve
