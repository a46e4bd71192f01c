#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/engine/engine_fixture.h"

namespace svdserve {
namespace {

using testing::HasSubstr;

class EngineTest : public EngineFixture {};

std::string MessageOf(const absl::Status& status) {
  return std::string(status.message());
}

TEST_F(EngineTest, RunsATextAndSaysWhatItUsed) {
  MustBuild();
  const auto result = Run(TextInput("aab"));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->values.size(), 64);
  EXPECT_EQ(result->values[0], 17 + 17 + 18);
  EXPECT_EQ(result->tokens, 3);
  EXPECT_GT(result->activation_bytes, 0);
  EXPECT_GT(result->dense_activation_bytes, 0);
  EXPECT_GE(result->times.total, result->times.compute);
  EXPECT_EQ(observer_.inputs(absl::StatusCode::kOk), 1);
  const std::vector<BatchStats> batches = observer_.batches();
  ASSERT_EQ(batches.size(), 1);
  EXPECT_EQ(batches[0].tokens, 3);
  EXPECT_LE(batches[0].planned_bytes, batches[0].charged_bytes);
}

TEST_F(EngineTest, RunsPairsAndIds) {
  MustBuild();
  EXPECT_EQ(Run(PairInput("a", "b"))->tokens, 2);
  EXPECT_EQ(Run(PairInput("", "b"))->tokens, 1);
  EXPECT_EQ(Run(IdsInput({5, 6, 7}))->values[0], 18);
  Input typed = IdsInput({5, 6});
  typed.type_ids = {0, 1};
  EXPECT_TRUE(Run(std::move(typed)).ok());
}

TEST_F(EngineTest, WarmsUpBeforeItIsReadyUpToTheLargestBatch) {
  options_.max_batch_tokens = 640;
  MustBuild();
  EXPECT_GE(backend_->launches, 3);
  EXPECT_EQ(backend_->largest_batch, 10);  // 10 x 64 tokens
  EXPECT_EQ(backend_->plans_too_large, 0);
  EXPECT_TRUE(observer_.batches().empty());
}

TEST_F(EngineTest, AWarmUpThatFailsIsAnErrorOfCreate) {
  prepare_ = [this] { backend_->failures_left = 1; };
  const absl::Status status = Build();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(MessageOf(status), HasSubstr("warm-up"));
}

TEST_F(EngineTest, AnArenaForNoTokenIsAnErrorOfCreate) {
  arena_bytes_ = 64;
  const absl::Status status = Build();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(status), HasSubstr("arena"));
}

TEST_F(EngineTest, ATokenizerOfAnotherModelIsAnErrorOfCreate) {
  shape_.vocab = 99;
  EXPECT_EQ(Build().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(EngineTest, BadInputsAreRefusedAtOnceWithWhatWasWrong) {
  MustBuild();
  const auto refused = [&](Input input, InputOptions options = {}) {
    const auto ending = Submit(std::move(input), std::move(options));
    EXPECT_EQ(ending->times(), 1);  // inline
    EXPECT_EQ(ending->code(), absl::StatusCode::kInvalidArgument);
    return MessageOf(ending->status());
  };
  EXPECT_THAT(refused({}), HasSubstr("empty"));
  EXPECT_THAT(refused(PairInput("", "")), HasSubstr("empty"));
  EXPECT_THAT(refused(IdsInput({5, 100})), HasSubstr("id 100 at position 1"));
  EXPECT_THAT(refused(IdsInput({-1})), HasSubstr("0 to 99"));
  Input typed = IdsInput({5, 6});
  typed.type_ids = {0};
  EXPECT_THAT(refused(typed), HasSubstr("1 type ids for 2 ids"));
  typed.type_ids = {0, 2};
  EXPECT_THAT(refused(typed), HasSubstr("type id 2 at position 1"));
  InputOptions options;
  options.prompt = "qurey";
  EXPECT_THAT(refused(TextInput("a"), options), HasSubstr("\"qurey\""));
  options = {};
  options.output.dimensions = 65;
  EXPECT_THAT(refused(TextInput("a"), options), HasSubstr("1 to 64"));
  EXPECT_THAT(refused(IdsInput(std::vector<int32_t>(65, 1))),
              HasSubstr("65 tokens"));
  EXPECT_EQ(observer_.refusals(RefusalReason::kInvalid), 9);
  EXPECT_EQ(observer_.inputs(absl::StatusCode::kInvalidArgument), 9);
}

TEST_F(EngineTest, AModelWithoutTokenTypesTakesPairsAndZeros) {
  type_vocab_ = 1;
  std::vector<uint8_t> types;
  prepare_ = [&] {
    backend_->on_launch = [&](const PackedBatch& batch) {
      types.assign(batch.type_ids.begin(), batch.type_ids.end());
    };
  };
  MustBuild();
  EXPECT_TRUE(Run(PairInput("ab", "cd")).ok());
  EXPECT_EQ(types, std::vector<uint8_t>(4, 0));
  Input typed = IdsInput({5, 6, 7});
  typed.type_ids = {0, 0, 0};
  EXPECT_TRUE(Run(typed).ok());
  typed.type_ids = {0, 1, 1};
  const auto refused = Run(typed);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(refused.status()),
              HasSubstr("type id 1 at position 1 for a model without token "
                        "types: give none, or zeros"));
}

TEST_F(EngineTest, LongTextsAreRefusedOrCut) {
  MustBuild();
  const std::string text = std::string(64, 'a') + std::string(36, 'b');
  const auto refused = Run(TextInput(text));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(refused.status()), HasSubstr("truncate"));
  InputOptions options;
  options.truncate = true;
  EXPECT_EQ(Run(TextInput(text), options)->values[0], 64 * 17);
  options.side = TruncationSide::kLeft;
  EXPECT_EQ(Run(TextInput(text), options)->values[0], 28 * 17 + 36 * 18);
}

TEST_F(EngineTest, TruncationObeysMemoryToo) {
  options_.queue_budget_bytes = 1 << 20;
  MustBuild();
  const auto one = engine_->Estimate(TextInput("a"), {});
  const auto two = engine_->Estimate(TextInput("aa"), {});
  const uint64_t per_token = two->activation_bytes - one->activation_bytes;
  options_.queue_budget_bytes = one->activation_bytes + 9 * per_token;
  MustBuild();
  const std::string text(50, 'a');
  EXPECT_EQ(engine_->Estimate(TextInput(text), {})->longest_input, 10);
  EXPECT_FALSE(engine_->Estimate(TextInput(text), {})->fits);
  const auto refused = Run(TextInput(text));
  EXPECT_EQ(GetRefusal(refused.status())->reason, RefusalReason::kTooLarge);
  InputOptions options;
  options.truncate = true;
  EXPECT_EQ(Run(TextInput(text), options)->tokens, 10);
}

TEST_F(EngineTest, PromptsAreInFrontOfTexts) {
  config_.prompts = {{"query", "aaa"}, {"passage", "b"}};
  config_.default_prompt = "passage";
  MustBuild();
  EXPECT_EQ(Run(TextInput("c"))->values[0], 18 + 19);
  InputOptions options;
  options.prompt = "query";
  EXPECT_EQ(Run(TextInput("c"), options)->values[0], 3 * 17 + 19);
  EXPECT_EQ(Run(PairInput("c", "c"))->tokens, 2);  // pairs: none by default
}

TEST_F(EngineTest, DimensionsCutTheRow) {
  MustBuild();
  InputOptions options;
  options.output.dimensions = 2;
  EXPECT_EQ(Run(TextInput("abc"), options)->values.size(), 2);
}

TEST_F(EngineTest, ANonFiniteOutputFailsOnlyItsInput) {
  MustBuild();
  backend_->Close();
  const auto busy = SubmitText("x");
  backend_->AwaitBusy();
  const auto good = SubmitIds({1, 2});
  const auto bad = SubmitIds({FakeBackend::kNanId});
  const auto other = SubmitIds({3});
  backend_->Open();
  for (const auto& ending : {busy, good, bad, other}) ending->Await();
  EXPECT_TRUE(good->result().ok());
  EXPECT_TRUE(other->result().ok());
  EXPECT_EQ(bad->code(), absl::StatusCode::kInternal);
  EXPECT_THAT(MessageOf(bad->status()), HasSubstr("non-finite"));
  EXPECT_EQ(observer_.batches().size(), 2);  // they ran together
  EXPECT_TRUE(engine_->Gauges().healthy);
}

TEST_F(EngineTest, APoisonedInputDoesNotFailItsCompanions) {
  MustBuild();
  backend_->Close();
  const auto busy = SubmitText("x");
  backend_->AwaitBusy();
  const auto good = SubmitIds({1, 2});
  const auto bad = SubmitIds({FakeBackend::kPoisonId});
  const auto other = SubmitIds({3});
  backend_->Open();
  for (const auto& ending : {busy, good, bad, other}) ending->Await();
  EXPECT_EQ(good->result()->values[0], 3);
  EXPECT_EQ(other->result()->values[0], 3);
  EXPECT_EQ(bad->code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(engine_->Gauges().healthy);
}

TEST_F(EngineTest, AFailingBatchFailsOnlyItself) {
  MustBuild();
  backend_->failures_left = 1;
  EXPECT_EQ(Run(TextInput("a")).status().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(Run(TextInput("a")).ok());
  backend_->collect_failures_left = 1;
  EXPECT_EQ(Run(TextInput("a")).status().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(Run(TextInput("a")).ok());
  EXPECT_TRUE(engine_->Gauges().healthy);
}

TEST_F(EngineTest, SeveralDevicesWorkOffOneQueue) {
  devices_ = 2;
  options_.max_batch_inputs = 1;
  MustBuild();
  const int before = backends_[0]->launches + backends_[1]->launches;
  backends_[0]->Close();
  backends_[1]->Close();
  std::vector<std::shared_ptr<Ending>> endings;
  endings.push_back(SubmitText("a"));
  endings.push_back(SubmitText("b"));
  backends_[0]->AwaitBusy();  // while one is busy the other takes what comes
  backends_[1]->AwaitBusy();
  backends_[0]->Open();
  backends_[1]->Open();
  for (const auto& ending : endings) {
    ending->Await();
    EXPECT_TRUE(ending->result().ok());
  }
  EXPECT_EQ(backends_[0]->launches + backends_[1]->launches, before + 2);
  EXPECT_EQ(engine_->Gauges().devices.size(), 2);
  EXPECT_EQ(engine_->Gauges().arena_bytes, 2 * arena_bytes_);
}

TEST_F(EngineTest, ALostDeviceLeavesTheOtherServing) {
  devices_ = 2;
  MustBuild();
  backends_[1]->lose = true;
  int failed = 0;
  while (!backends_[1]->lost()) {
    const absl::Status status = Run(TextInput("a")).status();
    if (status.ok()) continue;
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    ++failed;
  }
  EXPECT_EQ(failed, 1);
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(Run(TextInput("a")).ok());
  EXPECT_TRUE(engine_->Gauges().healthy);
  EXPECT_FALSE(engine_->Gauges().AllDevicesLost());
}

TEST_F(EngineTest, WithoutADeviceEverythingIsAnsweredUnavailable) {
  slots_ = 2;
  MustBuild();
  backend_->Close();
  std::vector<std::shared_ptr<Ending>> endings;
  for (int i = 0; i < 5; ++i) endings.push_back(SubmitText("a"));
  backend_->AwaitBusy();
  backend_->lose = true;
  backend_->Open();
  for (const auto& ending : endings) {
    ending->Await();
    if (ending->result().ok()) continue;  // was on its way before
    EXPECT_EQ(ending->code(), absl::StatusCode::kUnavailable);
  }
  Run(TextInput("a")).IgnoreError();
  while (!engine_->Gauges().AllDevicesLost()) std::this_thread::yield();
  EXPECT_FALSE(engine_->Gauges().healthy);
  const absl::Status later = Run(TextInput("a")).status();
  EXPECT_EQ(later.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(later.message()), HasSubstr("no device is left"));
}

TEST_F(EngineTest, FailuresInARowAreUnhealthyUntilAProbeSucceeds) {
  ManualClock clock;
  clock_ = &clock;
  MustBuild();
  backend_->failures_left = 4;  // the last one is the first probe's
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(Run(TextInput("a")).ok());
  EXPECT_FALSE(engine_->Gauges().healthy);
  while (!engine_->Gauges().healthy) {
    clock.Advance(absl::Milliseconds(100));
    std::this_thread::yield();
  }
  EXPECT_EQ(backend_->failures_left, 0);
  EXPECT_TRUE(Run(TextInput("a")).ok());
  engine_.reset();  // before its clock
}

TEST_F(EngineTest, TextBeyondItsBudgetIsRefusedAtTheDoor) {
  options_.text_budget_bytes = 2000;  // three short texts
  absl::Mutex mu;
  bool open = false;
  prepare_ = [&] {
    tokenizer_->on_encode = [&] {
      absl::MutexLock lock(&mu);
      mu.Await(absl::Condition(&open));
    };
  };
  MustBuild();
  std::vector<std::shared_ptr<Ending>> accepted;
  for (int i = 0; i < 3; ++i) accepted.push_back(SubmitText("a"));
  const auto refused = SubmitText("a");
  EXPECT_EQ(refused->times(), 1);
  EXPECT_EQ(refused->code(), absl::StatusCode::kResourceExhausted);
  const auto refusal = GetRefusal(refused->status());
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->reason, RefusalReason::kTextBudget);
  EXPECT_EQ(refusal->subject, "text_bytes");
  EXPECT_GT(refusal->retry_after, absl::ZeroDuration());
  const auto never = SubmitText(std::string(3000, 'a'));
  EXPECT_EQ(never->code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(engine_->Gauges().text_reserved_bytes, 3 * 513);
  {
    absl::MutexLock lock(&mu);
    open = true;
  }
  for (const auto& ending : accepted) {
    ending->Await();
    EXPECT_TRUE(ending->result().ok());
  }
  engine_.reset();
}

TEST_F(EngineTest, AShortTextAloneIsTokenizedByItsCaller) {
  std::thread::id where;
  prepare_ = [&] {
    tokenizer_->on_encode = [&] { where = std::this_thread::get_id(); };
  };
  MustBuild();
  RequestContext alone;
  alone.request_inputs = 1;
  InputOptions cut;
  cut.truncate = true;
  const auto run = [&](int length, const RequestContext& context) {
    const auto ending =
        Submit(TextInput(std::string(length, 'a')), cut, context);
    ending->Await();
    EXPECT_TRUE(ending->result().ok());
    return where == std::this_thread::get_id();
  };
  EXPECT_TRUE(run(3, alone));
  EXPECT_FALSE(run(3, {}));
  EXPECT_FALSE(run(8000, alone));
}

TEST_F(EngineTest, AShortTextAloneWaitsItsTurnBehindOthers) {
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<bool> here = false;
  absl::Mutex mu;
  bool open = false;
  prepare_ = [&] {
    tokenizer_->on_encode = [&] {
      if (std::this_thread::get_id() == caller) here = true;
      absl::MutexLock lock(&mu);
      if (!here) mu.Await(absl::Condition(&open));
    };
  };
  MustBuild();
  const auto first = SubmitText("a");
  RequestContext alone;
  alone.request_inputs = 1;
  const auto second = Submit(TextInput("b"), {}, alone);
  EXPECT_FALSE(here);
  {
    absl::MutexLock lock(&mu);
    open = true;
  }
  first->Await();
  second->Await();
  EXPECT_TRUE(second->result().ok());
  engine_.reset();
}

TEST_F(EngineTest, AFullQueueIsRefusedWithARetryHint) {
  MustBuild();
  const uint64_t charge =
      engine_->Estimate(IdsInput({1, 2}), {})->activation_bytes;
  const uint64_t longest =
      engine_->Estimate(IdsInput(std::vector<int32_t>(64, 1)), {})
          ->activation_bytes;
  options_.queue_budget_bytes = longest;
  MustBuild();
  backend_->Close();
  std::vector<std::shared_ptr<Ending>> accepted = {SubmitIds({1, 2})};
  backend_->AwaitBusy();
  for (uint64_t i = 0; i < longest / charge; ++i) {
    accepted.push_back(SubmitIds({1, 2}));
  }
  EXPECT_FALSE(engine_->Estimate(IdsInput({1, 2}), {})->admitted_now);
  const auto refused = SubmitIds({1, 2});
  EXPECT_EQ(refused->code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetRefusal(refused->status())->reason, RefusalReason::kQueueBudget);
  const EngineGauges gauges = engine_->Gauges();
  EXPECT_EQ(gauges.queued_inputs, static_cast<int>(longest / charge));
  EXPECT_EQ(gauges.queue_reserved_bytes, longest / charge * charge);
  backend_->Open();
  for (const auto& ending : accepted) {
    ending->Await();
    EXPECT_TRUE(ending->result().ok());
  }
  EXPECT_TRUE(engine_->Estimate(IdsInput({1, 2}), {})->admitted_now);
}

TEST_F(EngineTest, EstimateRunsNothing) {
  MustBuild();
  const int before = backend_->launches;
  const auto estimate = engine_->Estimate(TextInput("abc"), {});
  ASSERT_TRUE(estimate.ok());
  EXPECT_EQ(estimate->tokens, 3);
  EXPECT_TRUE(estimate->fits);
  EXPECT_TRUE(estimate->admitted_now);
  EXPECT_EQ(estimate->longest_input, 64);
  EXPECT_EQ(estimate->activation_bytes,
            Run(TextInput("abc"))->activation_bytes);
  EXPECT_EQ(backend_->launches, before + 1);
  EXPECT_FALSE(engine_->Estimate({}, {}).ok());
}

TEST_F(EngineTest, ExpiredAndCancelledNeverReachTheDevice) {
  ManualClock clock;
  clock_ = &clock;
  MustBuild();
  backend_->Close();
  const auto busy = SubmitText("x");
  backend_->AwaitBusy();
  const int launches = backend_->launches;
  CancellationSource source;
  RequestContext expiring;
  expiring.deadline = clock.Now() + absl::Seconds(1);
  RequestContext cancellable;
  cancellable.cancelled = source.token();
  const auto expired = Submit(IdsInput({1}), {}, expiring);
  const auto cancelled = Submit(IdsInput({2}), {}, cancellable);
  source.Cancel();
  clock.Advance(absl::Seconds(1));
  const auto dead_on_arrival = Submit(IdsInput({1}), {}, expiring);
  EXPECT_EQ(dead_on_arrival->times(), 1);
  backend_->Open();
  for (const auto& ending : {busy, expired, cancelled}) ending->Await();
  EXPECT_EQ(expired->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(cancelled->code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(backend_->launches, launches + 1);
  EXPECT_EQ(observer_.refusals(RefusalReason::kExpired), 2);
  EXPECT_EQ(observer_.refusals(RefusalReason::kCancelled), 1);
  engine_.reset();
}

TEST_F(EngineTest, CancelledTextIsNotTokenized) {
  absl::Mutex mu;
  bool open = false;
  prepare_ = [&] {
    tokenizer_->on_encode = [&] {
      absl::MutexLock lock(&mu);
      mu.Await(absl::Condition(&open));
    };
  };
  MustBuild();
  const auto first = SubmitText("a");
  while (tokenizer_->encoded == 0) std::this_thread::yield();
  CancellationSource source;
  RequestContext context;
  context.cancelled = source.token();
  const auto second = Submit(TextInput("b"), {}, context);
  source.Cancel();
  {
    absl::MutexLock lock(&mu);
    open = true;
  }
  first->Await();
  second->Await();
  EXPECT_EQ(second->code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(tokenizer_->encoded, 1);
  EXPECT_EQ(engine_->Gauges().text_reserved_bytes, 0);
  engine_.reset();
}

TEST_F(EngineTest, ARequestMaySpreadOverBatches) {
  options_.max_batch_inputs = 4;
  MustBuild();
  RequestContext context;
  context.flow = 9;
  std::vector<std::shared_ptr<Ending>> endings;
  for (int i = 1; i <= 30; ++i) {
    endings.push_back(Submit(IdsInput({i}), {}, context));
  }
  for (int i = 1; i <= 30; ++i) {
    endings[i - 1]->Await();
    EXPECT_EQ(endings[i - 1]->result()->values[0], i);
  }
  EXPECT_LE(backend_->largest_batch, 4);
  EXPECT_GE(observer_.batches().size(), 8);
}

TEST_F(EngineTest, GaugesReturnToZero) {
  MustBuild();
  backend_->Close();
  const auto ending = SubmitText("abc");
  backend_->AwaitBusy();
  backend_->Open();
  ending->Await();
  const EngineGauges gauges = engine_->Gauges();
  EXPECT_EQ(gauges.arena_bytes, arena_bytes_);
  EXPECT_EQ(gauges.arena_in_use_bytes, 0);
  EXPECT_GT(gauges.arena_peak_bytes, 0);
  EXPECT_LE(gauges.arena_peak_bytes, gauges.arena_bytes);
  EXPECT_EQ(gauges.queue_reserved_bytes, 0);
  EXPECT_GT(gauges.queue_peak_bytes, 0);
  EXPECT_EQ(gauges.queued_inputs, 0);
}

TEST_F(EngineTest, DrainFinishesWhatWasAcceptedAndRefusesTheRest) {
  MustBuild();
  backend_->Close();
  const auto running = SubmitText("a");
  backend_->AwaitBusy();
  const auto waiting = SubmitText("b");
  std::thread drain([&] { engine_->Drain(absl::InfiniteFuture()); });
  // Drain() has begun once new inputs are refused.
  while (true) {
    const auto late = SubmitText("c");
    if (late->times() == 0) continue;
    EXPECT_EQ(late->code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(GetRefusal(late->status())->reason, RefusalReason::kDraining);
    break;
  }
  backend_->Open();
  drain.join();
  EXPECT_TRUE(running->result().ok());
  EXPECT_TRUE(waiting->result().ok());
  engine_->Drain(absl::InfiniteFuture());  // again: nothing to do
}

TEST_F(EngineTest, DrainFinishesTheRestAtItsDeadline) {
  ManualClock clock;
  clock_ = &clock;
  MustBuild();
  backend_->Close();
  const auto running = SubmitText("a");
  backend_->AwaitBusy();
  const auto waiting = SubmitText("b");
  std::thread drain([&] { engine_->Drain(clock.Now() + absl::Seconds(10)); });
  while (running->times() == 0) {
    clock.Advance(absl::Seconds(1));
    std::this_thread::yield();
  }
  drain.join();  // although the device is still busy
  EXPECT_EQ(running->code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(waiting->code(), absl::StatusCode::kUnavailable);
  backend_->Open();
  engine_.reset();
  EXPECT_EQ(running->times(), 1);
  EXPECT_EQ(waiting->times(), 1);
}

TEST_F(EngineTest, DestructionFinishesEverything) {
  MustBuild();
  backend_->Close();
  std::vector<std::shared_ptr<Ending>> endings = {SubmitText("a")};
  backend_->AwaitBusy();
  for (int i = 0; i < 20; ++i) endings.push_back(SubmitText("b"));
  FakeBackend* backend = backend_;
  std::thread opener([&] {
    // All are finished while the device is still busy.
    for (const auto& ending : endings) ending->Await();
    backend->Open();
  });
  engine_.reset();
  opener.join();
  for (const auto& ending : endings) {
    EXPECT_EQ(ending->times(), 1);
    EXPECT_EQ(ending->code(), absl::StatusCode::kUnavailable);
  }
}

TEST_F(EngineTest, SlotsOverlap) {
  slots_ = 2;
  options_.max_batch_inputs = 2;
  MustBuild();
  std::vector<std::shared_ptr<Ending>> endings;
  for (int i = 1; i <= 50; ++i) endings.push_back(SubmitIds({i}));
  for (int i = 1; i <= 50; ++i) {
    endings[i - 1]->Await();
    EXPECT_EQ(endings[i - 1]->result()->values[0], i);
  }
  EXPECT_EQ(engine_->Gauges().arena_in_use_bytes, 0);
}

}  // namespace
}  // namespace svdserve
