// Runs a load against a server: open loop (arrivals at a fixed rate, whatever
// the server does) or saturating (always the same number in flight).
//
// Latency counts from the intended send time, so that a slow server or a slow
// client cannot hide requests that should have been sent meanwhile.
//
//   absl::StatusOr<LoadResult> result = RunLoad(options);
//   std::cout << ToText(Summarize(result->samples, result->run));
#ifndef SVDSERVE_TOOLS_LOAD_RUNNER_H_
#define SVDSERVE_TOOLS_LOAD_RUNNER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/client/connection.h"
#include "tools/load/schedule.h"
#include "tools/load/summary.h"

namespace svdserve {

enum class LoadMethod { kEmbed, kClassify };

struct LoadOptions {
  ServerOptions server{.timeout_seconds = 10};
  LoadMethod method = LoadMethod::kEmbed;
  double rate = 0;   // requests a second, in an open loop
  int saturate = 0;  // or so many requests in flight, if not 0
  Arrivals arrivals = Arrivals::kPoisson;
  double duration_seconds = 10;  // of sending, warm-up included
  double warmup_seconds = 0;
  std::string lengths = "uniform:1-512";  // see lengths.h
  int inputs_per_request = 1;
  bool truncate = false;
  int max_in_flight = 4000;
  int connections = 4;
  uint64_t seed = 1;
};

struct LoadResult {
  std::vector<LoadSample> samples;
  LoadRun run;
};

// Blocks until every request is answered or timed out.
absl::StatusOr<LoadResult> RunLoad(const LoadOptions& options);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_LOAD_RUNNER_H_
