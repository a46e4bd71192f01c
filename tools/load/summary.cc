#include "tools/load/summary.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/client/connection.h"

namespace svdserve {
namespace {

Percentiles PercentilesOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {.p50 = Percentile(values, 0.5),
          .p90 = Percentile(values, 0.9),
          .p99 = Percentile(values, 0.99),
          .p999 = Percentile(values, 0.999),
          .max = values.empty() ? 0 : values.back()};
}

nlohmann::ordered_json ToJson(const Percentiles& latency) {
  return {{"p50", latency.p50},
          {"p90", latency.p90},
          {"p99", latency.p99},
          {"p99.9", latency.p999},
          {"max", latency.max}};
}

std::vector<std::pair<std::string, Percentiles>> StagesOf(
    const std::vector<LoadSample>& samples, double warmup_seconds) {
  std::vector<double> tokenization, queue, compute, outside;
  for (const LoadSample& sample : samples) {
    if (sample.intended_seconds < warmup_seconds || sample.inputs == 0)
      continue;
    tokenization.push_back(sample.stages.tokenization);
    queue.push_back(sample.stages.queue);
    compute.push_back(sample.stages.compute);
    outside.push_back(sample.latency_seconds - sample.stages.server);
  }
  if (compute.empty()) return {};
  return {{"tokenization", PercentilesOf(std::move(tokenization))},
          {"queue", PercentilesOf(std::move(queue))},
          {"compute", PercentilesOf(std::move(compute))},
          {"outside_server", PercentilesOf(std::move(outside))}};
}

void AppendRow(std::string_view name, uint64_t requests,
               const Percentiles& seconds, std::string* text) {
  absl::StrAppendFormat(text, "%-20s %9d %9.2f %9.2f %9.2f %9.2f %9.2f\n", name,
                        requests, seconds.p50 * 1e3, seconds.p90 * 1e3,
                        seconds.p99 * 1e3, seconds.p999 * 1e3,
                        seconds.max * 1e3);
}

}  // namespace

double Percentile(const std::vector<double>& sorted, double share) {
  if (sorted.empty()) return 0;
  const double rank = std::ceil(share * static_cast<double>(sorted.size()));
  const size_t index = static_cast<size_t>(std::max(1.0, rank)) - 1;
  return sorted[std::min(index, sorted.size() - 1)];
}

LoadSummary Summarize(const std::vector<LoadSample>& samples,
                      const LoadRun& run) {
  LoadSummary summary;
  summary.run = run;
  std::map<int, std::vector<double>> latencies;
  uint64_t inputs = 0;
  uint64_t tokens = 0;
  for (const LoadSample& sample : samples) {
    if (sample.intended_seconds < run.warmup_seconds) continue;
    ++summary.requests;
    inputs += sample.inputs;
    tokens += sample.tokens;
    latencies[sample.code].push_back(sample.latency_seconds);
  }
  for (auto& [code, values] : latencies) {
    summary.by_code[code].requests = values.size();
    summary.by_code[code].latency = PercentilesOf(std::move(values));
  }
  summary.stages = StagesOf(samples, run.warmup_seconds);
  if (run.measured_seconds <= 0) return summary;
  const double seconds = run.measured_seconds;
  summary.sent_rate = static_cast<double>(summary.requests) / seconds;
  const auto ok = summary.by_code.find(0);
  if (ok != summary.by_code.end()) {
    summary.ok_rate = static_cast<double>(ok->second.requests) / seconds;
  }
  summary.inputs_rate = static_cast<double>(inputs) / seconds;
  summary.tokens_rate = static_cast<double>(tokens) / seconds;
  summary.client_cpu_share = run.client_cpu_seconds / seconds / run.cores;
  return summary;
}

nlohmann::ordered_json ToJson(const LoadSummary& summary) {
  const LoadRun& run = summary.run;
  nlohmann::ordered_json by_status = nlohmann::ordered_json::object();
  for (const auto& [code, status] : summary.by_code) {
    by_status[CodeName(code)] = {{"requests", status.requests},
                                 {"latency_seconds", ToJson(status.latency)}};
  }
  nlohmann::ordered_json stages = nlohmann::ordered_json::object();
  for (const auto& [stage, seconds] : summary.stages) {
    stages[stage] = ToJson(seconds);
  }
  return {{"target_requests_per_second", run.target_rate},
          {"measured_seconds", run.measured_seconds},
          {"requests", summary.requests},
          {"sent_requests_per_second", summary.sent_rate},
          {"ok_requests_per_second", summary.ok_rate},
          {"ok_inputs_per_second", summary.inputs_rate},
          {"ok_tokens_per_second", summary.tokens_rate},
          {"client_cpu_share", summary.client_cpu_share},
          {"cores", run.cores},
          {"in_flight_cap_delayed_requests", run.limited},
          {"in_flight_cap_delay_seconds", run.limited_seconds},
          {"worst_send_lag_seconds", run.worst_lag_seconds},
          {"by_status", std::move(by_status)},
          {"stages_seconds", std::move(stages)}};
}

std::string ToText(const LoadSummary& summary) {
  const LoadRun& run = summary.run;
  std::string text = absl::StrFormat(
      "%d requests in %.1f s: %.1f sent/s, %.1f OK/s, %.1f inputs/s, %.0f "
      "tokens/s\n",
      summary.requests, run.measured_seconds, summary.sent_rate,
      summary.ok_rate, summary.inputs_rate, summary.tokens_rate);
  absl::StrAppendFormat(&text, "%-20s %9s %9s %9s %9s %9s %9s\n",
                        "status; latency ms", "requests", "p50", "p90", "p99",
                        "p99.9", "max");
  for (const auto& [code, status] : summary.by_code) {
    AppendRow(CodeName(code), status.requests, status.latency, &text);
  }
  const auto ok = summary.by_code.find(0);
  for (const auto& [stage, seconds] : summary.stages) {
    AppendRow(absl::StrCat("  ", stage),
              ok == summary.by_code.end() ? 0 : ok->second.requests, seconds,
              &text);
  }
  absl::StrAppendFormat(
      &text, "This client took %.1f %% of %d cores; worst send lag %.2f ms\n",
      summary.client_cpu_share * 100, run.cores, run.worst_lag_seconds * 1e3);
  if (run.limited > 0) {
    absl::StrAppendFormat(
        &text,
        "NOT AN OPEN LOOP: --max-in-flight delayed %d requests by %.2f s "
        "together (latencies include it)\n",
        run.limited, run.limited_seconds);
  }
  return text;
}

}  // namespace svdserve
