#include "engine/tokenizer_pool.h"

#include <pthread.h>

#include <utility>

namespace svdserve {

TokenizerPool::TokenizerPool(int threads, Handler handler)
    : thread_count_(threads), handler_(std::move(handler)) {
  threads_.reserve(threads);
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Loop(); });
}

TokenizerPool::~TokenizerPool() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    work_.SignalAll();
  }
  for (std::thread& thread : threads_) thread.join();
}

void TokenizerPool::Push(absl::Span<TextJob> jobs) {
  uint64_t bytes = 0;
  for (const TextJob& job : jobs) bytes += job.text_bytes.bytes();
  absl::MutexLock lock(&mu_);
  for (TextJob& job : jobs) {
    const uint64_t key =
        job.task->flow() != 0 ? job.task->flow() : next_own_flow_++;
    std::deque<TextJob>& flow = flows_[key];
    if (flow.empty()) turns_.push_back(key);
    flow.push_back(std::move(job));
  }
  const uint64_t to_do =
      bytes_to_do_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  while (asleep_ > 0 && to_do > (thread_count_ - asleep_) * kTurnBytes) {
    --asleep_;
    work_.Signal();
  }
}

void TokenizerPool::Loop() {
  pthread_setname_np(pthread_self(), "svd-text");
  TokenizerScratch scratch;
  std::vector<TextJob> jobs;
  for (NextTurn(&jobs); !jobs.empty(); NextTurn(&jobs)) {
    uint64_t bytes = 0;
    for (const TextJob& job : jobs) bytes += job.text_bytes.bytes();
    handler_(absl::MakeSpan(jobs), &scratch);
    jobs.clear();
    bytes_to_do_.fetch_sub(bytes, std::memory_order_relaxed);
  }
}

void TokenizerPool::NextTurn(std::vector<TextJob>* jobs) {
  absl::MutexLock lock(&mu_);
  while (turns_.empty() && !stopping_) {
    ++asleep_;
    work_.Wait(&mu_);  // whoever signals has counted this thread as awake
  }
  if (stopping_) return;
  uint64_t bytes = 0;
  while (!turns_.empty() && bytes < kTurnBytes) {
    jobs->push_back(PopJob());
    bytes += jobs->back().text_bytes.bytes();
  }
}

TextJob TokenizerPool::PopJob() {
  const uint64_t key = turns_.front();
  turns_.pop_front();
  const auto flow = flows_.find(key);
  TextJob job = std::move(flow->second.front());
  flow->second.pop_front();
  if (flow->second.empty()) {
    flows_.erase(flow);
  } else {
    turns_.push_back(key);
  }
  return job;
}

}  // namespace svdserve
