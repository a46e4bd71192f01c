#include "kernels/team.h"

#include <pthread.h>

#include <chrono>
#include <cstdio>

namespace svdserve::kernels {
namespace {

// `state_`: a loop's number, whether it takes workers, and how many are in it.
constexpr uint32_t kActiveMask = 0x7fff;
constexpr uint32_t kOpen = 0x8000;
constexpr int kLoopShift = 16;

// How long an idle thread spins before it sleeps: longer than the gaps between
// the loops of one batch, shorter than anyone would notice on an idle machine.
constexpr std::chrono::microseconds kSpin(50);

void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins until done() or the limit; returns whether done() held.
template <typename Done>
bool SpinUntil(Done done) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      Pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

Team::Team(int threads, const char* name) {
  threads_.reserve(threads - 1);
  for (int worker = 1; worker < threads; ++worker) {
    threads_.emplace_back([this, worker] { WorkerLoop(worker); });
    char label[16];  // what Linux keeps
    std::snprintf(label, sizeof(label), "%s/%d", name, worker);
    pthread_setname_np(threads_.back().native_handle(), label);
  }
}

Team::~Team() {
  stop_.store(true);
  state_.fetch_add(uint32_t{1} << kLoopShift);
  state_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Team::Run(int count, int grain, Body body) {
  if (count <= 0) return;
  if (grain < 1) grain = 1;
  if (threads_.empty() || count <= grain) {
    for (int i = 0; i < count; ++i) body.call(body.context, 0, i);
    return;
  }
  count_ = count;
  grain_ = grain;
  body_ = body;
  next_.store(0, std::memory_order_relaxed);
  // No worker is in a loop here: all others wait for a new number.
  const uint32_t loop = (state_.load() >> kLoopShift) + 1;
  state_.store((loop << kLoopShift) | kOpen);
  state_.notify_all();
  TakeIndices(0);
  // Who has not come by now finds nothing to do; wait for those who have.
  state_.fetch_and(~kOpen);
  WaitForWorkers();
}

void Team::WaitForWorkers() {
  const auto alone = [this] { return (state_.load() & kActiveMask) == 0; };
  if (SpinUntil(alone)) return;
  for (;;) {
    const uint32_t left = left_.load();
    if (alone()) return;
    left_.wait(left);
  }
}

void Team::TakeIndices(int worker) {
  for (;;) {
    const int begin = next_.fetch_add(grain_, std::memory_order_relaxed);
    if (begin >= count_) return;
    const int end = begin + grain_ < count_ ? begin + grain_ : count_;
    for (int i = begin; i < end; ++i) body_.call(body_.context, worker, i);
  }
}

void Team::WorkerLoop(int worker) {
  uint32_t seen = 0;  // the last loop that this worker joined
  for (;;) {
    // In this order: the destructor sets stop_ before state_ changes for the
    // last time, so a worker that does not see it yet does not miss the change.
    uint32_t state = state_.load();
    if (stop_.load()) return;
    if ((state >> kLoopShift) == seen || !(state & kOpen)) {
      const auto changed = [&] { return state_.load() != state; };
      if (!SpinUntil(changed)) state_.wait(state);
      continue;
    }
    if (!state_.compare_exchange_weak(state, state + 1)) continue;
    seen = state >> kLoopShift;
    TakeIndices(worker);
    state_.fetch_sub(1);
    left_.fetch_add(1);
    left_.notify_one();
  }
}

}  // namespace svdserve::kernels
