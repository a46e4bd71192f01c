#include "server/run.h"

#include <grpc/support/log.h>
#include <pthread.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "engine/engine.h"
#include "server/config_values.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/server.h"

namespace svdserve {
namespace {

constexpr absl::Duration kHealthInterval = absl::Milliseconds(500);

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

// The next signal to stop, or 0 if none came in time.
int WaitForStop(absl::Duration timeout) {
  const sigset_t signals = StopSignals();
  const timespec wait = absl::ToTimespec(timeout);
  return std::max(sigtimedwait(&signals, nullptr, &wait), 0);
}

// From here on a signal does what it does by default: it ends the process.
void UnblockStopSignals() {
  const sigset_t signals = StopSignals();
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

// gRPC's own messages become lines of our log.
void LogOfGrpc(gpr_log_func_args* message) {
  const LogLevel level = message->severity == GPR_LOG_SEVERITY_ERROR
                             ? LogLevel::kWarning
                             : LogLevel::kDebug;
  Log(level, "grpc", {{"detail", message->message}});
}

int Fail(ExitCode code, const absl::Status& status) {
  Log(LogLevel::kError, std::string(status.message()),
      {{"code", absl::StatusCodeToString(status.code())}});
  return code;
}

// "36 of 36 matrices factored, ranks 96 to 153", or "dense".
std::string RankSummary(const ModelShape& shape) {
  int least = 0;
  int most = 0;
  int factored = 0;
  for (const LayerShape& l : shape.layers) {
    for (const int rank :
         {l.query, l.key, l.value, l.attention_output, l.ffn_in, l.ffn_out}) {
      if (rank == 0) continue;
      ++factored;
      least = least == 0 ? rank : std::min(least, rank);
      most = std::max(most, rank);
    }
  }
  if (factored == 0) return "dense";
  return absl::StrCat(factored, " of ", 6 * shape.layers.size(),
                      " matrices factored, ranks ", least, " to ", most);
}

// "; heads of 32, 48 columns", or nothing where all are hidden / heads wide.
std::string HeadSummary(const ModelShape& shape) {
  std::set<int> dims;
  for (const LayerShape& layer : shape.layers) {
    dims.insert({shape.query_dim(layer), shape.value_dim(layer)});
  }
  if (dims == std::set<int>{shape.head_dim}) return "";
  return absl::StrCat("; heads of ", absl::StrJoin(dims, ", "), " columns");
}

void LogEngine(const Engine& engine, absl::Duration took) {
  const ModelConfig& config = engine.model_config();
  const ModelShape& shape = engine.model_shape();
  Log(LogLevel::kInfo, "model loaded",
      {{"model", config.name},
       {"task",
        config.task == Task::kEmbedding ? "embedding" : "classification"},
       {"layers", static_cast<int64_t>(shape.layers.size())},
       {"hidden", shape.hidden},
       {"ranks", absl::StrCat(RankSummary(shape), HeadSummary(shape))},
       {"max_tokens", shape.max_tokens},
       {"weights", FormatBytes(engine.weight_bytes())},
       {"dense_equivalent",
        FormatBytes(engine.dense_equivalent_weight_bytes())},
       {"seconds", absl::ToDoubleSeconds(took)}});
  const BackendInfo& backend = engine.backend_info();
  const EngineGauges gauges = engine.Gauges();
  Log(LogLevel::kInfo, "backend ready",
      {{"backend", backend.name},
       {"reason", backend.reason},
       {"dtype", backend.dtype},
       {"mode", backend.mode},
       {"devices", static_cast<int64_t>(gauges.devices.size())},
       {"arena", FormatBytes(gauges.arena_bytes)},
       {"queue_budget", FormatBytes(gauges.queue_budget_bytes)},
       {"text_budget", FormatBytes(gauges.text_budget_bytes)}});
}

// Readers never see half a file: it appears under its name when it is whole.
absl::Status WritePorts(const std::string& file, const Server& server) {
  if (file.empty()) return absl::OkStatus();
  const std::string unfinished = file + ".tmp";
  std::ofstream out(unfinished);
  out << "grpc " << server.grpc_port() << "\nmetrics " << server.metrics_port()
      << "\n";
  out.close();
  if (!out || std::rename(unfinished.c_str(), file.c_str()) != 0) {
    return absl::InternalError(
        absl::StrCat("--ports-file: ", file, " cannot be written"));
  }
  return absl::OkStatus();
}

int Serve(const Config& config, const std::string& ports_file, Engine* engine,
          Metrics* metrics) {
  absl::StatusOr<std::unique_ptr<Server>> server =
      Server::Start(config, engine, metrics);
  if (!server.ok()) return Fail(kExitBind, server.status());
  const absl::Status written = WritePorts(ports_file, **server);
  if (!written.ok()) return Fail(kExitInternal, written);
  Log(LogLevel::kInfo, "serving",
      {{"listen", config.listen},
       {"grpc_port", (*server)->grpc_port()},
       {"metrics_listen", config.metrics_listen},
       {"metrics_port", (*server)->metrics_port()}});

  int signal = 0;
  bool lost = false;
  while (signal == 0 && !lost) {
    signal = WaitForStop(kHealthInterval);
    (*server)->FollowHealth();
    lost = engine->Gauges().AllDevicesLost();
  }
  UnblockStopSignals();
  Log(lost ? LogLevel::kError : LogLevel::kInfo, "draining",
      {{"reason", lost                ? "no device is left"
                  : signal == SIGTERM ? "SIGTERM"
                                      : "SIGINT"},
       {"grace", absl::FormatDuration(config.drain_grace)},
       {"timeout", absl::FormatDuration(config.drain_timeout)}});
  const bool all_answered = (*server)->Drain();
  // Ends with the process: civetweb takes two seconds to stop.
  static_cast<void>(server->release());
  Log(all_answered ? LogLevel::kInfo : LogLevel::kWarning,
      all_answered ? "drained" : "drain bound reached");
  if (lost) return kExitNoDevice;
  return all_answered ? kExitOk : kExitDrainBound;
}

}  // namespace

void BlockStopSignals() {
  const sigset_t signals = StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

int Run(const Config& config, const std::string& ports_file) {
  // Distributions build abseil with its search for deadlocks: then each lock of
  // gRPC's and of ours takes one that the whole process shares.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  SetLog(config.log_format, config.log_level);
  gpr_set_log_function(LogOfGrpc);
  std::signal(SIGPIPE, SIG_IGN);
  Log(LogLevel::kInfo, "starting",
      {{"version", SVDSERVE_VERSION},
       {"model_directory", config.engine.model_directory}});
  Metrics metrics;
  const absl::Time begin = absl::Now();
  absl::StatusOr<std::unique_ptr<Engine>> engine =
      Engine::Create(config.engine, &metrics);
  if (!engine.ok()) {
    return Fail(absl::IsInternal(engine.status()) ? kExitInternal : kExitModel,
                engine.status());
  }
  LogEngine(**engine, absl::Now() - begin);
  const int code = Serve(config, ports_file, engine->get(), &metrics);
  // Everything is answered and logged; destructors would only give memory back
  // to a system that takes it anyway.
  std::quick_exit(code);
}

}  // namespace svdserve
