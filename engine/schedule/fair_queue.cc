#include "engine/schedule/fair_queue.h"

#include <algorithm>
#include <iterator>
#include <tuple>
#include <utility>

namespace svdserve {
namespace {

// Keys of flows that the engine makes up, apart from those of callers.
constexpr uint64_t kOwnFlow = uint64_t{1} << 63;

uint64_t KeyOf(const QueueEntry& entry) {
  const uint64_t flow = entry.task->flow();
  return flow == 0 ? kOwnFlow | entry.order : flow & ~kOwnFlow;
}

BatchRoom PartOf(const BatchRoom& room, int parts) {
  return {.bytes = room.bytes / parts,
          .tokens = room.tokens / parts,
          .inputs = room.inputs / parts};
}

bool TakeAll(const std::list<QueueEntry>& entries, BatchRoom* room) {
  for (const QueueEntry& entry : entries) {
    if (!room->Fits(entry)) return false;
    room->Take(entry);
  }
  return true;
}

}  // namespace

void BatchRoom::Take(const QueueEntry& entry) {
  bytes -= entry.charge();
  tokens -= entry.tokens;
  inputs -= 1;
}

// Finds the next flow by age and by fair order while one batch is filled. An
// entry of a heap is stale once its flow's first task was taken by the other.
class FairQueue::Picker {
 public:
  explicit Picker(std::unordered_map<uint64_t, Flow>* flows) {
    fair_.reserve(flows->size());
    aged_.reserve(flows->size());
    for (auto& [key, flow] : *flows) {
      if (flow.entries.empty()) continue;
      const uint64_t order = flow.entries.front().order;
      fair_.push_back({flow.start, flow.new_here ? 0 : 1, order, &flow});
      aged_.push_back({order, 0, order, &flow});
    }
    std::make_heap(fair_.begin(), fair_.end(), Later);
    std::make_heap(aged_.begin(), aged_.end(), Later);
  }

  Flow* Fairest() { return First(&fair_); }
  Flow* Oldest() { return First(&aged_); }

  // To be called when the first entry of `flow` has changed.
  void Update(Flow* flow) {
    if (flow->entries.empty()) return;
    const uint64_t order = flow->entries.front().order;
    Add(&fair_, {flow->start, flow->new_here ? 0 : 1, order, flow});
    Add(&aged_, {order, 0, order, flow});
  }

 private:
  struct Head {
    uint64_t key;
    int rank;  // among equal keys
    uint64_t order;
    Flow* flow;
  };
  using Heap = std::vector<Head>;

  static bool Later(const Head& a, const Head& b) {
    return std::tie(a.key, a.rank, a.order) > std::tie(b.key, b.rank, b.order);
  }
  static void Add(Heap* heap, Head head) {
    heap->push_back(head);
    std::push_heap(heap->begin(), heap->end(), Later);
  }
  static Flow* First(Heap* heap) {
    while (!heap->empty()) {
      const Head& head = heap->front();
      if (!head.flow->entries.empty() &&
          head.flow->entries.front().order == head.order) {
        return head.flow;
      }
      std::pop_heap(heap->begin(), heap->end(), Later);
      heap->pop_back();
    }
    return nullptr;
  }

  Heap fair_;
  Heap aged_;
};

void FairQueue::Push(QueueEntry entry) {
  entry.order = next_order_++;
  size_ += 1;
  tokens_ += entry.tokens;
  bytes_ += entry.charge();
  Flow& flow = flows_[KeyOf(entry)];
  if (flow.entries.empty()) {
    flow.idle_batches = 0;
    flow.new_here = flow.start <= virtual_time_;
    flow.start = std::max(flow.start, virtual_time_);
  }
  flow.entries.push_back(std::move(entry));
}

void FairQueue::Drop(absl::FunctionRef<bool(const QueueEntry&)> lapsed,
                     std::vector<QueueEntry>* dropped) {
  for (auto& [key, flow] : flows_) {
    for (auto it = flow.entries.begin(); it != flow.entries.end();) {
      if (!lapsed(*it)) {
        ++it;
        continue;
      }
      Forget(*it);
      dropped->push_back(std::move(*it));
      it = flow.entries.erase(it);
    }
  }
  DropIdleFlows();
}

void FairQueue::TakeBatch(BatchRoom room,
                          absl::FunctionRef<bool(const QueueEntry&)> lapsed,
                          std::vector<QueueEntry>* taken,
                          std::vector<QueueEntry>* dropped) {
  const std::vector<Flow*> newcomers = FewNewcomers(room);
  newcomers_ran_ = !newcomers.empty();
  if (newcomers_ran_) {
    TakeNewcomers(newcomers, lapsed, taken, dropped);
    return;
  }

  Picker picker(&flows_);
  BatchRoom fair_room = PartOf(room, 2);
  bool any_fair = false;

  // Each takes the flow's first entry if it may, and says whether to go on.
  const auto take = [&](Flow* flow) {
    const QueueEntry& first = flow->entries.front();
    if (lapsed(first)) {
      dropped->push_back(PopFirst(flow));
    } else if (room.Fits(first)) {
      room.Take(first);
      flow->start += first.charge();
      flow->new_here = false;
      taken->push_back(PopFirst(flow));
    } else {
      return false;
    }
    picker.Update(flow);
    return true;
  };
  const auto take_fair = [&](Flow* flow) {
    const uint64_t start = flow->start;
    const QueueEntry& first = flow->entries.front();
    if (any_fair && !fair_room.Fits(first)) return false;
    BatchRoom left = fair_room;
    if (left.Fits(first)) left.Take(first);
    const size_t before = taken->size();
    if (!take(flow)) return false;
    if (taken->size() == before) return true;  // it had lapsed
    fair_room = left;
    any_fair = true;
    virtual_time_ = std::max(virtual_time_, start);
    return true;
  };

  Flow* oldest = picker.Oldest();
  const uint64_t first_order =
      oldest == nullptr ? 0 : oldest->entries.front().order;
  if (oldest != nullptr && first_order == passed_over_) take(oldest);
  for (Flow* flow = picker.Fairest(); flow != nullptr && take_fair(flow);) {
    flow = picker.Fairest();
  }
  for (Flow* flow = picker.Oldest(); flow != nullptr && take(flow);) {
    flow = picker.Oldest();
  }

  oldest = picker.Oldest();
  const bool passed_over =
      oldest != nullptr && oldest->entries.front().order == first_order;
  passed_over_ = passed_over ? first_order : 0;
  DropIdleFlows();
}

// Flows that have had nothing yet and want little, if together they fit into a
// small batch: more of them are bulk themselves. None if it is not their turn,
// or if all that waits fits into one batch.
std::vector<FairQueue::Flow*> FairQueue::FewNewcomers(const BatchRoom& room) {
  std::vector<Flow*> few;
  const bool all_fit =
      bytes_ <= room.bytes && tokens_ <= room.tokens && size_ <= room.inputs;
  if (all_fit || newcomers_ran_) return few;
  const BatchRoom small = PartOf(room, kNewcomersShare);
  BatchRoom left = small;
  for (auto& [key, flow] : flows_) {
    if (!flow.new_here || flow.entries.empty()) continue;
    if (flow.entries.size() < flow.entries.front().task->request_inputs()) {
      continue;
    }
    BatchRoom own = small;
    if (!TakeAll(flow.entries, &own)) continue;
    if (!TakeAll(flow.entries, &left)) return {};
    few.push_back(&flow);
  }
  return few;
}

void FairQueue::TakeNewcomers(const std::vector<Flow*>& flows,
                              absl::FunctionRef<bool(const QueueEntry&)> lapsed,
                              std::vector<QueueEntry>* taken,
                              std::vector<QueueEntry>* dropped) {
  for (Flow* flow : flows) {
    virtual_time_ = std::max(virtual_time_, flow->start);
    flow->new_here = false;
    while (!flow->entries.empty()) {
      const QueueEntry& first = flow->entries.front();
      const bool drop = lapsed(first);
      if (!drop) flow->start += first.charge();
      (drop ? dropped : taken)->push_back(PopFirst(flow));
    }
  }
  DropIdleFlows();
}

QueueEntry FairQueue::PopFirst(Flow* flow) {
  QueueEntry entry = std::move(flow->entries.front());
  flow->entries.pop_front();
  Forget(entry);
  return entry;
}

void FairQueue::Forget(const QueueEntry& entry) {
  size_ -= 1;
  tokens_ -= entry.tokens;
  bytes_ -= entry.charge();
}

// A flow without entries is remembered until virtual time has caught up with
// what it was given, lest a stream gain by keeping its backlog short. But while
// there are always new flows virtual time may stand still.
void FairQueue::DropIdleFlows() {
  if (empty()) {
    flows_.clear();
    virtual_time_ = 0;
    return;
  }
  for (auto it = flows_.begin(); it != flows_.end();) {
    Flow& flow = it->second;
    const bool done = flow.entries.empty() &&
                      (flow.start <= virtual_time_ || it->first >= kOwnFlow ||
                       ++flow.idle_batches > kRememberedBatches);
    it = done ? flows_.erase(it) : std::next(it);
  }
}

}  // namespace svdserve
