// Waiting tasks in the order in which batches take them.
//
// Tasks belong to flows (one stream, one request). Half of a batch is filled in
// fair order (start-time fair queueing: a flow's next task starts, in virtual
// time, where its last one ended, and a new flow starts now), so a lone query
// is in the next batch however many bulk streams are waiting. The other half is
// filled by age, so nothing waits for ever, however many new flows arrive. A
// task too large for what the fair order left over opens the next batch.
//
// While more waits than one batch takes, few and small newcomers get a small
// batch of their own, every second one at most: they need not sit through the
// computation of the bulk, whose rate falls by some 1/kNewcomersShare at most.
// A request of which only the first inputs have come is no such newcomer.
//
// Not thread-safe: BatchScheduler owns it. Pushing is O(1), taking a batch is
// O(flows + taken · log flows).
//
//   queue.Push(std::move(entry));
//   queue.TakeBatch(room, [&](QueueEntry e) { batch.push_back(...); });
#ifndef SVDSERVE_ENGINE_SCHEDULE_FAIR_QUEUE_H_
#define SVDSERVE_ENGINE_SCHEDULE_FAIR_QUEUE_H_

#include <cstdint>
#include <list>
#include <memory>
#include <unordered_map>
#include <vector>

#include "absl/functional/function_ref.h"
#include "engine/schedule/byte_budget.h"
#include "engine/schedule/task.h"

namespace svdserve {

struct QueueEntry {
  std::shared_ptr<InputTask> task;
  Reservation queue_bytes;  // the task's charge
  int tokens = 0;
  uint64_t order = 0;  // of arrival; set by Push()

  uint64_t charge() const { return queue_bytes.bytes(); }
};

// What a batch has room for.
struct BatchRoom {
  uint64_t bytes = 0;
  int tokens = 0;
  int inputs = 0;

  bool Fits(const QueueEntry& entry) const {
    return entry.charge() <= bytes && entry.tokens <= tokens && inputs >= 1;
  }
  void Take(const QueueEntry& entry);
};

class FairQueue {
 public:
  // Newcomers' batches are that much smaller than others.
  static constexpr int kNewcomersShare = 16;
  // So many batches later nobody waits for an answer of this one any more, and
  // a flow that comes back was not merely keeping its backlog short.
  static constexpr int kRememberedBatches = 8;

  void Push(QueueEntry entry);

  // Removes the entries that `lapsed` picks. O(size).
  void Drop(absl::FunctionRef<bool(const QueueEntry&)> lapsed,
            std::vector<QueueEntry>* dropped);

  // Removes entries that fit into `room` together. Those that `lapsed` picks
  // take no room and go to `dropped`.
  void TakeBatch(BatchRoom room,
                 absl::FunctionRef<bool(const QueueEntry&)> lapsed,
                 std::vector<QueueEntry>* taken,
                 std::vector<QueueEntry>* dropped);

  int size() const { return size_; }
  int flows() const { return static_cast<int>(flows_.size()); }
  bool empty() const { return size_ == 0; }
  // Sums over all entries.
  int64_t tokens() const { return tokens_; }
  uint64_t bytes() const { return bytes_; }

 private:
  struct Flow {
    std::list<QueueEntry> entries;
    uint64_t start = 0;  // virtual time at which its first entry starts
    // Had nothing since it came (back): first among equals, or it would wait
    // for a whole round of streams that start at the same time.
    bool new_here = false;
    int idle_batches = 0;  // so many ended while it had no entries
  };
  class Picker;

  std::vector<Flow*> FewNewcomers(const BatchRoom& room);
  void TakeNewcomers(const std::vector<Flow*>& flows,
                     absl::FunctionRef<bool(const QueueEntry&)> lapsed,
                     std::vector<QueueEntry>* taken,
                     std::vector<QueueEntry>* dropped);
  QueueEntry PopFirst(Flow* flow);
  void Forget(const QueueEntry& entry);
  void DropIdleFlows();

  std::unordered_map<uint64_t, Flow> flows_;
  uint64_t virtual_time_ = 0;  // in charged bytes, as Flow::start
  uint64_t next_order_ = 1;
  uint64_t passed_over_ = 0;    // order of an entry that opens the next batch
  bool newcomers_ran_ = false;  // the last batch was theirs
  int size_ = 0;
  int64_t tokens_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_SCHEDULE_FAIR_QUEUE_H_
