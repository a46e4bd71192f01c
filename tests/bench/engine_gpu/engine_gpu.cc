// How many tokens a second the engine encodes on one GPU and on two, and what
// it does when one of the two fails; prints JSON.
//
//   engine_gpu --models tests/bench/gpu_models.json --shape 32x512
//
// Inputs are token ids: neither the tokenizer nor gRPC is in the way. They have
// the lengths of a shape (32x512, or 12+256+7 for mixed ones), again and again;
// a batch is not larger than the shape. So many are submitted ahead that every
// device has its next batch. The fault is injected: the second GPU's runtime
// says that a batch ended with an illegal address, and fails from then on, as
// the real one would.
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <semaphore>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "engine/device/cuda_backend.h"
#include "engine/engine_impl.h"
#include "nlohmann/json.hpp"
#include "tests/bench/gpu_models.h"
#include "tests/bench/input_shape.h"
#include "tests/engine/device/faulty_runtime.h"
#include "tests/engine/fakes.h"

namespace svdserve {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::ordered_json;

struct Options {
  std::string models = "tests/bench/gpu_models.json";
  std::string model = "bert-base";
  std::string ranks = "r50";
  std::string shape = "32x512";
  bool one = false;  // GPU only
  double seconds = 2;
};

[[noreturn]] void Die(const std::string& message) {
  std::cerr << "engine_gpu: " << message << "\n";
  std::exit(1);
}

// Sums up batches. Thread-safe.
class Batches : public Observer {
 public:
  void OnBatch(const BatchStats& stats) override {
    const std::lock_guard lock(mutex_);
    ++count_;
    tokens_ += stats.tokens;
  }
  double MeanTokens() const {
    const std::lock_guard lock(mutex_);
    return 1.0 * tokens_ / std::max(count_, 1);
  }

 private:
  mutable std::mutex mutex_;
  int count_ = 0;
  int64_t tokens_ = 0;
};

// An engine on some GPUs, and a thread that keeps it busy.
class Load {
 public:
  // `devices` are neighbours from number 0, one for each of `faults`.
  Load(const Model& model, const InputShape& shape, std::vector<Faults>* faults)
      : inputs_(Inputs(shape, model.shape.vocab)),
        room_(kBatchesAhead * shape.sequences() *
              static_cast<int>(faults->size())) {
    EngineParts parts;
    for (size_t i = 0; i < faults->size(); ++i) {
      auto runtime = OpenCudaDevice(static_cast<int>(i));
      if (!runtime.ok()) Die(runtime.status().ToString());
      names_.push_back((*runtime)->device().name);
      auto backend = CudaBackend::Create(
          model, {},
          std::make_unique<FaultyRuntime>(*std::move(runtime), &(*faults)[i]));
      if (!backend.ok()) Die(backend.status().ToString());
      parts.backends.push_back(*std::move(backend));
    }
    parts.tokenizer = std::make_unique<FakeTokenizer>(model.shape.vocab);
    parts.config = model.config;
    parts.shape = model.shape;
    parts.observer = &batches_;
    auto engine = MakeEngine({.queue_budget_bytes = uint64_t{8} << 30,
                              .max_batch_tokens = shape.tokens(),
                              .max_batch_inputs = shape.sequences()},
                             std::move(parts));
    if (!engine.ok()) Die(engine.status().ToString());
    engine_ = *std::move(engine);
    feeder_ = std::thread([this] { Feed(); });
  }
  ~Load() {
    stop_ = true;
    room_.release();
    feeder_.join();
    engine_->Drain(absl::InfiniteFuture());
  }

  // Tokens a second over so many seconds from now.
  double TokensPerSecond(double seconds) const {
    const int64_t before = tokens_done_;
    const auto begin = Clock::now();
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    const double took =
        std::chrono::duration<double>(Clock::now() - begin).count();
    return (tokens_done_ - before) / took;
  }
  // Inputs that failed so far, by status.
  std::map<std::string, int> failed() const {
    const std::lock_guard lock(mutex_);
    return failed_;
  }
  const std::vector<std::string>& names() const { return names_; }
  const Batches& batches() const { return batches_; }
  EngineGauges Gauges() const { return engine_->Gauges(); }

 private:
  // One in each of a device's two slots, and two that wait.
  static constexpr int kBatchesAhead = 4;

  static std::vector<std::vector<int32_t>> Inputs(const InputShape& shape,
                                                  int vocab) {
    std::mt19937 random(1);
    return RandomInputs(random, shape.lengths, vocab);
  }

  void Feed() {
    for (size_t i = 0;; ++i) {
      room_.acquire();
      if (stop_) return;
      Input input;
      input.ids = inputs_[i % inputs_.size()];
      engine_->Submit(std::move(input), {}, {},
                      [this](const absl::StatusOr<InputResult>& result) {
                        Count(result);
                        room_.release();
                      });
    }
  }
  void Count(const absl::StatusOr<InputResult>& result) {
    if (result.ok()) {
      tokens_done_ += result->tokens;
      return;
    }
    const std::lock_guard lock(mutex_);
    ++failed_[absl::StatusCodeToString(result.status().code())];
  }

  const std::vector<std::vector<int32_t>> inputs_;
  std::vector<std::string> names_;
  Batches batches_;
  std::unique_ptr<Engine> engine_;
  std::counting_semaphore<> room_;
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> tokens_done_{0};
  mutable std::mutex mutex_;
  std::map<std::string, int> failed_;
  std::thread feeder_;
};

constexpr double kWarmUpSeconds = 0.5;

ordered_json Measure(const Load& load, double seconds) {
  load.TokensPerSecond(kWarmUpSeconds);
  const double speed = load.TokensPerSecond(seconds);
  return {{"gpus", load.names().size()},
          {"tokens_per_second", speed},
          {"mean_batch_tokens", load.batches().MeanTokens()},
          {"failed_inputs", load.failed()}};
}

// The second of two fails while both are busy.
ordered_json MeasureALoss(const Load& load, double seconds, Faults* faults) {
  faults->Inject(Faults::kWait, 1, cudaErrorIllegalAddress);
  ordered_json row = Measure(load, seconds);
  const EngineGauges gauges = load.Gauges();
  row["healthy"] = gauges.healthy;
  row["in_service"] = {gauges.devices[0].in_service,
                       gauges.devices[1].in_service};
  return row;
}

int Run(const Options& options) {
  std::ifstream file(options.models);
  if (!file) Die("cannot read " + options.models);
  const ordered_json sizes = ordered_json::parse(file).at(options.model);
  const std::optional<InputShape> shape = ParseInputShape(options.shape);
  if (!shape) Die("'" + options.shape + "' is no shape; 32x512 is one");
  const Model model =
      RandomModel(SizesOf(sizes, RanksOf(sizes.at("ranks").at(options.ranks))));

  ordered_json rows = ordered_json::array();
  std::vector<std::string> names;
  const auto add = [&](ordered_json row) {
    std::cerr << row.dump() << "\n";
    rows.push_back(std::move(row));
  };
  // One again after two: does it drift?
  for (const int gpus : options.one ? std::vector{1} : std::vector{1, 2, 1}) {
    std::vector<Faults> faults(gpus);
    const Load load(model, *shape, &faults);
    add(Measure(load, options.seconds));
    names = load.names();
    if (gpus == 1) continue;
    add(MeasureALoss(load, options.seconds, &faults[1]));
  }
  const ordered_json result = {
      {"benchmark", "engine_gpu"},
      {"gpu", {{"name", names[0]}, {"count", options.one ? 1 : 2}}},
      {"model", options.model},
      {"ranks", options.ranks},
      {"shape", shape->name},
      {"dtype", "bfloat16"},
      {"results", rows}};
  std::cout << result.dump(1) << "\n";
  return 0;
}

}  // namespace
}  // namespace svdserve

int main(int argc, char** argv) {
  svdserve::Options options;
  CLI::App app("Measures the engine on one GPU and on two, and prints JSON");
  app.add_option("--models", options.models, "JSON file of model sizes");
  app.add_option("--model", options.model, "one of the file");
  app.add_option("--ranks", options.ranks, "one of the model's");
  app.add_option("--shape", options.shape, "BxS, or A+B+...: of a batch");
  app.add_flag("--one", options.one, "one GPU only");
  app.add_option("--seconds", options.seconds, "time for each figure")
      ->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  return svdserve::Run(options);
}
