// How fast the CPU backend encodes, and in how many bytes; prints JSON.
//
//   encoder_cpu --model DIR --compute float32 --threads 2 --shapes 32x128,1x16
//
// A shape BxS is B inputs of S random ids. Each is run for `--seconds` after a
// warm-up; times are medians and minima of single batches, from Launch() to the
// end of Collect(). --sweep measures the planner's choices instead: the time of
// every chunk size for the shapes.
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "engine/device/backend.h"
#include "engine/model/model.h"
#include "engine/plan/plan.h"
#include "nlohmann/json.hpp"

namespace svdserve {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::ordered_json;

struct Options {
  std::string model;
  std::string compute = "float32";
  int threads = 0;
  uint64_t arena_bytes = 0;
  std::vector<std::string> shapes = {"32x128", "1x16", "32x256"};
  double seconds = 2;
  uint32_t seed = 0;
  bool sweep = false;
  bool print_plan = false;
};

[[noreturn]] void Die(const std::string& message) {
  std::cerr << "encoder_cpu: " << message << "\n";
  std::exit(1);
}

std::pair<int, int> ParseShape(const std::string& text) {
  int batch = 0;
  int length = 0;
  char end = 0;
  if (std::sscanf(text.c_str(), "%dx%d%c", &batch, &length, &end) != 2 ||
      batch < 1 || length < 1) {
    Die("'" + text + "' is no shape; 32x128 is one");
  }
  return {batch, length};
}

PackedBatch RandomBatch(int sequences, int length, const ModelShape& shape,
                        uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> ids(0, shape.vocab - 1);
  PackedBatch batch;
  batch.cu_seqlens = {0};
  for (int i = 0; i < sequences; ++i) {
    for (int j = 0; j < length; ++j) batch.ids.push_back(ids(random));
    batch.cu_seqlens.push_back(batch.tokens());
  }
  batch.type_ids.resize(batch.ids.size());
  batch.options.resize(sequences);
  return batch;
}

double CpuSeconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return now.tv_sec + now.tv_nsec * 1e-9;
}

// Seconds of single batches, sorted; some warm-up first. `cpu_seconds` is the
// mean of the processor time of a batch on all threads, waiting in a spin
// included: on a machine that others use too it says more than the clock.
std::vector<double> Measure(Backend& backend, const Plan& plan,
                            const PackedBatch& batch, double seconds,
                            double* cpu_seconds) {
  BatchOutput output;
  const auto run = [&] {
    const auto start = Clock::now();
    absl::Status status = backend.Launch(0, plan, batch);
    if (status.ok()) status = backend.Collect(0, &output);
    if (!status.ok()) Die(status.ToString());
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  double warm = 0;
  while (warm < seconds / 10) warm += run();
  std::vector<double> times;
  const double cpu_start = CpuSeconds();
  double total = 0;
  while (total < seconds || times.size() < 3) {
    times.push_back(run());
    total += times.back();
  }
  *cpu_seconds = (CpuSeconds() - cpu_start) / times.size();
  std::sort(times.begin(), times.end());
  return times;
}

ordered_json MeasureShape(Backend& backend, const Planner& planner,
                          const ModelShape& shape, const Options& options,
                          const std::string& name) {
  const auto [sequences, length] = ParseShape(name);
  const PackedBatch batch = RandomBatch(sequences, length, shape, options.seed);
  const auto plan = planner.MakePlan(batch.Shape());
  if (!plan.ok()) Die(plan.status().ToString());
  if (options.print_plan) std::cerr << plan->ToString();
  double cpu_seconds = 0;
  const std::vector<double> times =
      Measure(backend, *plan, batch, options.seconds, &cpu_seconds);
  const double median = times[times.size() / 2];
  const double tokens = batch.tokens();
  return {{"shape", name},
          {"tokens", batch.tokens()},
          {"runs", times.size()},
          {"median_ms", median * 1e3},
          {"min_ms", times[0] * 1e3},
          {"cpu_ms", cpu_seconds * 1e3},
          {"tokens_per_second", tokens / median},
          {"best_tokens_per_second", tokens / times[0]},
          {"predicted_ms", plan->predicted_seconds * 1e3},
          {"plan_peak_bytes", plan->peak_bytes},
          {"bytes_per_token", plan->peak_bytes / tokens},
          {"dense_bytes_per_token", planner.DenseBytes(1)}};
}

// Every chunking of one phase, with the planner's own for the other one.
void Sweep(Backend& backend, const Planner& planner, const ModelShape& shape,
           const Options& options, const std::string& name,
           ordered_json* rows) {
  const auto [sequences, length] = ParseShape(name);
  const PackedBatch batch = RandomBatch(sequences, length, shape, options.seed);
  const int threads = backend.target().threads;
  const int unit = backend.target().heads_per_panel;
  const auto measure = [&](const Chunking& attention,
                           const Chunking& feed_forward) {
    const Plan plan =
        planner.MakePlanWith(batch.Shape(), attention, feed_forward);
    if (plan.peak_bytes > planner.arena_bytes()) return;
    double cpu_seconds = 0;
    const std::vector<double> times =
        Measure(backend, plan, batch, options.seconds, &cpu_seconds);
    rows->push_back({{"shape", name},
                     {"attention_lanes", attention.lanes},
                     {"attention_rows", attention.rows},
                     {"attention_heads", attention.heads},
                     {"ffn_lanes", feed_forward.lanes},
                     {"ffn_rows", feed_forward.rows},
                     {"median_ms", times[times.size() / 2] * 1e3},
                     {"min_ms", times[0] * 1e3},
                     {"cpu_ms", cpu_seconds * 1e3},
                     {"predicted_ms", plan.predicted_seconds * 1e3},
                     {"plan_peak_bytes", plan.peak_bytes}});
  };
  const int least = (length + 31) / 32 * 32;
  std::vector<int> lanes = {1};
  if (threads > 1) lanes.push_back(threads);
  for (int lane : lanes) {
    for (int rows_per_chunk : {16, 32, 64, 128, 256, 512, 1024}) {
      const int ffn = std::min(rows_per_chunk, batch.tokens());
      measure({lane, std::max(least, 128), shape.heads}, {lane, ffn, 0});
      if (ffn < rows_per_chunk) break;
    }
    for (int rows_per_chunk = least; rows_per_chunk <= 1024;
         rows_per_chunk *= 2) {
      for (int heads = unit; heads <= shape.heads; heads *= 2) {
        measure({lane, rows_per_chunk, heads}, {lane, 64, 0});
      }
      measure({lane, rows_per_chunk, shape.heads}, {lane, 64, 0});
      if (rows_per_chunk >= batch.tokens()) break;
    }
  }
}

int Run(const Options& options) {
  const auto model = LoadModel(options.model);
  if (!model.ok()) Die(model.status().ToString());
  auto backend = CreateCpuBackend(
      *model, {.compute = options.compute == "bfloat16" ? ComputeType::kBF16
                                                        : ComputeType::kF32,
               .threads = options.threads,
               .arena_bytes = options.arena_bytes});
  if (!backend.ok()) Die(backend.status().ToString());
  const BackendInfo& info = (*backend)->info();
  const Planner planner(model->shape, (*backend)->target(), info.arena_bytes);
  ordered_json rows = ordered_json::array();
  for (const std::string& name : options.shapes) {
    if (options.sweep) {
      Sweep(**backend, planner, model->shape, options, name, &rows);
    } else {
      rows.push_back(
          MeasureShape(**backend, planner, model->shape, options, name));
    }
  }
  const ordered_json result = {{"model", model->config.name},
                               {"backend", info.name},
                               {"compute", info.dtype},
                               {"mode", info.mode},
                               {"threads", (*backend)->target().threads},
                               {"weight_bytes", info.weight_bytes},
                               {"arena_bytes", info.arena_bytes},
                               {"seed", options.seed},
                               {"results", rows}};
  std::cout << result.dump(1) << "\n";
  return 0;
}

}  // namespace
}  // namespace svdserve

int main(int argc, char** argv) {
  svdserve::Options options;
  options.seed = std::random_device()();
  CLI::App app("Measures the CPU encoder and prints JSON");
  app.add_option("--model", options.model, "model directory")->required();
  app.add_option("--compute", options.compute, "float32 or bfloat16")
      ->check(CLI::IsMember({"float32", "bfloat16"}));
  app.add_option("--threads", options.threads, "0: all processors")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--arena-bytes", options.arena_bytes, "0: the default");
  app.add_option("--shapes", options.shapes, "BxS, separated by commas")
      ->delimiter(',');
  app.add_option("--seconds", options.seconds, "time for each shape")
      ->check(CLI::PositiveNumber);
  app.add_option("--seed", options.seed, "of the ids; random if not given");
  app.add_flag("--sweep", options.sweep, "measure every chunk size instead");
  app.add_flag("--print-plan", options.print_plan, "plans, to stderr");
  CLI11_PARSE(app, argc, argv);
  return svdserve::Run(options);
}
