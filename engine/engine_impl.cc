#include "engine/engine_impl.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/types/span.h"
#include "engine/device_worker.h"
#include "engine/engine.h"
#include "engine/input_encoder.h"
#include "engine/plan/plan.h"
#include "engine/schedule/admission.h"
#include "engine/schedule/batch_scheduler.h"
#include "engine/schedule/byte_budget.h"
#include "engine/schedule/drain_rate.h"
#include "engine/schedule/refusal.h"
#include "engine/schedule/task.h"
#include "engine/tokenizer_pool.h"

namespace svdserve {
namespace {

Observer* ObserverOrNone(Observer* observer) {
  static Observer* const none = new Observer;
  return observer != nullptr ? observer : none;
}

AdmissionLimits LimitsOf(const EngineOptions& options, const ModelShape& shape,
                         const Planner& planner) {
  return {.model_max_tokens = shape.max_tokens,
          .arena_bytes = planner.arena_bytes(),
          .queue_budget_bytes = options.queue_budget_bytes};
}

int BatchTokens(const EngineOptions& options, const Backend& backend) {
  return options.max_batch_tokens > 0 ? options.max_batch_tokens
                                      : backend.info().full_speed_tokens;
}

// A batch must fit each of the devices.
uint64_t ArenaBytes(const EngineParts& parts) {
  uint64_t least = parts.backends.front()->info().arena_bytes;
  for (const auto& backend : parts.backends) {
    least = std::min(least, backend->info().arena_bytes);
  }
  return least;
}

constexpr char kNoDevice[] = "no device is left: try another server";

absl::Status Draining(const char* message) {
  return MakeRefusal(absl::StatusCode::kUnavailable, message,
                     {.reason = RefusalReason::kDraining});
}

// Members are in the order in which they depend on each other; threads come
// last and so end first.
class EngineImpl : public Engine {
 public:
  EngineImpl(const EngineOptions& options, EngineParts parts)
      : parts_(std::move(parts)),
        clock_(parts_.clock),
        observer_(ObserverOrNone(parts_.observer)),
        tokenizer_threads_(options.tokenizer_threads),
        planner_(parts_.shape, parts_.backends.front()->target(),
                 ArenaBytes(parts_)),
        admission_(planner_.cost(), LimitsOf(options, parts_.shape, planner_)),
        encoder_(parts_.tokenizer.get(), &parts_.config, &parts_.shape,
                 parts_.type_vocab, admission_.longest_input()),
        text_budget_(options.text_budget_bytes),
        in_flight_(clock_),
        devices_left_(static_cast<int>(parts_.backends.size())),
        scheduler_(
            {.max_tokens = BatchTokens(options, *parts_.backends.front()),
             .max_inputs = options.max_batch_inputs,
             .gather_window = options.gather_window},
            &admission_, clock_) {
    for (const auto& backend : parts_.backends) {
      workers_.push_back(std::make_unique<DeviceWorker>(
          backend.get(),
          DeviceWorker::Shared{.planner = &planner_,
                               .scheduler = &scheduler_,
                               .admission = &admission_,
                               .clock = clock_,
                               .observer = observer_,
                               .devices = devices_left_,
                               .on_lost = [this] { OnDeviceLost(); }}));
    }
  }

  ~EngineImpl() override {
    EngineImpl::Drain(absl::InfinitePast());
    pool_.reset();
    scheduler_.Stop();
  }

  absl::Status Start() {
    if (admission_.longest_input() < 1) return TooLittleMemory();
    for (const auto& worker : workers_) {
      absl::Status warm = worker->WarmUp(scheduler_.FullRoom());
      if (!warm.ok()) {
        return {warm.code(), absl::StrCat("warm-up failed: ", warm.message())};
      }
    }
    for (const auto& worker : workers_) worker->Start();
    pool_.emplace(tokenizer_threads_,
                  [this](absl::Span<TextJob> jobs, TokenizerScratch* scratch) {
                    Tokenize(jobs, scratch);
                  });
    return absl::OkStatus();
  }

  void SubmitAll(absl::Span<Submission> inputs, const InputOptions& options,
                 const RequestContext& context) override;
  absl::StatusOr<InputEstimate> Estimate(
      const Input& input, const InputOptions& options) const override;
  void Drain(absl::Time deadline) override;
  EngineGauges Gauges() const override;

  const ModelConfig& model_config() const override { return parts_.config; }
  const ModelShape& model_shape() const override { return parts_.shape; }
  const BackendInfo& backend_info() const override {
    return parts_.backends.front()->info();
  }
  uint64_t weight_bytes() const override { return parts_.weight_bytes; }
  uint64_t dense_equivalent_weight_bytes() const override {
    return parts_.dense_equivalent_weight_bytes;
  }

 private:
  absl::Status TooLittleMemory() const;
  void OnDeviceLost();
  std::shared_ptr<InputTask> Accept(InputCallback done, const Input& input,
                                    const InputOptions& options,
                                    const RequestContext& context);
  void AcceptTexts(absl::Span<TextJob> jobs, bool alone);
  void Queue(absl::Span<std::shared_ptr<InputTask>> tasks, int expected);
  void Tokenize(absl::Span<TextJob> jobs, TokenizerScratch* scratch);
  absl::Status EncodeInto(const TextJob& job, TokenizerScratch* scratch);
  absl::StatusOr<Reservation> ReserveText(uint64_t bytes) const;
  absl::StatusOr<int> CountTokens(const Input& input,
                                  const InputOptions& options) const;

  const EngineParts parts_;
  Clock* const clock_;
  Observer* const observer_;
  const int tokenizer_threads_;
  const Planner planner_;
  Admission admission_;
  const InputEncoder encoder_;
  mutable ByteBudget text_budget_;
  DrainRate text_rate_;
  InFlight in_flight_;
  std::atomic<int> devices_left_;
  BatchScheduler scheduler_;
  std::vector<std::unique_ptr<DeviceWorker>> workers_;
  std::optional<TokenizerPool> pool_;
};

absl::Status EngineImpl::TooLittleMemory() const {
  const CostFunction& cost = planner_.cost();
  return absl::InvalidArgumentError(absl::StrFormat(
      "no input can run: one token needs an arena of %d bytes (%d for the "
      "model's longest input) and a queue budget of %d, there are %d and %d",
      cost.fixed_bytes() + cost.ChargeFor(1), planner_.MinimumArenaBytes(),
      cost.ChargeFor(1), planner_.arena_bytes(), admission_.queue().limit()));
}

// Nobody will run what waits once the last device is gone.
void EngineImpl::OnDeviceLost() {
  if (--devices_left_ > 0) return;
  in_flight_.Close();
  in_flight_.FinishAll(Draining(kNoDevice));
}

void EngineImpl::SubmitAll(absl::Span<Submission> inputs,
                           const InputOptions& options,
                           const RequestContext& context) {
  std::vector<std::shared_ptr<InputTask>> ready;  // have ids
  std::vector<TextJob> texts;
  for (Submission& submission : inputs) {
    Input& input = submission.input;
    std::shared_ptr<InputTask> task =
        Accept(std::move(submission.done), input, options, context);
    if (task == nullptr) continue;
    task->work.output = options.output;
    if (!input.ids.empty()) {
      task->work.ids = std::move(input.ids);
      task->work.type_ids = std::move(input.type_ids);
      ready.push_back(std::move(task));
      continue;
    }
    absl::StatusOr<Reservation> bytes =
        ReserveText(InputEncoder::TextBytes(input));
    if (bytes.ok()) {
      texts.push_back({.task = std::move(task),
                       .input = std::move(input),
                       .options = options,
                       .text_bytes = *std::move(bytes)});
    } else {
      task->Finish(bytes.status());
    }
  }
  if (!ready.empty()) Queue(absl::MakeSpan(ready), /*expected=*/0);
  if (!texts.empty()) {
    AcceptTexts(absl::MakeSpan(texts), context.request_inputs == 1);
  }
}

// Null if the input was refused; its caller was told then.
std::shared_ptr<InputTask> EngineImpl::Accept(InputCallback done,
                                              const Input& input,
                                              const InputOptions& options,
                                              const RequestContext& context) {
  auto task = std::make_shared<InputTask>(
      TaskCaller{.deadline = context.deadline,
                 .cancelled = context.cancelled,
                 .flow = context.flow,
                 .request_inputs = context.request_inputs,
                 .done = std::move(done)},
      clock_, observer_);
  absl::Status status;
  if (in_flight_.Enter(task)) {
    status = task->Lapsed(task->accepted_at());
    if (status.ok()) status = encoder_.Check(input, options);
  } else {
    status = Draining(devices_left_ == 0
                          ? kNoDevice
                          : "the engine is draining: try another server");
  }
  if (status.ok()) return task;
  task->Finish(std::move(status));
  return nullptr;
}

void EngineImpl::AcceptTexts(absl::Span<TextJob> jobs, bool alone) {
  scheduler_.Expect(static_cast<int>(jobs.size()));
  if (alone && jobs[0].text_bytes.bytes() <= TokenizerPool::kShortBytes &&
      pool_->idle()) {
    TokenizerScratch scratch;
    Tokenize(jobs, &scratch);
  } else {
    pool_->Push(jobs);
  }
}

// Whose tasks do not fit are finished with the reason.
void EngineImpl::Queue(absl::Span<std::shared_ptr<InputTask>> tasks,
                       int expected) {
  std::vector<absl::Status> statuses = scheduler_.SubmitAll(tasks, expected);
  for (size_t i = 0; i < tasks.size(); ++i) {
    if (!statuses[i].ok()) tasks[i]->Finish(std::move(statuses[i]));
  }
}

absl::StatusOr<Reservation> EngineImpl::ReserveText(uint64_t bytes) const {
  if (std::optional<Reservation> taken = text_budget_.TryReserve(bytes)) {
    return *std::move(taken);
  }
  RefusalDetail detail = {.reason = RefusalReason::kTextBudget,
                          .subject = "text_bytes",
                          .needed_bytes = bytes,
                          .available_bytes = text_budget_.available(),
                          .limit_bytes = text_budget_.limit()};
  if (bytes > detail.limit_bytes) {
    detail.reason = RefusalReason::kTooLarge;
    return MakeRefusal(
        absl::StatusCode::kInvalidArgument,
        absl::StrFormat("the text takes %d bytes of the text budget, which is "
                        "%d: shorten it",
                        bytes, detail.limit_bytes),
        detail);
  }
  detail.retry_after =
      text_rate_.TimeFor(detail.limit_bytes - detail.available_bytes);
  return MakeRefusal(
      absl::StatusCode::kResourceExhausted,
      absl::StrFormat("the text takes %d bytes of the text budget, %d of %d "
                      "are free now; retry in %s",
                      bytes, detail.available_bytes, detail.limit_bytes,
                      absl::FormatDuration(detail.retry_after)),
      detail);
}

// The text's bytes are given back only after the activation bytes are taken, so
// an input is counted in one budget at least at any time.
void EngineImpl::Tokenize(absl::Span<TextJob> jobs, TokenizerScratch* scratch) {
  std::vector<std::shared_ptr<InputTask>> ready;
  ready.reserve(jobs.size());
  uint64_t bytes = 0;
  const absl::Time begin = clock_->Now();
  absl::Time start = begin;
  for (TextJob& job : jobs) {
    absl::Status status = job.task->Lapsed(start);
    if (status.ok()) status = EncodeInto(job, scratch);
    const absl::Time end = clock_->Now();
    if (status.ok()) {
      bytes += job.text_bytes.bytes();
      job.task->work.times.tokenization = end - start;
      ready.push_back(std::move(job.task));
    } else {
      job.text_bytes.Release();
      job.task->Finish(std::move(status));
    }
    start = end;
  }
  text_rate_.Record(bytes, (start - begin) / tokenizer_threads_);
  Queue(absl::MakeSpan(ready), static_cast<int>(jobs.size()));
  for (TextJob& job : jobs) job.text_bytes.Release();
}

absl::Status EngineImpl::EncodeInto(const TextJob& job,
                                    TokenizerScratch* scratch) {
  absl::Status status = encoder_.Encode(job.input, job.options, &scratch->text,
                                        &scratch->encoding);
  if (!status.ok()) return status;
  const Encoding& encoding = scratch->encoding;
  status = admission_.CheckFits(static_cast<int>(encoding.ids.size()));
  if (!status.ok()) return status;
  job.task->work.ids.assign(encoding.ids.begin(), encoding.ids.end());
  job.task->work.type_ids.assign(encoding.type_ids.begin(),
                                 encoding.type_ids.end());
  return absl::OkStatus();
}

absl::StatusOr<int> EngineImpl::CountTokens(const Input& input,
                                            const InputOptions& options) const {
  if (absl::Status s = encoder_.Check(input, options); !s.ok()) return s;
  if (!input.ids.empty()) return static_cast<int>(input.ids.size());
  absl::StatusOr<Reservation> bytes =
      ReserveText(InputEncoder::TextBytes(input));
  if (!bytes.ok()) return bytes.status();
  TokenizerScratch scratch;
  absl::Status s =
      encoder_.Encode(input, options, &scratch.text, &scratch.encoding);
  if (!s.ok()) return s;
  return static_cast<int>(scratch.encoding.ids.size());
}

absl::StatusOr<InputEstimate> EngineImpl::Estimate(
    const Input& input, const InputOptions& options) const {
  const absl::StatusOr<int> tokens = CountTokens(input, options);
  if (!tokens.ok()) return tokens.status();
  InputEstimate estimate;
  estimate.tokens = *tokens;
  estimate.activation_bytes = admission_.cost().ChargeFor(*tokens);
  estimate.fixed_bytes = admission_.cost().fixed_bytes();
  estimate.dense_activation_bytes = planner_.DenseBytes(*tokens);
  estimate.fits = admission_.CheckFits(*tokens).ok();
  estimate.admitted_now = estimate.fits && estimate.activation_bytes <=
                                               admission_.queue().available();
  estimate.longest_input = admission_.longest_input();
  return estimate;
}

void EngineImpl::Drain(absl::Time deadline) {
  in_flight_.Close();
  if (in_flight_.AwaitEmpty(deadline)) return;
  in_flight_.FinishAll(
      Draining("the server stopped before the input could run"));
  // Every task is claimed now; some callbacks may still run on other threads.
  in_flight_.AwaitEmpty(absl::InfiniteFuture());
}

EngineGauges EngineImpl::Gauges() const {
  EngineGauges gauges;
  gauges.healthy = false;
  for (size_t i = 0; i < workers_.size(); ++i) {
    const DeviceWorker& worker = *workers_[i];
    const Backend& backend = *parts_.backends[i];
    gauges.arena_bytes += planner_.arena_bytes();
    gauges.arena_in_use_bytes += worker.arena_in_use();
    gauges.arena_peak_bytes += worker.arena_peak();
    gauges.arena_touched_bytes += worker.arena_touched();
    gauges.healthy |= worker.healthy();
    gauges.devices.push_back({.weight_bytes = backend.info().weight_bytes,
                              .arena_bytes = backend.info().arena_bytes,
                              .other_bytes = backend.OtherDeviceBytes(),
                              .in_service = worker.in_service()});
  }
  gauges.queue_budget_bytes = admission_.queue().limit();
  gauges.queue_reserved_bytes = admission_.queue().reserved();
  gauges.queue_peak_bytes = admission_.queue().peak();
  gauges.text_budget_bytes = text_budget_.limit();
  gauges.text_reserved_bytes = text_budget_.reserved();
  gauges.queued_inputs = scheduler_.size();
  return gauges;
}

absl::Status CheckOptions(const EngineOptions& options,
                          const EngineParts& parts) {
  if (options.tokenizer_threads < 1 || options.max_batch_tokens < 0 ||
      options.max_batch_inputs < 1) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "tokenizer_threads (%d) and max_batch_inputs (%d) must be at least 1, "
        "max_batch_tokens (%d) at least 0",
        options.tokenizer_threads, options.max_batch_inputs,
        options.max_batch_tokens));
  }
  if (parts.tokenizer->vocab_size() > parts.shape.vocab) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "the tokenizer has %d tokens, the model's embedding table %d: they "
        "belong to different models",
        parts.tokenizer->vocab_size(), parts.shape.vocab));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> MakeEngine(const EngineOptions& options,
                                                   EngineParts parts) {
  if (absl::Status s = CheckOptions(options, parts); !s.ok()) return s;
  auto engine = std::make_unique<EngineImpl>(options, std::move(parts));
  if (absl::Status s = engine->Start(); !s.ok()) return s;
  return engine;
}

}  // namespace svdserve
