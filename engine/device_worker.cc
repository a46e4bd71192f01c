#include "engine/device_worker.h"

#include <pthread.h>

#include <algorithm>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/schedule/packed_batch.h"

namespace svdserve {
namespace {

constexpr int kPlansKept = 256;
constexpr int kFailuresUntilUnhealthy = 3;
constexpr absl::Duration kProbeInterval = absl::Seconds(1);
constexpr int kFewInputs = 8;
constexpr int kMostFinishers = 4;

// So many threads keep up with a device that eight cores keep busy.
int Finishers(int devices) {
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  return std::clamp(cores / (4 * devices), 1, kMostFinishers);
}

bool CausedByInput(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsOutOfRange(status);
}

void FillWarmUp(int sequences, int tokens_each, PackedBatch* packed) {
  packed->ids.assign(sequences * tokens_each, 0);
  packed->type_ids.assign(sequences * tokens_each, 0);
  packed->options.assign(sequences, {});
  packed->cu_seqlens.resize(sequences + 1);
  for (int i = 0; i <= sequences; ++i) packed->cu_seqlens[i] = i * tokens_each;
}

}  // namespace

DeviceWorker::DeviceWorker(Backend* backend, const Shared& shared)
    : backend_(backend),
      planner_(shared.planner),
      scheduler_(shared.scheduler),
      admission_(shared.admission),
      clock_(shared.clock),
      observer_(shared.observer),
      devices_(shared.devices),
      on_lost_(shared.on_lost),
      finisher_(Finishers(shared.devices), shared.planner),
      plans_(shared.planner, kPlansKept),
      slots_(backend->slots()) {
  for (Slot& slot : slots_) {
    slot.index = static_cast<int>(&slot - slots_.data());
    free_.push_back(&slot);
  }
}

DeviceWorker::~DeviceWorker() {
  if (thread_.joinable()) thread_.join();
}

absl::Status DeviceWorker::WarmUp(const BatchRoom& room) {
  const int longest = admission_->longest_input();
  const uint64_t charge = admission_->cost().ChargeFor(longest);
  const int most = static_cast<int>(std::min<uint64_t>(
      {room.bytes / charge, static_cast<uint64_t>(room.tokens / longest),
       static_cast<uint64_t>(room.inputs)}));
  absl::Status status = RunWarmUp(1, 1);
  if (status.ok()) status = RunWarmUp(1, std::min(longest, 64));
  if (status.ok()) status = RunWarmUp(1, longest);
  if (status.ok()) status = RunWarmUp(std::max(most, 1), longest);
  return status;
}

void DeviceWorker::Start() {
  thread_ = std::thread([this] { Loop(); });
}

void DeviceWorker::Loop() {
  pthread_setname_np(pthread_self(), "svd-device");
  WorkUntilStopped();
  if (backend_->lost()) LeaveService();
}

void DeviceWorker::WorkUntilStopped() {
  while (!backend_->lost()) {
    if (!free_.empty()) {
      std::optional<Batch> batch = running_.empty()
                                       ? scheduler_->Pull(NextProbe())
                                       : scheduler_->TryPull();
      if (batch.has_value()) {
        StartBatch(*std::move(batch));
        continue;
      }
      if (running_.empty()) {
        if (scheduler_->stopped()) return;
        Probe();
        continue;
      }
    }
    FinishOldest();
  }
}

void DeviceWorker::LeaveService() {
  healthy_.store(false, std::memory_order_relaxed);
  in_service_.store(false, std::memory_order_relaxed);
  while (!running_.empty()) FinishOldest();
  finisher_.AwaitIdle();
  on_lost_();
}

absl::Time DeviceWorker::NextProbe() const {
  return healthy() ? absl::InfiniteFuture() : clock_->Now() + kProbeInterval;
}

void DeviceWorker::Probe() {
  if (!healthy()) NoteHealth(RunWarmUp(1, 1));
}

void DeviceWorker::StartBatch(Batch batch) {
  Slot* slot = free_.back();
  slot->batch = std::move(batch);
  PackInto(slot->batch.tasks, &slot->packed);
  if (absl::Status status = Launch(slot); !status.ok()) {
    Fail(slot, status);
    return;
  }
  free_.pop_back();
  running_.push_back(slot);
  UpdateArenaGauges();
}

void DeviceWorker::FinishOldest() {
  Slot* slot = running_.front();
  const absl::Status status = backend_->Collect(slot->index, &slot->output);
  running_.pop_front();
  free_.push_back(slot);
  UpdateArenaGauges();
  if (running_.empty()) MeasureArena(slot->plan->peak_bytes);
  if (!status.ok()) {
    Fail(slot, status);
    return;
  }
  Complete(slot);
}

absl::Status DeviceWorker::Launch(Slot* slot) {
  absl::StatusOr<std::shared_ptr<const Plan>> plan =
      plans_.Get(slot->packed.Shape());
  if (!plan.ok()) return plan.status();
  slot->plan = *std::move(plan);
  slot->started = clock_->Now();
  return backend_->Launch(slot->index, *slot->plan, slot->packed);
}

absl::Status DeviceWorker::RunAlone(Slot* slot) {
  if (absl::Status status = Launch(slot); !status.ok()) return status;
  absl::Status status = backend_->Collect(slot->index, &slot->output);
  MeasureArena(slot->plan->peak_bytes);
  return status;
}

absl::Status DeviceWorker::RunWarmUp(int sequences, int tokens_each) {
  Slot* slot = free_.back();
  FillWarmUp(sequences, tokens_each, &slot->packed);
  return RunAlone(slot);
}

// Everything that is counted is counted before the first callback runs. A few
// inputs that nothing waits behind are spared the way to another thread.
void DeviceWorker::Complete(Slot* slot) {
  NoteHealth(absl::OkStatus());
  RunBatch run = {.batch = std::exchange(slot->batch, {}),
                  .output = std::exchange(slot->output, {}),
                  .compute = clock_->Now() - slot->started};
  const Batch& batch = run.batch;
  // All devices work off one queue.
  admission_->RecordDrained(batch.charged_bytes, run.compute / devices_);
  observer_->OnBatch({.sequences = static_cast<int>(batch.tasks.size()),
                      .tokens = batch.tokens,
                      .charged_bytes = batch.charged_bytes,
                      .planned_bytes = slot->plan->peak_bytes,
                      .dense_bytes = planner_->DenseBytes(batch.tokens),
                      .compute = run.compute});
  if (running_.empty() && batch.tasks.size() <= kFewInputs) {
    finisher_.FinishHere(std::move(run));
  } else {
    finisher_.HandOver(std::move(run));
  }
}

void DeviceWorker::Fail(Slot* slot, const absl::Status& status) {
  Batch batch = std::move(slot->batch);
  slot->batch = {};
  if (!CausedByInput(status)) {
    NoteHealth(status);
    const absl::Status failure = DeviceFailure(status);
    for (const auto& task : batch.tasks) task->Finish(failure);
  } else if (batch.tasks.size() == 1) {
    batch.tasks.front()->Finish(status);
  } else {
    RetryOneByOne(slot, std::move(batch.tasks));
  }
}

void DeviceWorker::RetryOneByOne(
    Slot* slot, std::vector<std::shared_ptr<InputTask>> tasks) {
  for (std::shared_ptr<InputTask>& task : tasks) {
    const absl::Status lapsed = task->Lapsed(clock_->Now());
    if (!lapsed.ok()) {
      task->Finish(lapsed);
      continue;
    }
    slot->batch.tokens = task->work.tokens();
    slot->batch.charged_bytes =
        admission_->cost().fixed_bytes() + task->work.activation_bytes;
    slot->batch.tasks.clear();
    slot->batch.tasks.push_back(std::move(task));
    PackInto(slot->batch.tasks, &slot->packed);
    const absl::Status status = RunAlone(slot);
    if (status.ok()) {
      Complete(slot);
    } else {
      Fail(slot, status);
    }
  }
}

// What callers are told of a failure that is none of their doing. After the
// loss of a device another one, or another server, may well serve them.
absl::Status DeviceWorker::DeviceFailure(const absl::Status& status) const {
  const std::string message =
      absl::StrCat("the device failed: ", status.message());
  return backend_->lost() ? absl::UnavailableError(message)
                          : absl::InternalError(message);
}

void DeviceWorker::NoteHealth(const absl::Status& status) {
  failures_in_a_row_ = status.ok() ? 0 : failures_in_a_row_ + 1;
  healthy_.store(
      failures_in_a_row_ < kFailuresUntilUnhealthy && !backend_->lost(),
      std::memory_order_relaxed);
}

// Slots share the device's arena: batches run on it one after the other, so the
// largest plan counts, not the sum.
void DeviceWorker::UpdateArenaGauges() {
  uint64_t in_use = 0;
  for (const Slot* slot : running_) {
    in_use = std::max(in_use, slot->plan->peak_bytes);
  }
  arena_in_use_.store(in_use, std::memory_order_relaxed);
  arena_peak_.store(std::max(arena_peak(), in_use), std::memory_order_relaxed);
}

// Looking costs time, so only after a batch that was planned to go higher.
void DeviceWorker::MeasureArena(uint64_t planned) {
  if (planned <= measured_plan_) return;
  measured_plan_ = planned;
  arena_peak_.store(std::max(arena_peak(), planned), std::memory_order_relaxed);
  arena_touched_.store(backend_->TouchedBytes(), std::memory_order_relaxed);
}

}  // namespace svdserve
