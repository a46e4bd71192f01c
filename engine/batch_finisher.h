// Tells the callers of batches that have run what came of their inputs.
//
// A callback may take tens of microseconds: a server's fills and sends a
// response. On the device's worker those of one batch would add up to more than
// the device takes for the next. So the worker hands batches over and goes on;
// while as many wait as there are threads it finishes the next one itself: what
// waits is bounded, and a slow receiver slows the device down, not the memory
// up.
//
// Thread-safe. The destructor waits until everything is finished.
//
//   BatchFinisher finisher(2, &planner);
//   finisher.HandOver({.batch = ..., .output = std::move(output), ...});
#ifndef SVDSERVE_ENGINE_BATCH_FINISHER_H_
#define SVDSERVE_ENGINE_BATCH_FINISHER_H_

#include <deque>
#include <optional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/device/backend.h"
#include "engine/plan/plan.h"
#include "engine/schedule/batch_scheduler.h"
#include "engine/schedule/input_result.h"

namespace svdserve {

// Row i of `output` belongs to task i of `batch`.
struct RunBatch {
  Batch batch;
  BatchOutput output;
  absl::Duration compute;
};

class BatchFinisher {
 public:
  // `threads` >= 1; `planner` must outlive the finisher.
  BatchFinisher(int threads, const Planner* planner);
  BatchFinisher(const BatchFinisher&) = delete;
  BatchFinisher& operator=(const BatchFinisher&) = delete;
  ~BatchFinisher();

  // Finishes the batch's tasks on one of the threads, or on the calling one if
  // the threads are behind.
  void HandOver(RunBatch run) ABSL_LOCKS_EXCLUDED(mu_);
  // Finishes the batch's tasks on the calling thread.
  void FinishHere(RunBatch run) const;
  // Waits until everything that was handed over is finished.
  void AwaitIdle() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Loop() ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<RunBatch> Next(bool finished_one) ABSL_LOCKS_EXCLUDED(mu_);
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return stopping_ || !waiting_.empty();
  }
  bool Idle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return waiting_.empty() && busy_ == 0;
  }
  absl::StatusOr<InputResult> ResultOf(const RunBatch& run, int row) const;

  const Planner* const planner_;
  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<RunBatch> waiting_ ABSL_GUARDED_BY(mu_);
  int busy_ ABSL_GUARDED_BY(mu_) = 0;  // threads
  std::vector<std::thread> threads_;   // last: they use all of the above
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_BATCH_FINISHER_H_
