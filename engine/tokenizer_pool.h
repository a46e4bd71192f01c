// The threads that turn waiting texts into ids.
//
// Push() never blocks and never refuses: a job holds a reservation of the text
// budget, which is what bounds the queue. Flows take turns, one job each, so
// that a lone query does not wait for a bulk stream's backlog of text.
//
// Waking a thread, and taking its lock, costs as much as tokenizing several
// short texts. So a thread takes jobs of kTurnBytes together at a time, some
// 50 µs of work, and a further one is woken only once there is more to do,
// begun or not, than a turn for each thread that is awake.
//
// Thread-safe. The destructor stops the threads after their present job; what
// was still waiting is destroyed.
//
//   TokenizerPool pool(2, [&](absl::Span<TextJob> jobs, auto* s) { ... });
//   pool.Push(absl::MakeSpan(jobs));
#ifndef SVDSERVE_ENGINE_TOKENIZER_POOL_H_
#define SVDSERVE_ENGINE_TOKENIZER_POOL_H_

#include <atomic>
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
#include "absl/types/span.h"
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
  using Handler = std::function<void(absl::Span<TextJob>, TokenizerScratch*)>;
  static constexpr uint64_t kTurnBytes = 16 << 10;  // of reservations
  // A text up to this is tokenized sooner than a thread is woken for it.
  static constexpr uint64_t kShortBytes = 4096;

  TokenizerPool(int threads, Handler handler);
  TokenizerPool(const TokenizerPool&) = delete;
  TokenizerPool& operator=(const TokenizerPool&) = delete;
  ~TokenizerPool();

  // Takes the jobs over.
  void Push(absl::Span<TextJob> jobs) ABSL_LOCKS_EXCLUDED(mu_);
  // Nothing waits and no thread has anything to do.
  bool idle() const {
    return bytes_to_do_.load(std::memory_order_relaxed) == 0;
  }

 private:
  void Loop() ABSL_LOCKS_EXCLUDED(mu_);
  // Waits for jobs; none at the end.
  void NextTurn(std::vector<TextJob>* jobs) ABSL_LOCKS_EXCLUDED(mu_);
  TextJob PopJob() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const int thread_count_;
  const Handler handler_;
  // Of waiting jobs and of those that a thread has.
  std::atomic<uint64_t> bytes_to_do_{0};
  absl::Mutex mu_;
  absl::CondVar work_;
  int asleep_ ABSL_GUARDED_BY(mu_) = 0;  // threads that nobody has woken
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  // Flows with waiting jobs, and whose turn it is.
  std::unordered_map<uint64_t, std::deque<TextJob>> flows_ ABSL_GUARDED_BY(mu_);
  std::deque<uint64_t> turns_ ABSL_GUARDED_BY(mu_);
  uint64_t next_own_flow_ ABSL_GUARDED_BY(mu_) = uint64_t{1} << 63;
  std::vector<std::thread> threads_;  // last: they use all of the above
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_TOKENIZER_POOL_H_
