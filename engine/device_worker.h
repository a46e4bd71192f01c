// The one thread that drives a backend: pull a batch, plan it, run it, have its
// tasks finished.
//
// A failing batch fails only its own tasks. If the failure says that an input
// caused it (INVALID_ARGUMENT, OUT_OF_RANGE), the batch's inputs are run one by
// one, so that the others succeed. After three failures of the device in a row
// the worker calls itself unhealthy and, when idle, tries a small batch of its
// own every second; the first success makes it healthy again. When the backend
// has lost its device, the worker finishes what it holds with UNAVAILABLE, says
// so and ends: the other devices' workers go on.
//
// The accessors are thread-safe. The destructor waits for the thread, which
// ends once the scheduler was stopped.
//
//   DeviceWorker worker(&backend, {.planner = &planner, ...});
//   absl::Status s = worker.WarmUp();
//   worker.Start();
#ifndef SVDSERVE_ENGINE_DEVICE_WORKER_H_
#define SVDSERVE_ENGINE_DEVICE_WORKER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/batch_finisher.h"
#include "engine/device/backend.h"
#include "engine/observer.h"
#include "engine/plan/plan.h"
#include "engine/plan/plan_cache.h"
#include "engine/schedule/admission.h"
#include "engine/schedule/batch_scheduler.h"
#include "engine/schedule/clock.h"

namespace svdserve {

class DeviceWorker {
 public:
  // What all workers of an engine share; everything must outlive them.
  struct Shared {
    const Planner* planner;
    BatchScheduler* scheduler;
    Admission* admission;
    Clock* clock;
    Observer* observer;
    int devices;                    // that work off the scheduler's queue
    std::function<void()> on_lost;  // called once, last, on the worker's thread
  };

  // `backend` must outlive the worker.
  DeviceWorker(Backend* backend, const Shared& shared);
  DeviceWorker(const DeviceWorker&) = delete;
  DeviceWorker& operator=(const DeviceWorker&) = delete;
  ~DeviceWorker();

  // Runs batches of several shapes, the largest `room` that is allowed among
  // them, on the calling thread. Before Start().
  absl::Status WarmUp(const BatchRoom& room);
  void Start();

  bool healthy() const { return healthy_.load(std::memory_order_relaxed); }
  // False once the device was lost.
  bool in_service() const {
    return in_service_.load(std::memory_order_relaxed);
  }
  // Planned peak of what runs now, and the highest so far.
  uint64_t arena_in_use() const {
    return arena_in_use_.load(std::memory_order_relaxed);
  }
  uint64_t arena_peak() const {
    return arena_peak_.load(std::memory_order_relaxed);
  }
  // What the device found touched, after the batch with the highest peak.
  uint64_t arena_touched() const {
    return arena_touched_.load(std::memory_order_relaxed);
  }

 private:
  // One slot of the backend, with buffers that are used again and again.
  struct Slot {
    int index = 0;
    Batch batch;
    PackedBatch packed;
    BatchOutput output;
    std::shared_ptr<const Plan> plan;
    absl::Time started;
  };

  void Loop();
  void WorkUntilStopped();
  void LeaveService();
  absl::Time NextProbe() const;
  void Probe();
  void StartBatch(Batch batch);
  void FinishOldest();

  absl::Status Launch(Slot* slot);
  absl::Status RunAlone(Slot* slot);
  absl::Status RunWarmUp(int sequences, int tokens_each);
  void Complete(Slot* slot);
  void Fail(Slot* slot, const absl::Status& status);
  void RetryOneByOne(Slot* slot, std::vector<std::shared_ptr<InputTask>> tasks);
  absl::Status DeviceFailure(const absl::Status& status) const;
  void NoteHealth(const absl::Status& status);
  void UpdateArenaGauges();
  void MeasureArena(uint64_t planned);

  Backend* const backend_;
  const Planner* const planner_;
  BatchScheduler* const scheduler_;
  Admission* const admission_;
  Clock* const clock_;
  Observer* const observer_;
  const int devices_;
  const std::function<void()> on_lost_;
  BatchFinisher finisher_;

  // The worker thread's own.
  PlanCache plans_;
  std::vector<Slot> slots_;
  std::vector<Slot*> free_;
  std::deque<Slot*> running_;  // oldest first
  int failures_in_a_row_ = 0;
  uint64_t measured_plan_ = 0;  // highest planned peak that was looked at

  std::atomic<bool> healthy_{true};
  std::atomic<bool> in_service_{true};
  std::atomic<uint64_t> arena_in_use_{0};
  std::atomic<uint64_t> arena_peak_{0};
  std::atomic<uint64_t> arena_touched_{0};
  std::thread thread_;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_DEVICE_WORKER_H_
