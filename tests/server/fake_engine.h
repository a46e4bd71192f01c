// An Engine whose answers a test decides.
//
// By default each input is answered at once: an embedding made of its text, or
// logits. Held() keeps inputs until the test answers them, in any order.
#ifndef SVDSERVE_TESTS_SERVER_FAKE_ENGINE_H_
#define SVDSERVE_TESTS_SERVER_FAKE_ENGINE_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/engine.h"

namespace svdserve {

class FakeEngine final : public Engine {
 public:
  struct Submitted {
    Input input;
    InputOptions options;
    RequestContext context;
    InputCallback done;
  };
  using Answerer = std::function<absl::StatusOr<InputResult>(
      const Input&, const InputOptions&)>;

  explicit FakeEngine(Task task = Task::kEmbedding, int width = 4) {
    config_.name = "fake";
    config_.task = task;
    config_.normalize = true;
    config_.prompts = {{"passage", "passage: "}, {"query", "query: "}};
    for (int i = 0; task == Task::kClassification && i < width; ++i) {
      config_.labels.push_back(std::string(1, static_cast<char>('a' + i)));
    }
    shape_.hidden = width;
    shape_.vocab = 100;
    shape_.max_tokens = 16;
    shape_.layers = {{1, 2, 3, 4, 5, 6}, {}};
    backend_ = {"fake", "a test wants it", "float32", "strict", 30, 1000};
    gauges_.arena_bytes = 1000;
    gauges_.queue_budget_bytes = 3000;
  }

  // The first byte of the text (or the first id) is the first value.
  InputResult AnswerTo(const Input& input, const InputOptions& options) const {
    const int width = options.output.dimensions > 0 ? options.output.dimensions
                                                    : shape_.output_width();
    InputResult result;
    result.values.assign(width, 0.5F);
    result.values[0] =
        input.ids.empty()
            ? static_cast<float>(input.text.empty() ? 0 : input.text[0])
            : static_cast<float>(input.ids[0]);
    result.tokens = 3;
    result.activation_bytes = 300;
    result.dense_activation_bytes = 3000;
    result.times.total = absl::Milliseconds(1500);
    return result;
  }

  void AnswerWith(Answerer answerer) {
    const absl::MutexLock lock(&mutex_);
    answerer_ = std::move(answerer);
  }
  void Hold() {
    const absl::MutexLock lock(&mutex_);
    hold_ = true;
  }
  // Waits until `count` inputs are held.
  void AwaitHeld(int count) {
    const absl::MutexLock lock(&mutex_);
    const auto held = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return held_.size() >= count;
    };
    mutex_.Await(absl::Condition(&held));
  }
  std::vector<Submitted> TakeHeld() {
    const absl::MutexLock lock(&mutex_);
    return std::exchange(held_, {});
  }
  void Answer(Submitted submitted) {
    absl::StatusOr<InputResult> result =
        AnswerTo(submitted.input, submitted.options);
    std::move(submitted.done)(std::move(result));
  }
  int submitted() const {
    const absl::MutexLock lock(&mutex_);
    return submitted_;
  }
  bool draining() const {
    const absl::MutexLock lock(&mutex_);
    return draining_;
  }
  void SetHealthy(bool healthy) {
    const absl::MutexLock lock(&mutex_);
    gauges_.healthy = healthy;
  }
  ModelConfig* mutable_config() { return &config_; }
  ModelShape* mutable_shape() { return &shape_; }
  void set_gauges(const EngineGauges& gauges) {
    const absl::MutexLock lock(&mutex_);
    gauges_ = gauges;
  }

  void SubmitAll(absl::Span<Submission> inputs, const InputOptions& options,
                 const RequestContext& context) override {
    for (Submission& one : inputs) {
      SubmitOne(std::move(one.input), options, context, std::move(one.done));
    }
  }

  void SubmitOne(Input input, const InputOptions& options,
                 const RequestContext& context, InputCallback done) {
    absl::StatusOr<InputResult> result;
    {
      const absl::MutexLock lock(&mutex_);
      ++submitted_;
      if (draining_) {
        result = absl::UnavailableError("draining");
      } else if (hold_) {
        held_.push_back({std::move(input), options, context, std::move(done)});
        return;
      } else {
        result =
            answerer_ ? answerer_(input, options) : AnswerTo(input, options);
      }
    }
    std::move(done)(std::move(result));
  }

  absl::StatusOr<InputEstimate> Estimate(const Input& input,
                                         const InputOptions&) const override {
    if (input.text == "bad") return absl::InvalidArgumentError("bad text");
    return InputEstimate{5, 500, 50, 5000, true, false, 16};
  }

  // Held inputs are answered by the test, or with UNAVAILABLE at the deadline.
  void Drain(absl::Time deadline) override {
    std::vector<Submitted> rest;
    {
      const absl::MutexLock lock(&mutex_);
      draining_ = true;
      const auto none = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return held_.empty();
      };
      mutex_.AwaitWithDeadline(absl::Condition(&none), deadline);
      rest = std::exchange(held_, {});
    }
    for (Submitted& submitted : rest) {
      std::move(submitted.done)(absl::UnavailableError("drain bound"));
    }
  }

  EngineGauges Gauges() const override {
    const absl::MutexLock lock(&mutex_);
    return gauges_;
  }
  const ModelConfig& model_config() const override { return config_; }
  const ModelShape& model_shape() const override { return shape_; }
  const BackendInfo& backend_info() const override { return backend_; }
  uint64_t weight_bytes() const override { return 20; }
  uint64_t dense_equivalent_weight_bytes() const override { return 40; }

 private:
  ModelConfig config_;
  ModelShape shape_;
  BackendInfo backend_;

  mutable absl::Mutex mutex_;
  EngineGauges gauges_ ABSL_GUARDED_BY(mutex_);
  Answerer answerer_ ABSL_GUARDED_BY(mutex_);
  bool hold_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  int submitted_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<Submitted> held_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_SERVER_FAKE_ENGINE_H_
