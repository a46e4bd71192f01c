#include "engine/batch_finisher.h"

#include <pthread.h>

#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

namespace svdserve {
namespace {

// Without a branch for each value, so that it is done many at a time.
bool AllFinite(const float* values, int count) {
  constexpr uint32_t kExponent = 0x7f800000;
  bool bad = false;
  for (int i = 0; i < count; ++i) {
    bad |= (std::bit_cast<uint32_t>(values[i]) & kExponent) == kExponent;
  }
  return !bad;
}

}  // namespace

BatchFinisher::BatchFinisher(int threads, const Planner* planner)
    : planner_(planner) {
  threads_.reserve(threads);
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Loop(); });
}

BatchFinisher::~BatchFinisher() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

void BatchFinisher::HandOver(RunBatch run) {
  {
    absl::MutexLock lock(&mu_);
    if (waiting_.size() < threads_.size()) {
      waiting_.push_back(std::move(run));
      return;
    }
  }
  FinishHere(std::move(run));
}

void BatchFinisher::FinishHere(RunBatch run) const {
  std::vector<std::shared_ptr<InputTask>>& tasks = run.batch.tasks;
  for (size_t i = 0; i < tasks.size(); ++i) {
    tasks[i]->Finish(ResultOf(run, static_cast<int>(i)));
    tasks[i].reset();
  }
}

void BatchFinisher::AwaitIdle() {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(this, &BatchFinisher::Idle));
}

void BatchFinisher::Loop() {
  pthread_setname_np(pthread_self(), "svd-finish");
  std::optional<RunBatch> run = Next(/*finished_one=*/false);
  while (run.has_value()) {
    FinishHere(*std::move(run));
    run = Next(/*finished_one=*/true);
  }
}

// Waits for a batch; null at the end.
std::optional<RunBatch> BatchFinisher::Next(bool finished_one) {
  absl::MutexLock lock(&mu_);
  if (finished_one) --busy_;
  mu_.Await(absl::Condition(this, &BatchFinisher::HasWork));
  if (waiting_.empty()) return std::nullopt;
  RunBatch next = std::move(waiting_.front());
  waiting_.pop_front();
  ++busy_;
  return next;
}

absl::StatusOr<InputResult> BatchFinisher::ResultOf(const RunBatch& run,
                                                    int row) const {
  const TaskWork& work = run.batch.tasks[row]->work;
  const int width = run.output.width;
  const int kept = work.output.dimensions > 0 ? work.output.dimensions : width;
  const float* values = run.output.values.data() + int64_t{1} * row * width;
  if (!AllFinite(values, kept)) {
    return absl::InternalError(
        "the model gave a non-finite output for this input");
  }
  InputResult result;
  result.values.assign(values, values + kept);
  result.tokens = work.tokens();
  result.activation_bytes = work.activation_bytes;
  result.dense_activation_bytes = planner_->DenseBytes(work.tokens());
  result.times = work.times;
  result.times.compute = run.compute;
  return result;
}

}  // namespace svdserve
