// How fast the CUDA backend encodes, and in how many bytes; prints JSON.
//
//   encoder_gpu --models tests/bench/gpu_models.json --shapes 32x512,1x128
//
// A shape BxS is B inputs of S random ids, A+B+C+... one input of each of these
// lengths; a model is one of random weights in bf16. Plans are the planner's
// own with the whole arena (planned) and with a share of PyTorch's activation
// bytes (bar), and forced ways: NAME/N runs every step in N chunks. --frontier
// measures all forced ways over all N instead. --fast measures the planned ones
// of few tokens in fast mode, too.
//
// median_ms is the time from one batch's end to the next with all slots busy:
// the device's time, copies included. latency_ms is of one batch alone, from
// Launch() to the end of Collect().
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "engine/device/backend.h"
#include "engine/plan/plan.h"
#include "kernels/cuda/kernel_family.h"
#include "nlohmann/json.hpp"
#include "tests/bench/gpu_models.h"
#include "tests/bench/input_shape.h"
#include "tests/engine/device/random_model.h"

namespace svdserve {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::ordered_json;

struct Options {
  std::string models = "tests/bench/gpu_models.json";
  std::vector<std::string> only;  // "bert-base r50"; empty: all
  std::vector<std::string> shapes = {"1x128",  "8x128",  "32x128", "8x512",
                                     "32x512", "64x512", "8x2048"};
  uint64_t arena_bytes = uint64_t{768} << 20;
  double seconds = 0.1;
  bool frontier = false;
  bool fast = false;
  bool touched = false;
  bool print_plans = false;
  bool portable = false;
};

[[noreturn]] void Die(const std::string& message) {
  std::cerr << "encoder_gpu: " << message << "\n";
  std::exit(1);
}

void DieUnlessOk(const absl::Status& status) {
  if (!status.ok()) Die(status.ToString());
}

InputShape ParseShape(const std::string& text) {
  std::optional<InputShape> shape = ParseInputShape(text);
  if (!shape)
    Die("'" + text + "' is no shape; 32x128 is one, 12+256+7 another");
  return *std::move(shape);
}

// How every layer is to run.
struct ForcedWay {
  const char* name;
  bool fused_attention;
  bool fused_feed_forward;
  bool whole_feed_forward = false;  // where a kernel takes it
  bool mixed() const { return fused_attention != fused_feed_forward; }
};
constexpr ForcedWay kWays[] = {{"whole", true, true, true},
                               {"fused", true, true},
                               {"unfused", false, false},
                               {"fused-att", true, false},
                               {"fused-ffn", false, true}};
constexpr int kAllParts[] = {1, 2, 3, 4, 6, 8, 12, 16, 32};

// A plan to measure, and what came out.
struct Case {
  InputShape shape;
  std::string name;
  Plan plan;
  ordered_json row = {};
};

int CeilDivide(int a, int b) { return (a + b - 1) / b; }

// Steps in `parts` chunks: whole sequences, and whole tiles of rows; of a
// feed-forward by one kernel, which smaller ones would save no byte of, one.
Plan ForcedPlan(const Planner& planner, const InputShape& shape,
                const ForcedWay& way, int parts) {
  constexpr int kRowTile = 128;
  const int sequences = CeilDivide(shape.sequences(), parts);
  const int row_parts = way.whole_feed_forward ? 1 : parts;
  const int rows =
      CeilDivide(CeilDivide(shape.tokens(), row_parts), kRowTile) * kRowTile;
  return planner.MakePlanWith(
      shape.batch(),
      {.rows = std::min(sequences * shape.longest(), shape.tokens()),
       .fused = way.fused_attention,
       .update = parts == 1},
      {.rows = rows,
       .whole = way.whole_feed_forward,
       .fused = way.fused_feed_forward,
       .update = parts == 1});
}

// The bar that peak bytes are held to, as a share of PyTorch's dense forward.
double MemoryBar(const InputShape& shape) {
  return shape.tokens() >= 16384 ? 0.20 : 0.35;
}

// The planner's own plans: in the whole arena, and within the bar, which is the
// same one if it keeps the bar.
void AddPlanned(const Options& options, const ModelShape& model,
                const PlanTarget& target, const InputShape& shape,
                std::vector<Case>* cases) {
  const auto plan_in = [&](uint64_t arena_bytes) {
    return Planner(model, target, arena_bytes).MakePlan(shape.batch());
  };
  const auto planned = plan_in(options.arena_bytes);
  if (planned.ok()) cases->push_back({shape, "planned", *planned});
  const Planner planner(model, target, options.arena_bytes);
  const uint64_t bar = MemoryBar(shape) * planner.DenseBytes(shape.tokens());
  const bool keeps = planned.ok() && planned->peak_bytes <= bar;
  const auto barred = keeps ? planned : plan_in(bar);
  if (barred.ok()) {
    cases->push_back({shape, "bar", *barred});
  } else {
    std::cerr << shape.name << " bar: " << barred.status() << "\n";
  }
}

std::vector<Case> MakeCases(const Options& options, const ModelShape& model,
                            const PlanTarget& target) {
  const Planner planner(model, target, options.arena_bytes);
  const bool dense = model.layers[0] == LayerShape{};
  std::vector<Case> cases;
  for (const std::string& name : options.shapes) {
    const InputShape shape = ParseShape(name);
    if (!options.frontier) {
      AddPlanned(options, model, target, shape, &cases);
    }
    for (const ForcedWay& way : kWays) {
      if (dense && (way.fused_attention || way.fused_feed_forward)) continue;
      if (way.whole_feed_forward && !target.fusion[0].feed_forward_whole) {
        continue;
      }
      int last_sequences = 0;
      for (int parts : kAllParts) {
        const int sequences = CeilDivide(shape.sequences(), parts);
        if (sequences == last_sequences) continue;
        last_sequences = sequences;
        if (!options.frontier && (way.mixed() || (parts != 1 && parts != 4))) {
          continue;
        }
        Plan plan = ForcedPlan(planner, shape, way, parts);
        if (plan.peak_bytes > options.arena_bytes) continue;
        cases.push_back({shape,
                         std::string(way.name) + "/" + std::to_string(parts),
                         std::move(plan)});
      }
    }
  }
  return cases;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Runs single plans on one backend.
class Runner {
 public:
  Runner(Backend& backend, double seconds)
      : backend_(backend), seconds_(seconds) {}

  // Median seconds of a batch alone.
  double Latency(const Plan& plan, const PackedBatch& batch) {
    const auto run = [&] {
      const auto start = Clock::now();
      Launch(0, plan, batch);
      Collect(0);
      return Since(start);
    };
    for (int i = 0; i < 3; ++i) run();  // graphs are captured, clocks rise
    std::vector<double> times;
    for (double total = 0; total < seconds_ || times.size() < 5;) {
      times.push_back(run());
      total += times.back();
    }
    return Median(times);
  }

  // Median seconds from one batch's end to the next, all slots busy.
  double Interval(const Plan& plan, const PackedBatch& batch) {
    const int slots = backend_.slots();
    for (int slot = 0; slot < slots; ++slot) Launch(slot, plan, batch);
    std::vector<double> times;
    double total = 0;
    auto last = Clock::now();
    for (int slot = 0; total < seconds_ || times.size() < 8;
         slot = (slot + 1) % slots) {
      Collect(slot);
      Launch(slot, plan, batch);
      times.push_back(Since(last));
      total += times.back();
      last = Clock::now();
    }
    for (int slot = 0; slot < slots; ++slot) Collect(slot);
    return Median({times.begin() + slots, times.end()});
  }

 private:
  static double Since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  }
  void Launch(int slot, const Plan& plan, const PackedBatch& batch) {
    DieUnlessOk(backend_.Launch(slot, plan, batch));
  }
  void Collect(int slot) { DieUnlessOk(backend_.Collect(slot, &output_)); }

  Backend& backend_;
  const double seconds_;
  BatchOutput output_;
};

PackedBatch RandomBatch(const InputShape& shape, int vocab) {
  std::mt19937 random(1);
  return BatchOf(RandomInputs(random, shape.lengths, vocab));
}

// Plans of growing peaks, so that the bytes touched so far are each one's own.
void MeasureCases(Backend& backend, const ModelShape& model,
                  const Options& options, const ordered_json& head,
                  std::vector<Case>* cases) {
  std::vector<Case*> by_peak;
  for (Case& one : *cases) by_peak.push_back(&one);
  std::stable_sort(by_peak.begin(), by_peak.end(),
                   [](const Case* a, const Case* b) {
                     return a->plan.peak_bytes < b->plan.peak_bytes;
                   });
  Runner runner(backend, options.seconds);
  const Planner planner(model, backend.target(), options.arena_bytes);
  for (Case* one : by_peak) {
    const PackedBatch batch = RandomBatch(one->shape, model.vocab);
    if (options.print_plans) std::cerr << one->plan.ToString();
    const double latency = runner.Latency(one->plan, batch);
    const double interval = runner.Interval(one->plan, batch);
    const double tokens = one->shape.tokens();
    one->row = head;
    one->row.update({{"shape", one->shape.name},
                     {"plan", one->name},
                     {"median_ms", interval * 1e3},
                     {"latency_ms", latency * 1e3},
                     {"predicted_ms", one->plan.predicted_seconds * 1e3},
                     {"tokens_per_second", tokens / interval},
                     {"peak_bytes", one->plan.peak_bytes},
                     {"bytes_per_token", one->plan.peak_bytes / tokens},
                     {"share_of_dense", one->plan.peak_bytes /
                                            (tokens * planner.DenseBytes(1))}});
    if (options.touched) one->row["touched_bytes"] = backend.TouchedBytes();
    std::cerr << one->row.dump() << "\n";
  }
}

absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(const Model& model,
                                                       Mode mode,
                                                       const Options& options) {
  return CreateCudaBackend(model, {.compute = ComputeType::kBF16,
                                   .mode = mode,
                                   .arena_bytes = options.arena_bytes});
}

// What fast mode runs otherwise, if the device has it.
std::vector<Case> MakeFastCases(const Options& options, const ModelShape& model,
                                const PlanTarget& target) {
  std::vector<Case> cases;
  for (const std::string& name : options.shapes) {
    const InputShape shape = ParseShape(name);
    if (shape.tokens() > target.split_sum_rows) continue;
    const auto plan =
        Planner(model, target, options.arena_bytes).MakePlan(shape.batch());
    if (plan.ok()) cases.push_back({shape, "planned", *plan});
  }
  return cases;
}

void MeasureModel(const std::string& name, const std::string& ranks_name,
                  const ordered_json& sizes, const LayerShape& ranks,
                  const Options& options, ordered_json* rows) {
  const std::string full_name = name + " " + ranks_name;
  if (!options.only.empty() &&
      std::find(options.only.begin(), options.only.end(), full_name) ==
          options.only.end()) {
    return;
  }
  const Model model = RandomModel(SizesOf(sizes, ranks));
  for (const Mode mode : {Mode::kStrict, Mode::kFast}) {
    if (mode == Mode::kFast && !options.fast) continue;
    auto backend = CreateBackend(model, mode, options);
    DieUnlessOk(backend.status());
    const PlanTarget target = (*backend)->target();
    std::vector<Case> cases = mode == Mode::kFast
                                  ? MakeFastCases(options, model.shape, target)
                                  : MakeCases(options, model.shape, target);
    MeasureCases(**backend, model.shape, options,
                 {{"model", name},
                  {"ranks", ranks_name},
                  {"mode", (*backend)->info().mode}},
                 &cases);
    for (Case& one : cases) rows->push_back(std::move(one.row));
  }
}

int Run(const Options& options) {
  std::ifstream file(options.models);
  if (!file) Die("cannot read " + options.models);
  const ordered_json models = ordered_json::parse(file);
  std::optional<cuda::ScopedPortableKernels> portable;
  if (options.portable) portable.emplace();
  ordered_json rows = ordered_json::array();
  for (const auto& [name, sizes] : models.items()) {
    for (const auto& [ranks_name, ranks] : sizes.at("ranks").items()) {
      MeasureModel(name, ranks_name, sizes, RanksOf(ranks), options, &rows);
    }
    MeasureModel(name, "dense", sizes, {}, options, &rows);
  }
  cudaDeviceProp device;
  if (cudaGetDeviceProperties(&device, 0) != cudaSuccess) Die("no device");
  const ordered_json result = {
      {"benchmark", "encoder_gpu"},
      {"gpu", {{"name", device.name}}},
      {"dtype", "bfloat16"},
      {"kernels",
       options.portable ? "portable (mma.sync)" : "the device's own"},
      {"arena_bytes", options.arena_bytes},
      {"results", rows}};
  std::cout << result.dump(1) << "\n";
  return 0;
}

}  // namespace
}  // namespace svdserve

int main(int argc, char** argv) {
  svdserve::Options options;
  CLI::App app("Measures the CUDA encoder and prints JSON");
  app.add_option("--models", options.models, "JSON file of model sizes");
  app.add_option("--only", options.only,
                 "'MODEL RANKS' or 'MODEL dense', separated by commas")
      ->delimiter(',');
  app.add_option("--shapes", options.shapes,
                 "BxS or A+B+..., separated by commas")
      ->delimiter(',');
  app.add_option("--arena-bytes", options.arena_bytes, "of each backend");
  app.add_option("--seconds", options.seconds, "time for each figure")
      ->check(CLI::PositiveNumber);
  app.add_flag("--frontier", options.frontier, "all ways in all chunk sizes");
  app.add_flag("--fast", options.fast,
               "also planned plans of few tokens in fast mode");
  app.add_flag("--touched", options.touched,
               "also the bytes that each plan has touched; takes long");
  app.add_flag("--portable", options.portable,
               "kernels of every GPU since Ampere, whatever this one has");
  app.add_flag("--print-plans", options.print_plans, "to stderr");
  CLI11_PARSE(app, argc, argv);
  return svdserve::Run(options);
}
