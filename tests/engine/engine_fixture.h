// An engine over fakes, with verbs.
#ifndef SVDSERVE_TESTS_ENGINE_ENGINE_FIXTURE_H_
#define SVDSERVE_TESTS_ENGINE_ENGINE_FIXTURE_H_

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine_impl.h"
#include "engine/schedule/refusal.h"
#include "tests/engine/fakes.h"
#include "tests/engine/schedule/task_maker.h"

namespace svdserve {

// Counts what it is told. Thread-safe.
class CountingObserver : public Observer {
 public:
  void OnInput(const InputStats& stats) override {
    absl::MutexLock lock(&mu_);
    ++inputs_[stats.code];
  }
  void OnRefusal(RefusalReason reason) override {
    absl::MutexLock lock(&mu_);
    ++refusals_[reason];
  }
  void OnBatch(const BatchStats& stats) override {
    absl::MutexLock lock(&mu_);
    batches_.push_back(stats);
  }
  int inputs(absl::StatusCode code) const {
    absl::MutexLock lock(&mu_);
    const auto found = inputs_.find(code);
    return found == inputs_.end() ? 0 : found->second;
  }
  int all_inputs() const {
    absl::MutexLock lock(&mu_);
    int all = 0;
    for (const auto& [code, count] : inputs_) all += count;
    return all;
  }
  void Reset() {
    absl::MutexLock lock(&mu_);
    inputs_.clear();
    refusals_.clear();
    batches_.clear();
  }
  int refusals(RefusalReason reason) const {
    absl::MutexLock lock(&mu_);
    const auto found = refusals_.find(reason);
    return found == refusals_.end() ? 0 : found->second;
  }
  std::vector<BatchStats> batches() const {
    absl::MutexLock lock(&mu_);
    return batches_;
  }

 private:
  mutable absl::Mutex mu_;
  std::map<absl::StatusCode, int> inputs_ ABSL_GUARDED_BY(mu_);
  std::map<RefusalReason, int> refusals_ ABSL_GUARDED_BY(mu_);
  std::vector<BatchStats> batches_ ABSL_GUARDED_BY(mu_);
};

class EngineFixture : public testing::Test {
 protected:
  static ModelShape TinyShape() {
    ModelShape shape;
    shape.hidden = 64;
    shape.heads = 2;
    shape.head_dim = 32;
    shape.intermediate = 128;
    shape.vocab = 100;
    shape.max_positions = 64;
    shape.max_tokens = 64;
    shape.layers.resize(2);
    return shape;
  }

  // Builds the engine; `tokenizer_` and `backend_` point at its fakes.
  absl::Status Build() {
    engine_.reset();
    EngineParts parts;
    backends_.clear();
    for (int i = 0; i < devices_; ++i) {
      parts.backends.push_back(std::make_unique<FakeBackend>(
          shape_.output_width(), arena_bytes_, slots_));
      backends_.push_back(
          static_cast<FakeBackend*>(parts.backends.back().get()));
    }
    backend_ = backends_.front();
    auto tokenizer = std::make_unique<FakeTokenizer>(100);
    tokenizer_ = tokenizer.get();
    if (prepare_) prepare_();
    parts.tokenizer = std::move(tokenizer);
    parts.config = config_;
    parts.shape = shape_;
    parts.type_vocab = type_vocab_;
    parts.observer = &observer_;
    parts.clock = clock_;
    auto engine = MakeEngine(options_, std::move(parts));
    if (!engine.ok()) return engine.status();
    engine_ = *std::move(engine);
    return absl::OkStatus();
  }
  void MustBuild() {
    const absl::Status status = Build();
    ASSERT_TRUE(status.ok()) << status;
  }

  std::shared_ptr<Ending> Submit(Input input, InputOptions options = {},
                                 RequestContext context = {}) {
    auto ending = std::make_shared<Ending>();
    engine_->Submit(std::move(input), options, context,
                    [ending](absl::StatusOr<InputResult> result) {
                      ending->Set(std::move(result));
                    });
    return ending;
  }
  std::shared_ptr<Ending> SubmitText(std::string text) {
    return Submit(TextInput(std::move(text)));
  }
  std::shared_ptr<Ending> SubmitIds(std::vector<int32_t> ids) {
    return Submit(IdsInput(std::move(ids)));
  }
  absl::StatusOr<InputResult> Run(Input input, InputOptions options = {}) {
    const auto ending = Submit(std::move(input), std::move(options));
    ending->Await();
    return ending->result();
  }

  static Input TextInput(std::string text) {
    Input input;
    input.text = std::move(text);
    return input;
  }
  static Input PairInput(std::string text, std::string pair) {
    Input input = TextInput(std::move(text));
    input.pair = std::move(pair);
    return input;
  }
  static Input IdsInput(std::vector<int32_t> ids) {
    Input input;
    input.ids = std::move(ids);
    return input;
  }

  ModelShape shape_ = TinyShape();
  int type_vocab_ = 2;
  ModelConfig config_;
  EngineOptions options_;
  uint64_t arena_bytes_ = 64 << 20;
  int slots_ = 1;
  std::function<void()> prepare_;
  CountingObserver observer_;
  Clock* clock_ = RealClock();
  std::unique_ptr<Engine> engine_;
  int devices_ = 1;
  std::vector<FakeBackend*> backends_;  // [devices_]
  FakeBackend* backend_ = nullptr;      // the first
  FakeTokenizer* tokenizer_ = nullptr;
};

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_ENGINE_ENGINE_FIXTURE_H_
