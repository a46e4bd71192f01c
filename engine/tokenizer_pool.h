// The threads that turn waiting texts into ids.
//
// Push() never blocks and never refuses: a job holds a reservation of the text
// budget, which is what bounds the queue. Flows take turns, one job each, so
// that a lone query does not wait for a bulk stream's backlog of text.
//
// Thread-safe. The destructor stops the threads after their present job; what
// was still waiting is destroyed.
//
//   TokenizerPool pool(2, [&](TextJob job, TokenizerScratch* s) { ... });
//   pool.Push({.task = task, .input = std::move(input), ...});
#ifndef SVDSERVE_ENGINE_TOKENIZER_POOL_H_
#define SVDSERVE_ENGINE_TOKENIZER_POOL_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"
#include "engine/schedule/byte_budget.h"
#include "engine/schedule/task.h"
#include "engine/text/tokenizer.h"

namespace svdserve {

struct TextJob {
  std::shared_ptr<InputTask> task;
  Input input;
  InputOptions options;
  Reservation text_bytes;
};

// What a thread keeps from job to job.
struct TokenizerScratch {
  std::string text;
  Encoding encoding;
};

class TokenizerPool {
 public:
  using Handler = std::function<void(TextJob, TokenizerScratch*)>;

  TokenizerPool(int threads, Handler handler);
  TokenizerPool(const TokenizerPool&) = delete;
  TokenizerPool& operator=(const TokenizerPool&) = delete;
  ~TokenizerPool();

  void Push(TextJob job) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Loop() ABSL_LOCKS_EXCLUDED(mu_);
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return stopping_ || !turns_.empty();
  }
  TextJob PopJob() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Handler handler_;
  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  // Flows with waiting jobs, and whose turn it is.
  std::unordered_map<uint64_t, std::deque<TextJob>> flows_ ABSL_GUARDED_BY(mu_);
  std::deque<uint64_t> turns_ ABSL_GUARDED_BY(mu_);
  uint64_t next_own_flow_ ABSL_GUARDED_BY(mu_) = uint64_t{1} << 63;
  std::vector<std::thread> threads_;  // last: they use all of the above
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TOKENIZER_POOL_H_
