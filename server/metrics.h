// Every metric of the server, in one table (metrics.cc), and the engine's
// Observer that feeds it.
//
// Thread-safe. Children with a fixed label are resolved once; counting is a few
// atomic operations. Gauges are read from the engine when they are collected.
//
//   Metrics metrics;
//   auto engine = Engine::Create(options, &metrics);
//   metrics.FollowEngine(engine->get());  // the engine must outlive scrapes
#ifndef SVDSERVE_SERVER_METRICS_H_
#define SVDSERVE_SERVER_METRICS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "engine/observer.h"

namespace prometheus {
class Collectable;
class Counter;
class Gauge;
class Histogram;
template <typename T>
class Family;
}  // namespace prometheus

namespace svdserve {

enum class Method {
  kEmbed,
  kClassify,
  kRerank,
  kEmbedStream,
  kEstimate,
  kGetModelInfo,
};
inline constexpr int kMethods = 6;
const char* MethodName(Method method);

class Metrics final : public Observer {
 public:
  Metrics();
  ~Metrics() override;

  // From here on, gauges tell what `engine` says.
  void FollowEngine(const Engine* engine);
  // Gauges read zero again; returns when no scrape is using the engine.
  void ForgetEngine();

  void OnInput(const InputStats& stats) override;
  void OnRefusal(RefusalReason reason) override;
  void OnBatch(const BatchStats& stats) override;

  // A call, or one message of a stream, was answered.
  void OnRequest(Method method, absl::StatusCode code, absl::Duration took,
                 uint64_t activation_bytes);
  // One of its inputs was answered.
  void OnInputAnswered(Method method, absl::StatusCode code);
  void OnCallOpened();
  void OnCallClosed();

  // What the exposer serves.
  std::shared_ptr<prometheus::Collectable> collectable() const;
  // The same as text, for tests.
  std::string Text() const;

 private:
  class Table;
  static constexpr int kCodes = 17;
  static constexpr int kOutcomes = 3;
  static constexpr int kReasons = 7;
  using ByCode =
      std::array<std::array<std::atomic<prometheus::Counter*>, kCodes>,
                 kMethods>;

  void AddRequestMetrics();
  void AddInputMetrics();
  void AddBatchMetrics();
  void Count(prometheus::Family<prometheus::Counter>* family, ByCode* children,
             Method method, absl::StatusCode code);

  const std::shared_ptr<Table> table_;

  prometheus::Family<prometheus::Counter>* requests_ = nullptr;
  prometheus::Family<prometheus::Counter>* inputs_ = nullptr;
  ByCode requests_by_code_ = {};
  ByCode inputs_by_code_ = {};
  std::array<prometheus::Counter*, kReasons> refusals_ = {};
  std::array<std::array<prometheus::Histogram*, kOutcomes>, kMethods>
      request_seconds_ = {};
  prometheus::Histogram* request_activation_bytes_ = nullptr;
  prometheus::Gauge* calls_open_ = nullptr;

  prometheus::Histogram* tokenization_seconds_ = nullptr;
  prometheus::Histogram* queue_seconds_ = nullptr;
  prometheus::Histogram* compute_seconds_ = nullptr;
  prometheus::Histogram* total_seconds_ = nullptr;
  prometheus::Histogram* input_tokens_ = nullptr;
  prometheus::Counter* tokens_ = nullptr;
  prometheus::Counter* activation_bytes_ = nullptr;
  prometheus::Counter* dense_activation_bytes_ = nullptr;

  prometheus::Histogram* batch_inputs_ = nullptr;
  prometheus::Histogram* batch_tokens_ = nullptr;
  prometheus::Histogram* batch_seconds_ = nullptr;
  prometheus::Histogram* batch_planned_bytes_ = nullptr;
  prometheus::Histogram* batch_charged_bytes_ = nullptr;
  prometheus::Histogram* batch_dense_bytes_ = nullptr;
};

}  // namespace svdserve

#endif  // SVDSERVE_SERVER_METRICS_H_
