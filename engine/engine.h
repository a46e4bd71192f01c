// The facade: everything that a server needs of the engine.
//
// Thread-safe. Owns the tokenizer pool, the device workers and their budgets.
// Submit() never blocks; each input's callback runs exactly once, on an engine
// thread, or inline if the input is refused at once.
//
//   auto engine = Engine::Create(options, &observer);
//   (*engine)->Submit({.text = "hello"}, {}, context, [](auto result) {...});
#ifndef SVDSERVE_ENGINE_ENGINE_H_
#define SVDSERVE_ENGINE_ENGINE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "engine/device/backend.h"
#include "engine/model/model.h"
#include "engine/observer.h"
#include "engine/schedule/cancellation.h"
#include "engine/schedule/input_result.h"
#include "engine/text/tokenizer.h"

namespace svdserve {

// One input: a text, a pair of texts, or token ids (used as they are, special
// tokens included; `type_ids` may be empty, meaning all zero).
struct Input {
  std::string text;
  std::optional<std::string> pair;
  std::vector<int32_t> ids;  // if not empty, text and pair are ignored
  std::vector<uint8_t> type_ids;
};

struct InputOptions {
  bool truncate = false;
  TruncationSide side = TruncationSide::kRight;
  std::string prompt;  // name of a prompt of the model; "" = its default
  OutputOptions output;
};

struct RequestContext {
  absl::Time deadline = absl::InfiniteFuture();
  CancellationToken cancelled;  // default: never
  // Inputs of one stream or one request share a flow. Flows share the device
  // fairly, so that a lone query never waits behind a bulk stream's backlog.
  // 0: this input is a flow of its own.
  uint64_t flow = 0;
  // How many inputs its request has; 0: not known. Of one that has no other, a
  // short text is tokenized by the caller's thread if nobody's waits, which
  // spares it the way to another. Until all are there it counts as bulk.
  int request_inputs = 0;
};

struct EngineOptions {
  std::string model_directory;
  BackendOptions backend;
  int tokenizer_threads = 1;
  uint64_t text_budget_bytes = 32 << 20;    // text that waits for tokenization
  uint64_t queue_budget_bytes = 256 << 20;  // activation bytes that wait
  int max_batch_tokens = 0;  // 0: what the device needs for full speed
  int max_batch_inputs = 512;
  absl::Duration gather_window = absl::Milliseconds(1);
};

struct InputEstimate {
  int tokens = 0;
  uint64_t activation_bytes = 0;  // charge of this input alone
  uint64_t fixed_bytes = 0;       // shared by a batch
  uint64_t dense_activation_bytes = 0;
  bool fits = false;          // could ever run
  bool admitted_now = false;  // the queue budget has room now
  int longest_input = 0;      // tokens that would fit
};

struct DeviceGauges {
  uint64_t weight_bytes = 0;
  uint64_t arena_bytes = 0;
  // In the device's own memory: context, graphs, other processes.
  uint64_t other_bytes = 0;
  bool in_service = true;  // false: lost, for good
};

// A snapshot for gauges and GetModelInfo. What is of an arena is the sum over
// the devices.
struct EngineGauges {
  uint64_t arena_bytes = 0;          // the budget of what runs
  uint64_t arena_in_use_bytes = 0;   // planned peak of the running batch
  uint64_t arena_peak_bytes = 0;     // highest planned peak so far
  uint64_t arena_touched_bytes = 0;  // highest byte found touched so far
  uint64_t queue_budget_bytes = 0;   // the budget of what waits
  uint64_t queue_reserved_bytes = 0;
  uint64_t queue_peak_bytes = 0;
  uint64_t text_budget_bytes = 0;
  uint64_t text_reserved_bytes = 0;
  int queued_inputs = 0;
  bool healthy = true;  // at least one device is
  std::vector<DeviceGauges> devices;

  // Nothing will run any more: a new process is needed.
  bool AllDevicesLost() const {
    for (const DeviceGauges& device : devices) {
      if (device.in_service) return false;
    }
    return !devices.empty();
  }
};

// An input and who waits for it.
struct Submission {
  Input input;
  InputCallback done;
};

class Engine {
 public:
  virtual ~Engine() = default;

  // Loads model and tokenizer, packs weights, warms up. Ready when it returns.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(
      const EngineOptions& options, Observer* observer);

  // Refusals arrive through `done`: INVALID_ARGUMENT for what can never run,
  // RESOURCE_EXHAUSTED (with a RefusalDetail, see schedule/refusal.h) for what
  // does not fit now, UNAVAILABLE while draining and when no device is left.
  void Submit(Input input, const InputOptions& options,
              const RequestContext& context, InputCallback done) {
    Submission submission = {std::move(input), std::move(done)};
    SubmitAll({&submission, 1}, options, context);
  }
  // Several of one request, each as by Submit(), moved from `inputs`. One by
  // one threads that submit at the same time would wait for each other at each.
  virtual void SubmitAll(absl::Span<Submission> inputs,
                         const InputOptions& options,
                         const RequestContext& context) = 0;
  virtual absl::StatusOr<InputEstimate> Estimate(
      const Input& input, const InputOptions& options) const = 0;

  // Refuses new inputs and waits until all accepted ones are finished. At
  // `deadline` the rest is finished with UNAVAILABLE. Idempotent.
  virtual void Drain(absl::Time deadline) = 0;

  virtual EngineGauges Gauges() const = 0;
  virtual const ModelConfig& model_config() const = 0;
  virtual const ModelShape& model_shape() const = 0;
  // Of the first device; the others are alike.
  virtual const BackendInfo& backend_info() const = 0;
  virtual uint64_t weight_bytes() const = 0;                   // as stored
  virtual uint64_t dense_equivalent_weight_bytes() const = 0;  // if dense
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_ENGINE_H_
