// The rest is svdserve as it is: its device takes a given time and computes
// nothing, so that what is left is what the host does.
//
// Plans, arena and batches are those of a Hopper GPU with two slots. The
// environment's IDLE_DEVICE says how long a batch takes, as "BATCH_US
// NS_PER_TOKEN LAUNCH_US": the device is busy for BATCH_US + tokens *
// NS_PER_TOKEN, and Launch() keeps the worker's thread busy for LAUNCH_US, as
// the launches of some fifty kernels do. Default: "0 0 0".
#include <time.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <sstream>
#include <utility>
#include <vector>

#include "engine/device/backend.h"
#include "engine/plan/cuda_shape.h"
#include "tools/inspect/cuda_target.h"

namespace svdserve {
namespace {

constexpr int kBatchTokens = 16384;
constexpr int kBatchInputs = 512;

int64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{1'000'000'000} * now.tv_sec + now.tv_nsec;
}

void SleepUntil(int64_t when) {
  const timespec at = {when / 1'000'000'000, when % 1'000'000'000};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) != 0) {
  }
}

// Nanoseconds.
struct Speed {
  int64_t batch = 0;
  int64_t token = 0;
  int64_t launch = 0;

  static Speed FromEnvironment() {
    const char* text = std::getenv("IDLE_DEVICE");
    std::istringstream in(text == nullptr ? "0 0 0" : text);
    double batch_us = 0;
    double token_ns = 0;
    double launch_us = 0;
    in >> batch_us >> token_ns >> launch_us;
    return {.batch = static_cast<int64_t>(1e3 * batch_us),
            .token = static_cast<int64_t>(token_ns),
            .launch = static_cast<int64_t>(1e3 * launch_us)};
  }
};

class IdleBackend final : public Backend {
 public:
  explicit IdleBackend(const Model& model)
      : shape_(CudaShape(model.shape)), target_(HopperTarget(shape_)) {
    info_ = {.name = "idle",
             .reason = "it computes nothing",
             .dtype = "bfloat16",
             .mode = "strict",
             .arena_bytes = Planner(shape_, target_, 0)
                                .ArenaBytesFor(kBatchTokens, kBatchInputs),
             .full_speed_tokens = kBatchTokens};
  }

  const BackendInfo& info() const override { return info_; }
  PlanTarget target() const override { return target_; }
  int slots() const override { return static_cast<int>(running_.size()); }

  absl::Status Launch(int slot, const Plan&,
                      const PackedBatch& batch) override {
    const int64_t now = Now();
    busy_until_ = std::max(busy_until_, now + speed_.launch) + speed_.batch +
                  speed_.token * batch.tokens();
    running_[slot] = {batch.sequences(), busy_until_};
    while (Now() < now + speed_.launch) {
    }
    return absl::OkStatus();
  }

  absl::Status Collect(int slot, BatchOutput* output) override {
    const Running& running = running_[slot];
    if (running.until > Now()) SleepUntil(running.until);
    output->width = shape_.output_width();
    output->values.assign(int64_t{1} * running.sequences * output->width, 0.5F);
    return absl::OkStatus();
  }

  uint64_t TouchedBytes() override { return 0; }

 private:
  struct Running {
    int sequences = 0;
    int64_t until = 0;
  };

  const ModelShape shape_;
  const PlanTarget target_;
  const Speed speed_ = Speed::FromEnvironment();
  BackendInfo info_;
  int64_t busy_until_ = 0;
  std::array<Running, 2> running_;
};

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<Backend>>> CreateBackends(
    const Model& model, const BackendOptions&) {
  std::vector<std::unique_ptr<Backend>> backends;
  backends.push_back(std::make_unique<IdleBackend>(model));
  return backends;
}

}  // namespace svdserve
