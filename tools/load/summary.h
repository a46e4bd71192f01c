// What a load run saw, as numbers.
//
//   LoadSummary summary = Summarize(samples, run);
//   std::cout << ToText(summary) << ToJson(summary).dump(2);
#ifndef SVDSERVE_TOOLS_LOAD_SUMMARY_H_
#define SVDSERVE_TOOLS_LOAD_SUMMARY_H_

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace svdserve {

// Where the time of a request went, in seconds: that of its last input.
struct LoadStages {
  double tokenization = 0;
  double queue = 0;
  double compute = 0;
  double server = 0;  // all of the time that the server says it took
};

// One answered request.
struct LoadSample {
  int code = 0;                 // of the call, or of all its inputs
  double intended_seconds = 0;  // since the start
  double latency_seconds = 0;   // since the intended time
  int inputs = 0;               // answered with a result
  uint64_t tokens = 0;
  LoadStages stages = {};  // of requests with a result
};

// What is known besides the samples.
struct LoadRun {
  double target_rate = 0;         // requests a second; 0 if saturating
  double warmup_seconds = 0;      // what was intended before is left out
  double measured_seconds = 0;    // from the warm-up's end to the last intended
  double client_cpu_seconds = 0;  // of this process, while measured
  int cores = 1;
  uint64_t limited = 0;          // requests that had to wait for the cap
  double limited_seconds = 0;    // how long, together
  double worst_lag_seconds = 0;  // latest send after its intended time
};

struct Percentiles {
  double p50 = 0;
  double p90 = 0;
  double p99 = 0;
  double p999 = 0;
  double max = 0;
};

struct StatusSummary {
  uint64_t requests = 0;
  Percentiles latency;
};

struct LoadSummary {
  LoadRun run;
  uint64_t requests = 0;
  double sent_rate = 0;  // requests a second
  double ok_rate = 0;
  double inputs_rate = 0;
  double tokens_rate = 0;
  double client_cpu_share = 0;  // of all cores
  std::map<int, StatusSummary> by_code;
  // Of requests with a result, by stage; "outside_server" is the rest of
  // the latency: the wire, gRPC and this client.
  std::vector<std::pair<std::string, Percentiles>> stages;
};

// The smallest value that at least `share` of all values do not exceed; 0 if
// there are none. `sorted` ascends.
double Percentile(const std::vector<double>& sorted, double share);

LoadSummary Summarize(const std::vector<LoadSample>& samples,
                      const LoadRun& run);

nlohmann::ordered_json ToJson(const LoadSummary& summary);
std::string ToText(const LoadSummary& summary);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_LOAD_SUMMARY_H_
