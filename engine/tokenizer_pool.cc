#include "engine/tokenizer_pool.h"

#include <utility>

namespace svdserve {

TokenizerPool::TokenizerPool(int threads, Handler handler)
    : handler_(std::move(handler)) {
  threads_.reserve(threads);
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Loop(); });
}

TokenizerPool::~TokenizerPool() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

void TokenizerPool::Push(TextJob job) {
  absl::MutexLock lock(&mu_);
  const uint64_t key =
      job.task->flow() != 0 ? job.task->flow() : next_own_flow_++;
  std::deque<TextJob>& jobs = flows_[key];
  if (jobs.empty()) turns_.push_back(key);
  jobs.push_back(std::move(job));
}

void TokenizerPool::Loop() {
  TokenizerScratch scratch;
  while (true) {
    TextJob job;
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(this, &TokenizerPool::HasWork));
      if (stopping_) return;
      job = PopJob();
    }
    handler_(std::move(job), &scratch);
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
