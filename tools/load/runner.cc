#include "tools/load/runner.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "svdserve/v1/svdserve.grpc.pb.h"
#include "tools/load/lengths.h"

namespace svdserve {
namespace {

using Clock = std::chrono::steady_clock;

// Requests that are made before the start and sent again and again.
constexpr size_t kDistinctRequests = 256;

constexpr double kSpinSeconds = 200e-6;

double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * t.tv_usec;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

LoadStages StagesOf(const v1::Timings& timings) {
  const auto seconds = [](const google::protobuf::Duration& duration) {
    return static_cast<double>(duration.seconds()) + 1e-9 * duration.nanos();
  };
  return {.tokenization = seconds(timings.tokenization()),
          .queue = seconds(timings.queue()),
          .compute = seconds(timings.compute()),
          .server = seconds(timings.total())};
}

struct EmbedMethod {
  using Request = v1::EmbedRequest;
  using Response = v1::EmbedResponse;
  template <typename Done>
  static void Start(v1::EncoderService::Stub* stub,
                    grpc::ClientContext* context, const Request* request,
                    Response* response, Done done) {
    stub->async()->Embed(context, request, response, std::move(done));
  }
  static const v1::Usage& UsageOf(const v1::EmbedResult& result) {
    return result.embedding().usage();
  }
};

struct ClassifyMethod {
  using Request = v1::ClassifyRequest;
  using Response = v1::ClassifyResponse;
  template <typename Done>
  static void Start(v1::EncoderService::Stub* stub,
                    grpc::ClientContext* context, const Request* request,
                    Response* response, Done done) {
    stub->async()->Classify(context, request, response, std::move(done));
  }
  static const v1::Usage& UsageOf(const v1::ClassifyResult& result) {
    return result.classification().usage();
  }
};

template <typename Request>
std::vector<Request> MakeRequests(const LoadOptions& options,
                                  TextSource* source) {
  Random random(options.seed);
  const size_t inputs = options.inputs_per_request;
  const size_t all_lines = (source->lines() + inputs - 1) / inputs;
  std::vector<Request> requests(std::max(kDistinctRequests, all_lines));
  for (Request& request : requests) {
    request.mutable_tokenize()->set_truncate(options.truncate);
    for (size_t i = 0; i < inputs; ++i) {
      request.add_inputs()->set_text(source->Next(random));
    }
  }
  return requests;
}

// gRPC 1.51 shares one completion queue among all callback calls of a process,
// and frees it twice at times when its last channel goes. A channel that has
// made such calls and never goes keeps the queue.
void KeepForEver(std::shared_ptr<grpc::Channel> channel) {
  static const auto* const kept =
      new std::shared_ptr<grpc::Channel>(std::move(channel));
  (void)kept;
}

// One run. Run() may be called once; completions arrive on gRPC's threads.
template <typename Method>
class Runner {
 public:
  Runner(const LoadOptions& options, TextSource* source)
      : options_(options),
        requests_(MakeRequests<typename Method::Request>(options, source)) {
    for (int i = 0; i < options.connections; ++i) {
      const auto channel = NewChannel(options.server.address);
      KeepForEver(channel);
      stubs_.push_back(v1::EncoderService::NewStub(channel));
    }
  }

  LoadResult Run() {
    start_ = Clock::now();
    std::thread meter([this] { MeterCpu(); });
    if (options_.saturate > 0) {
      Saturate();
    } else {
      SendOnSchedule();
    }
    meter.join();
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](int* in_flight) { return *in_flight == 0; }, &in_flight_));
    run_.target_rate = options_.saturate > 0 ? 0 : options_.rate;
    run_.warmup_seconds = options_.warmup_seconds;
    run_.measured_seconds = options_.duration_seconds - options_.warmup_seconds;
    run_.cores = static_cast<int>(std::thread::hardware_concurrency());
    return {.samples = std::move(samples_), .run = run_};
  }

 private:
  struct Call {
    grpc::ClientContext context;
    typename Method::Response response;
    double intended = 0;
  };

  double Elapsed() const {
    return std::chrono::duration<double>(Clock::now() - start_).count();
  }

  // Sleeps, but for the end: a sender that has to wake up sends late by tens of
  // microseconds, which would count as the server's.
  void AwaitArrival(double seconds) const {
    SleepUntil(seconds - kSpinSeconds);
    while (Elapsed() < seconds) {
    }
  }

  void SleepUntil(double seconds) const {
    std::this_thread::sleep_until(start_ +
                                  std::chrono::duration_cast<Clock::duration>(
                                      std::chrono::duration<double>(seconds)));
  }

  // Processor time between the end of the warm-up and the last arrival.
  void MeterCpu() {
    SleepUntil(options_.warmup_seconds);
    const double before = CpuSeconds();
    SleepUntil(options_.duration_seconds);
    const double used = CpuSeconds() - before;
    absl::MutexLock lock(&mutex_);
    run_.client_cpu_seconds = used;
  }

  void SendOnSchedule() {
    ArrivalSchedule schedule(options_.arrivals, options_.rate, options_.seed);
    while (true) {
      const double intended = schedule.Next();
      if (intended >= options_.duration_seconds) return;
      AwaitArrival(intended);
      WaitForRoom();
      Send(intended);
    }
  }

  void WaitForRoom() {
    absl::MutexLock lock(&mutex_);
    if (HasRoom()) return;
    const double before = Elapsed();
    mutex_.Await(absl::Condition(this, &Runner::HasRoom));
    ++run_.limited;
    run_.limited_seconds += Elapsed() - before;
  }

  bool HasRoom() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return in_flight_ < options_.max_in_flight;
  }

  void Saturate() {
    for (int i = 0; i < options_.saturate; ++i) Send(Elapsed());
    SleepUntil(options_.duration_seconds);
  }

  void Send(double intended) {
    size_t number;
    {
      absl::MutexLock lock(&mutex_);
      number = sent_++;
      ++in_flight_;
      if (intended >= options_.warmup_seconds) {
        run_.worst_lag_seconds =
            std::max(run_.worst_lag_seconds, Elapsed() - intended);
      }
    }
    Call* call = new Call;  // deleted by Finish()
    call->intended = intended;
    SetDeadline(options_.server, &call->context);
    Method::Start(stubs_[number % stubs_.size()].get(), &call->context,
                  &requests_[number % requests_.size()], &call->response,
                  [this, call](const grpc::Status& status) {
                    Finish(std::unique_ptr<Call>(call), status);
                  });
  }

  void Finish(std::unique_ptr<Call> call, const grpc::Status& status) {
    const double now = Elapsed();
    LoadSample sample{.code = status.error_code(),
                      .intended_seconds = call->intended,
                      .latency_seconds = now - call->intended};
    for (const auto& result : call->response.results()) {
      if (result.has_error()) continue;
      const v1::Usage& usage = Method::UsageOf(result);
      ++sample.inputs;
      sample.tokens += usage.tokens();
      const LoadStages stages = StagesOf(usage.timings());
      if (stages.server >= sample.stages.server) sample.stages = stages;
    }
    const auto& results = call->response.results();
    if (status.ok() && sample.inputs == 0 && !results.empty()) {
      sample.code = results[0].error().code();
    }
    // The next one first, so that the number in flight never falls to zero.
    if (options_.saturate > 0 && now < options_.duration_seconds) Send(now);
    absl::MutexLock lock(&mutex_);
    samples_.push_back(sample);
    --in_flight_;
  }

  const LoadOptions& options_;
  const std::vector<typename Method::Request> requests_;
  std::vector<std::unique_ptr<v1::EncoderService::Stub>> stubs_;
  Clock::time_point start_;

  absl::Mutex mutex_;
  std::vector<LoadSample> samples_ ABSL_GUARDED_BY(mutex_);
  LoadRun run_ ABSL_GUARDED_BY(mutex_);
  size_t sent_ ABSL_GUARDED_BY(mutex_) = 0;
  int in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace

absl::StatusOr<LoadResult> RunLoad(const LoadOptions& options) {
  // As in the server: it costs each lock of gRPC's another one.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  absl::StatusOr<TextSource> source = TextSource::Parse(options.lengths);
  if (!source.ok()) return source.status();
  const auto channel = Connect(options.server);
  if (!channel.ok()) return channel.status();
  if (options.method == LoadMethod::kClassify) {
    return Runner<ClassifyMethod>(options, &*source).Run();
  }
  return Runner<EmbedMethod>(options, &*source).Run();
}

}  // namespace svdserve
