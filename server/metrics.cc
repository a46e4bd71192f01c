#include "server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <sstream>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/schedule/refusal.h"
#include "server/process_stats.h"
#include "server/status_util.h"

namespace svdserve {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using prometheus::ClientMetric;
using prometheus::Counter;
using prometheus::Family;
using prometheus::Histogram;
using prometheus::Labels;
using prometheus::MetricFamily;
using prometheus::MetricType;

struct Definition {
  const char* name;
  const char* help;
};

// The table. Counted by this file, as things happen:
constexpr Definition kRequests = {
    "svdserve_requests_total",
    "Calls, and messages of streams, that were answered, by method and gRPC "
    "status."};
constexpr Definition kInputs = {
    "svdserve_inputs_total",
    "Inputs that were answered, by method and the status in their place."};
constexpr Definition kRefusals = {
    "svdserve_refusals_total",
    "Inputs that were refused or dropped before they ran, by reason."};
constexpr Definition kRequestSeconds = {
    "svdserve_request_seconds",
    "Time from a request's arrival to its answer, by method and outcome: ok, "
    "refused (RESOURCE_EXHAUSTED, UNAVAILABLE) or failed."};
constexpr Definition kRequestBytes = {
    "svdserve_request_activation_bytes",
    "Activation bytes charged for all inputs of a request."};
constexpr Definition kCallsOpen = {"svdserve_open_calls",
                                   "Calls that are open, streams included."};
constexpr Definition kInputSeconds = {
    "svdserve_input_seconds",
    "Time of an input by stage: tokenization, queue, compute, total."};
constexpr Definition kInputTokens = {"svdserve_input_tokens",
                                     "Tokens of an input that ran."};
constexpr Definition kTokens = {"svdserve_tokens_total", "Tokens that ran."};
constexpr Definition kChargedTotal = {
    "svdserve_activation_bytes_total",
    "Activation bytes charged for inputs that ran."};
constexpr Definition kDenseTotal = {
    "svdserve_dense_activation_bytes_total",
    "Activation bytes that the dense plan would have needed for them."};
constexpr Definition kBatchInputs = {"svdserve_batch_inputs",
                                     "Inputs in a batch."};
constexpr Definition kBatchTokens = {"svdserve_batch_tokens",
                                     "Tokens in a batch."};
constexpr Definition kBatchSeconds = {"svdserve_batch_compute_seconds",
                                      "Time that the device took for a batch."};
constexpr Definition kBatchBytes = {
    "svdserve_batch_activation_bytes",
    "Activation bytes of a batch by kind: charged at admission, planned (the "
    "plan's peak), dense (what the dense plan would have needed)."};

// Asked of the engine and of the system when metrics are collected:
constexpr Definition kArenaBudget = {
    "svdserve_arena_budget_bytes",
    "Size of the arena, of all devices together, as the other arena metrics: "
    "the activation budget of what runs."};
constexpr Definition kArenaInUse = {
    "svdserve_arena_in_use_bytes",
    "Planned activation peak of the batch that runs now."};
constexpr Definition kArenaPeak = {
    "svdserve_arena_peak_bytes",
    "Highest planned activation peak of a batch so far."};
constexpr Definition kArenaTouched = {
    "svdserve_arena_touched_bytes",
    "Highest byte of the arena that was found touched: what was measured, "
    "beside svdserve_arena_peak_bytes, which was planned."};
constexpr Definition kQueueBudget = {
    "svdserve_queue_budget_bytes",
    "The activation budget of what waits to run."};
constexpr Definition kQueueReserved = {
    "svdserve_queue_reserved_bytes",
    "Activation bytes reserved by inputs that wait."};
constexpr Definition kQueuePeak = {
    "svdserve_queue_peak_bytes",
    "Highest number of activation bytes reserved so far."};
constexpr Definition kTextBudget = {
    "svdserve_text_budget_bytes",
    "The budget of text that waits for tokenization."};
constexpr Definition kTextReserved = {
    "svdserve_text_reserved_bytes",
    "Bytes of text that waits for tokenization."};
constexpr Definition kQueuedInputs = {"svdserve_queued_inputs",
                                      "Inputs that wait to run."};
constexpr Definition kHealthy = {"svdserve_healthy",
                                 "1 while the engine is healthy, else 0."};
constexpr Definition kWeights = {
    "svdserve_weight_bytes",
    "Bytes of the weights by form: stored (factored where the model is), "
    "dense_equivalent (if nothing were factored), packed (on the device)."};
constexpr Definition kDeviceMemory = {
    "svdserve_device_memory_bytes",
    "Memory of a device by kind: weights, arena, other (context, captured "
    "graphs, other processes; 0 on a CPU)."};
constexpr Definition kDeviceInService = {
    "svdserve_device_in_service",
    "1 while the device runs batches, 0 once it was lost."};
constexpr Definition kBuildInfo = {
    "svdserve_build_info",
    "Always 1; version, backend, dtype and mode are in the labels."};
constexpr Definition kResident = {"process_resident_memory_bytes",
                                  "Resident memory of the process."};
constexpr Definition kHeap = {
    "process_heap_bytes",
    "Bytes that are allocated on the heap, without what the allocator keeps "
    "for later: at rest the same at all times."};
constexpr Definition kCpuSeconds = {"process_cpu_seconds_total",
                                    "Processor time used by the process."};
constexpr Definition kStartTime = {
    "process_start_time_seconds",
    "Start of the process, in seconds since the Unix epoch."};

const Histogram::BucketBoundaries& SecondsBuckets() {
  static const auto* const buckets = new Histogram::BucketBoundaries{
      1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2,
      5e-2, 0.1,    0.25, 0.5,  1,      2.5,  5,    10};
  return *buckets;
}

// count bounds: first, first * factor, ...
Histogram::BucketBoundaries Powers(double first, double factor, int count) {
  Histogram::BucketBoundaries buckets;
  for (int i = 0; i < count; ++i, first *= factor) buckets.push_back(first);
  return buckets;
}
const Histogram::BucketBoundaries& BytesBuckets() {  // 4 KiB to 4 GiB
  static const auto* const buckets =
      new Histogram::BucketBoundaries(Powers(4096, 4, 11));
  return *buckets;
}

Family<Counter>& AddCounter(prometheus::Registry& registry, Definition d) {
  return BuildCounter().Name(d.name).Help(d.help).Register(registry);
}
Family<Histogram>& AddHistogram(prometheus::Registry& registry, Definition d) {
  return BuildHistogram().Name(d.name).Help(d.help).Register(registry);
}

// Families that are built anew for each collection.
class Snapshot {
 public:
  explicit Snapshot(std::vector<MetricFamily>* families)
      : families_(families) {}

  void Add(Definition d, double value, MetricType type = MetricType::Gauge) {
    Begin(d, type);
    Child({}, value);
  }
  void Begin(Definition d, MetricType type = MetricType::Gauge) {
    families_->push_back({d.name, d.help, type, {}});
  }
  void Child(std::vector<ClientMetric::Label> labels, double value) {
    ClientMetric metric;
    metric.label = std::move(labels);
    metric.gauge.value = value;
    metric.counter.value = value;
    families_->back().metric.push_back(std::move(metric));
  }

 private:
  std::vector<MetricFamily>* const families_;
};

void AddEngine(const Engine& engine, Snapshot* out) {
  const EngineGauges gauges = engine.Gauges();
  out->Add(kArenaBudget, gauges.arena_bytes);
  out->Add(kArenaInUse, gauges.arena_in_use_bytes);
  out->Add(kArenaPeak, gauges.arena_peak_bytes);
  out->Add(kArenaTouched, gauges.arena_touched_bytes);
  out->Add(kQueueBudget, gauges.queue_budget_bytes);
  out->Add(kQueueReserved, gauges.queue_reserved_bytes);
  out->Add(kQueuePeak, gauges.queue_peak_bytes);
  out->Add(kTextBudget, gauges.text_budget_bytes);
  out->Add(kTextReserved, gauges.text_reserved_bytes);
  out->Add(kQueuedInputs, gauges.queued_inputs);
  out->Add(kHealthy, gauges.healthy ? 1 : 0);
  const BackendInfo& backend = engine.backend_info();
  out->Begin(kWeights);
  out->Child({{"form", "stored"}}, engine.weight_bytes());
  out->Child({{"form", "dense_equivalent"}},
             engine.dense_equivalent_weight_bytes());
  out->Child({{"form", "packed"}}, backend.weight_bytes);
  out->Begin(kDeviceMemory);
  for (size_t i = 0; i < gauges.devices.size(); ++i) {
    const DeviceGauges& device = gauges.devices[i];
    const auto add = [&](const char* kind, double bytes) {
      out->Child({{"device", std::to_string(i)}, {"kind", kind}}, bytes);
    };
    add("weights", device.weight_bytes);
    add("arena", device.arena_bytes);
    add("other", device.other_bytes);
  }
  out->Begin(kDeviceInService);
  for (size_t i = 0; i < gauges.devices.size(); ++i) {
    out->Child({{"device", std::to_string(i)}},
               gauges.devices[i].in_service ? 1 : 0);
  }
  out->Begin(kBuildInfo);
  out->Child({{"version", SVDSERVE_VERSION},
              {"backend", backend.name},
              {"dtype", backend.dtype},
              {"mode", backend.mode}},
             1);
}

void AddProcess(Snapshot* out) {
  const ProcessStats process = ReadProcessStats();
  out->Add(kResident, process.resident_bytes);
  out->Add(kHeap, process.heap_bytes);
  out->Add(kCpuSeconds, process.cpu_seconds, MetricType::Counter);
  out->Add(kStartTime, process.start_time_seconds);
}

enum Outcome { kOk, kRefused, kFailed };
Outcome OutcomeOf(absl::StatusCode code) {
  if (code == absl::StatusCode::kOk) return kOk;
  return code == absl::StatusCode::kResourceExhausted ||
                 code == absl::StatusCode::kUnavailable
             ? kRefused
             : kFailed;
}

}  // namespace

const char* MethodName(Method method) {
  constexpr std::array<const char*, kMethods> kNames = {
      "Embed", "Classify", "Rerank", "EmbedStream", "Estimate", "GetModelInfo"};
  return kNames[static_cast<int>(method)];
}

// The registry's metrics and the engine's gauges as one collection.
class Metrics::Table : public prometheus::Collectable {
 public:
  prometheus::Registry registry;

  void SetEngine(const Engine* engine) {
    const absl::MutexLock lock(&mutex_);
    engine_ = engine;
  }

  std::vector<MetricFamily> Collect() const override {
    std::vector<MetricFamily> families = registry.Collect();
    Snapshot snapshot(&families);
    AddProcess(&snapshot);
    const absl::MutexLock lock(&mutex_);
    if (engine_ != nullptr) AddEngine(*engine_, &snapshot);
    return families;
  }

 private:
  mutable absl::Mutex mutex_;
  const Engine* engine_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

Metrics::Metrics() : table_(std::make_shared<Table>()) {
  AddRequestMetrics();
  AddInputMetrics();
  AddBatchMetrics();
}

Metrics::~Metrics() = default;

void Metrics::AddRequestMetrics() {
  prometheus::Registry& registry = table_->registry;
  requests_ = &AddCounter(registry, kRequests);
  inputs_ = &AddCounter(registry, kInputs);
  Family<Counter>& refusals = AddCounter(registry, kRefusals);
  for (int i = 0; i < kReasons; ++i) {
    refusals_[i] = &refusals.Add(
        {{"reason", RefusalReasonName(static_cast<RefusalReason>(i))}});
  }
  Family<Histogram>& seconds = AddHistogram(registry, kRequestSeconds);
  constexpr std::array<const char*, kOutcomes> kNames = {"ok", "refused",
                                                         "failed"};
  for (int m = 0; m < kMethods; ++m) {
    for (int o = 0; o < kOutcomes; ++o) {
      request_seconds_[m][o] =
          &seconds.Add({{"method", MethodName(static_cast<Method>(m))},
                        {"outcome", kNames[o]}},
                       SecondsBuckets());
    }
  }
  request_activation_bytes_ =
      &AddHistogram(registry, kRequestBytes).Add({}, BytesBuckets());
  calls_open_ = &BuildGauge()
                     .Name(kCallsOpen.name)
                     .Help(kCallsOpen.help)
                     .Register(registry)
                     .Add({});
}

void Metrics::AddInputMetrics() {
  prometheus::Registry& registry = table_->registry;
  Family<Histogram>& seconds = AddHistogram(registry, kInputSeconds);
  const auto stage = [&](const char* name) {
    return &seconds.Add({{"stage", name}}, SecondsBuckets());
  };
  tokenization_seconds_ = stage("tokenization");
  queue_seconds_ = stage("queue");
  compute_seconds_ = stage("compute");
  total_seconds_ = stage("total");
  input_tokens_ = &AddHistogram(registry, kInputTokens)
                       .Add({}, Powers(4, 2, 10));  // 4 to 2,048
  tokens_ = &AddCounter(registry, kTokens).Add({});
  activation_bytes_ = &AddCounter(registry, kChargedTotal).Add({});
  dense_activation_bytes_ = &AddCounter(registry, kDenseTotal).Add({});
}

void Metrics::AddBatchMetrics() {
  prometheus::Registry& registry = table_->registry;
  batch_inputs_ = &AddHistogram(registry, kBatchInputs)
                       .Add({}, Powers(1, 2, 11));  // 1 to 1,024
  batch_tokens_ = &AddHistogram(registry, kBatchTokens)
                       .Add({}, Powers(16, 2, 13));  // 16 to 65,536
  batch_seconds_ =
      &AddHistogram(registry, kBatchSeconds).Add({}, SecondsBuckets());
  Family<Histogram>& bytes = AddHistogram(registry, kBatchBytes);
  const auto kind = [&](const char* name) {
    return &bytes.Add({{"kind", name}}, BytesBuckets());
  };
  batch_planned_bytes_ = kind("planned");
  batch_charged_bytes_ = kind("charged");
  batch_dense_bytes_ = kind("dense");
}

void Metrics::FollowEngine(const Engine* engine) { table_->SetEngine(engine); }

void Metrics::ForgetEngine() { table_->SetEngine(nullptr); }

void Metrics::OnInput(const InputStats& stats) {
  total_seconds_->Observe(absl::ToDoubleSeconds(stats.times.total));
  if (stats.code != absl::StatusCode::kOk) return;
  tokenization_seconds_->Observe(
      absl::ToDoubleSeconds(stats.times.tokenization));
  queue_seconds_->Observe(absl::ToDoubleSeconds(stats.times.queue));
  compute_seconds_->Observe(absl::ToDoubleSeconds(stats.times.compute));
  input_tokens_->Observe(stats.tokens);
  tokens_->Increment(stats.tokens);
  activation_bytes_->Increment(stats.activation_bytes);
  dense_activation_bytes_->Increment(stats.dense_activation_bytes);
}

void Metrics::OnRefusal(RefusalReason reason) {
  refusals_[static_cast<int>(reason)]->Increment();
}

void Metrics::OnBatch(const BatchStats& stats) {
  batch_inputs_->Observe(stats.sequences);
  batch_tokens_->Observe(stats.tokens);
  batch_seconds_->Observe(absl::ToDoubleSeconds(stats.compute));
  batch_planned_bytes_->Observe(stats.planned_bytes);
  batch_charged_bytes_->Observe(stats.charged_bytes);
  batch_dense_bytes_->Observe(stats.dense_bytes);
}

void Metrics::OnRequest(Method method, absl::StatusCode code,
                        absl::Duration took, uint64_t activation_bytes) {
  Count(requests_, &requests_by_code_, method, code);
  request_seconds_[static_cast<int>(method)][OutcomeOf(code)]->Observe(
      absl::ToDoubleSeconds(took));
  if (activation_bytes > 0) {
    request_activation_bytes_->Observe(activation_bytes);
  }
}

void Metrics::OnInputAnswered(Method method, absl::StatusCode code) {
  Count(inputs_, &inputs_by_code_, method, code);
}

void Metrics::OnCallOpened() { calls_open_->Increment(); }

void Metrics::OnCallClosed() { calls_open_->Decrement(); }

// A child appears with its first count, so that methods and statuses that
// never meet take no room in a scrape.
void Metrics::Count(Family<Counter>* family, ByCode* children, Method method,
                    absl::StatusCode code) {
  auto& child = (*children)[static_cast<int>(method)][static_cast<int>(code)];
  Counter* counter = child.load(std::memory_order_acquire);
  if (counter == nullptr) {  // Add() returns the same child to everyone
    counter = &family->Add(
        {{"method", MethodName(method)}, {"code", CodeName(code)}});
    child.store(counter, std::memory_order_release);
  }
  counter->Increment();
}

std::shared_ptr<prometheus::Collectable> Metrics::collectable() const {
  return table_;
}

std::string Metrics::Text() const {
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, table_->Collect());
  return out.str();
}

}  // namespace svdserve
