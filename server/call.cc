#include "server/call.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "engine/schedule/refusal.h"
#include "server/log.h"
#include "server/status_util.h"
#include "xds/data/orca/v3/orca_load_report.pb.h"

namespace svdserve {
namespace {

// Results of one request while they come in, from any thread.
class Gathering {
 public:
  Gathering(size_t inputs, absl::AnyInvocable<void(Results) &&> done)
      : remaining_(inputs),
        results_(inputs, absl::UnknownError("not answered")),
        done_(std::move(done)) {}

  void Answer(size_t index, absl::StatusOr<InputResult> result) {
    results_[index] = std::move(result);
    if (remaining_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      Results results;
      results.swap(results_);
      std::move(done_)(std::move(results));
    }
  }

 private:
  std::atomic<size_t> remaining_;
  Results results_;  // each element is written by one thread, once
  absl::AnyInvocable<void(Results) &&> done_;
};

}  // namespace

void OpenCalls::Opened() {
  metrics_->OnCallOpened();
  const absl::MutexLock lock(&mutex_);
  ++open_;
}

void OpenCalls::Closed() {
  metrics_->OnCallClosed();
  const absl::MutexLock lock(&mutex_);
  --open_;
}

void OpenCalls::AddStream(const std::shared_ptr<DrainableStream>& stream) {
  bool draining = false;
  {
    const absl::MutexLock lock(&mutex_);
    streams_.erase(std::remove_if(streams_.begin(), streams_.end(),
                                  [](const auto& s) { return s.expired(); }),
                   streams_.end());
    streams_.push_back(stream);
    draining = draining_;
  }
  if (draining) stream->StartDrain();
}

void OpenCalls::StartDrain() {
  std::vector<std::weak_ptr<DrainableStream>> streams;
  {
    const absl::MutexLock lock(&mutex_);
    draining_ = true;
    streams.swap(streams_);
  }
  for (const auto& weak : streams) {
    if (const auto stream = weak.lock()) stream->StartDrain();
  }
}

bool OpenCalls::draining() const {
  const absl::MutexLock lock(&mutex_);
  return draining_;
}

bool OpenCalls::WaitUntilNone(absl::Time deadline) {
  const absl::MutexLock lock(&mutex_);
  const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return open_ == 0;
  };
  return mutex_.AwaitWithDeadline(absl::Condition(&none), deadline);
}

RequestContext MakeRequestContext(const grpc::CallbackServerContext& context,
                                  const CancellationSource& cancellation) {
  static std::atomic<uint64_t> calls{0};
  RequestContext result;
  result.deadline = absl::FromChrono(context.deadline());
  result.cancelled = cancellation.token();
  result.flow = ++calls;
  return result;
}

void RunWork(Engine* engine, Work work, RequestContext context,
             absl::AnyInvocable<void(Results) &&> done) {
  context.request_inputs = static_cast<int>(work.inputs.size());
  const auto gathering =
      std::make_shared<Gathering>(work.inputs.size(), std::move(done));
  std::vector<Submission> submissions;
  submissions.reserve(work.inputs.size());
  for (size_t i = 0; i < work.inputs.size(); ++i) {
    absl::StatusOr<Input>& input = work.inputs[i];
    if (!input.ok()) {
      gathering->Answer(i, input.status());
      continue;
    }
    submissions.push_back(
        {.input = *std::move(input), .done = [gathering, i](auto result) {
           gathering->Answer(i, std::move(result));
         }});
  }
  engine->SubmitAll(absl::MakeSpan(submissions), work.options, context);
}

void RecordAnswer(const CallEnvironment& environment,
                  const grpc::CallbackServerContext& context, Method method,
                  const absl::Status& status, const Results& results,
                  absl::Time arrived) {
  const absl::Duration took = absl::Now() - arrived;
  uint64_t activation_bytes = 0;
  absl::Status fault = status;
  for (const auto& result : results) {
    environment.metrics->OnInputAnswered(method, result.status().code());
    if (result.ok()) activation_bytes += result->activation_bytes;
    if (absl::IsInternal(result.status())) fault = result.status();
  }
  environment.metrics->OnRequest(method, status.code(), took, activation_bytes);
  const bool is_fault = absl::IsInternal(fault) || absl::IsUnknown(fault);
  const LogLevel level = is_fault ? LogLevel::kError : LogLevel::kDebug;
  if (!LogEnabled(level)) return;
  LogFields fields = {{"method", MethodName(method)},
                      {"code", CodeName(fault.code())},
                      {"inputs", static_cast<int64_t>(results.size())},
                      {"seconds", absl::ToDoubleSeconds(took)},
                      {"trace_id", TraceId(context)}};
  if (is_fault) fields.emplace_back("error", std::string(fault.message()));
  Log(level, is_fault ? "request failed" : "request", fields);
}

void AddTrailers(const Engine& engine, const absl::Status& status,
                 grpc::CallbackServerContext* context) {
  if (const std::optional<std::string> pushback = RetryPushback(status)) {
    context->AddTrailingMetadata(kRetryPushbackKey, *pushback);
  }
  context->AddTrailingMetadata("endpoint-load-metrics-bin",
                               LoadReport(engine.Gauges()));
}

std::string LoadReport(const EngineGauges& gauges) {
  const double budget = gauges.arena_bytes + gauges.queue_budget_bytes;
  const double in_use = gauges.arena_in_use_bytes + gauges.queue_reserved_bytes;
  xds::data::orca::v3::OrcaLoadReport report;
  (*report.mutable_utilization())["svdserve.activation_budget"] =
      budget > 0 ? in_use / budget : 0;
  return report.SerializeAsString();
}

absl::Status DrainingError() {
  RefusalDetail detail;
  detail.reason = RefusalReason::kDraining;
  return MakeRefusal(absl::StatusCode::kUnavailable,
                     "the server is shutting down; ask another one", detail);
}

std::string TraceId(const grpc::CallbackServerContext& context) {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find("traceparent");
  if (found == metadata.end()) return "";
  // version-traceid-parentid-flags: 2, 32, 16 and 2 hexadecimal digits.
  const std::string value(found->second.data(), found->second.size());
  constexpr char kHex[] = "0123456789abcdef";
  if (value.size() < 55 || value[2] != '-' || value[35] != '-') return "";
  const std::string id = value.substr(3, 32);
  return id.find_first_not_of(kHex) == std::string::npos ? id : "";
}

}  // namespace svdserve
