#include "server/encode_service.h"

#include <gmock/gmock.h>

#include <cmath>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "engine/model/model.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/server/service_fixture.h"
#include "xds/data/orca/v3/orca_load_report.pb.h"

namespace svdserve {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class EncodeServiceTest : public ServiceFixture {
 protected:
  void ExpectRefused(const v1::EmbedRequest& request, grpc::StatusCode code,
                     const std::string& message) {
    const grpc::Status status = Embed(request);
    EXPECT_EQ(status.error_code(), code);
    EXPECT_THAT(status.error_message(), HasSubstr(message));
    EXPECT_EQ(engine_->submitted(), 0);
  }
};

TEST_F(EncodeServiceTest, EmbedAnswersEachInputInItsPlace) {
  ASSERT_TRUE(Embed(EmbedOf({"a", "b", "c"})).ok());
  ASSERT_EQ(response_.results_size(), 3);
  for (int i = 0; i < 3; ++i) {
    const v1::Embedding& embedding = response_.results(i).embedding();
    EXPECT_THAT(embedding.values(), ElementsAre('a' + i, 0.5F, 0.5F, 0.5F));
    EXPECT_EQ(embedding.usage().tokens(), 3);
    EXPECT_EQ(embedding.usage().activation_bytes(), 300);
    EXPECT_EQ(embedding.usage().dense_activation_bytes(), 3000);
    EXPECT_EQ(embedding.usage().timings().total().seconds(), 1);
    EXPECT_EQ(embedding.usage().timings().total().nanos(), 500'000'000);
  }
}

TEST_F(EncodeServiceTest, EveryKindOfInputReachesTheEngine) {
  engine_->Hold();
  v1::EmbedRequest request;
  request.add_inputs()->set_text("t");
  request.add_inputs()->mutable_pair()->set_first("p");
  request.mutable_inputs(1)->mutable_pair()->set_second("q");
  request.add_inputs()->mutable_tokens()->add_ids(7);
  request.mutable_inputs(2)->mutable_tokens()->add_type_ids(1);
  std::thread client([&] { EXPECT_TRUE(Embed(request).ok()); });
  engine_->AwaitHeld(3);
  auto held = engine_->TakeHeld();
  EXPECT_EQ(held[0].input.text, "t");
  EXPECT_EQ(held[0].input.pair, std::nullopt);
  EXPECT_EQ(held[1].input.text, "p");
  EXPECT_EQ(held[1].input.pair, "q");
  EXPECT_THAT(held[2].input.ids, ElementsAre(7));
  EXPECT_THAT(held[2].input.type_ids, ElementsAre(1));
  for (auto& submitted : held) engine_->Answer(std::move(submitted));
  client.join();
}

TEST_F(EncodeServiceTest, OptionsReachTheEngine) {
  std::vector<InputOptions> seen;
  engine_->AnswerWith([&](const Input& input, const InputOptions& options) {
    seen.push_back(options);
    return engine_->AnswerTo(input, options);
  });
  v1::EmbedRequest request = EmbedOf({"a"});
  ASSERT_TRUE(Embed(request).ok());
  request.mutable_tokenize()->set_truncate(true);
  request.mutable_tokenize()->set_truncation_side(v1::TRUNCATION_SIDE_LEFT);
  request.mutable_tokenize()->set_prompt_name("query");
  request.set_normalize(false);
  request.set_dimensions(2);
  ASSERT_TRUE(Embed(request).ok());
  EXPECT_EQ(response_.results(0).embedding().values_size(), 2);

  ASSERT_EQ(seen.size(), 2);
  EXPECT_FALSE(seen[0].truncate);
  EXPECT_EQ(seen[0].side, TruncationSide::kRight);
  EXPECT_EQ(seen[0].prompt, "");
  EXPECT_TRUE(seen[0].output.normalize) << "the model's own setting";
  EXPECT_EQ(seen[0].output.dimensions, 0);
  EXPECT_TRUE(seen[1].truncate);
  EXPECT_EQ(seen[1].side, TruncationSide::kLeft);
  EXPECT_EQ(seen[1].prompt, "query");
  EXPECT_FALSE(seen[1].output.normalize);
  EXPECT_EQ(seen[1].output.dimensions, 2);
}

TEST_F(EncodeServiceTest, OneBadInputDoesNotFailItsCompanions) {
  v1::EmbedRequest request = EmbedOf({"a", "b"});
  request.add_inputs();  // of no kind
  request.add_inputs()->mutable_tokens();
  request.add_inputs()->mutable_tokens()->add_ids(1U << 31);
  auto* uneven = request.add_inputs()->mutable_tokens();
  uneven->add_ids(1);
  uneven->add_ids(2);
  uneven->add_type_ids(0);
  engine_->AnswerWith(
      [&](const Input& input,
          const InputOptions& options) -> absl::StatusOr<InputResult> {
        if (input.text == "b") return QueueFull(absl::Seconds(2));
        return engine_->AnswerTo(input, options);
      });
  ASSERT_TRUE(Embed(request).ok());
  ASSERT_EQ(response_.results_size(), 6);
  EXPECT_TRUE(response_.results(0).has_embedding());
  EXPECT_EQ(response_.results(1).error().code(), 8);
  EXPECT_EQ(response_.results(1).error().details_size(), 2);
  const auto message = [&](int i) {
    EXPECT_EQ(response_.results(i).error().code(), 3);
    return response_.results(i).error().message();
  };
  EXPECT_THAT(message(2), HasSubstr("set one of text, pair, tokens"));
  EXPECT_THAT(message(3), HasSubstr("tokens.ids is empty"));
  EXPECT_THAT(message(4), HasSubstr("2147483648 is not in the vocabulary"));
  EXPECT_THAT(message(5), HasSubstr("1 values for 2 ids"));
}

TEST_F(EncodeServiceTest, TheCallFailsWhenAllInputsWereRefusedForLoad) {
  engine_->AnswerWith([&](const Input& input, const InputOptions&) {
    return QueueFull(absl::Seconds(input.text[0] - 'a'));
  });
  const grpc::Status status = Embed(EmbedOf({"b", "d", "c"}));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Trailer("grpc-retry-pushback-ms"), "3000") << "the longest wait";
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  google::rpc::RetryInfo retry;
  ASSERT_TRUE(details.details(0).UnpackTo(&retry));
  EXPECT_EQ(retry.retry_delay().seconds(), 3);
  EXPECT_THAT(metrics_.Text(),
              HasSubstr("svdserve_inputs_total{code=\"RESOURCE_EXHAUSTED\","
                        "method=\"Embed\"} 3"));
}

TEST_F(EncodeServiceTest, AnInputsOwnFaultIsAnsweredInItsPlaceEvenAlone) {
  engine_->AnswerWith([&](const Input&, const InputOptions&) {
    return absl::InvalidArgumentError("600 tokens; at most 512");
  });
  ASSERT_TRUE(Embed(EmbedOf({"a"})).ok());
  EXPECT_EQ(response_.results(0).error().message(), "600 tokens; at most 512");
}

TEST_F(EncodeServiceTest, AFaultOfTheServerFailsTheCall) {
  engine_->AnswerWith([&](const Input&, const InputOptions&) {
    return absl::InternalError("NaN in the output");
  });
  EXPECT_EQ(Embed(EmbedOf({"a", "b"})).error_code(),
            grpc::StatusCode::INTERNAL);
  EXPECT_EQ(Trailer("grpc-retry-pushback-ms"), "(none)");
}

TEST_F(EncodeServiceTest, WrongRequestsNameTheLimit) {
  constexpr auto kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
  ExpectRefused({}, kInvalid, "inputs is empty; send 1 to 512");
  ExpectRefused(EmbedOf(std::vector<std::string>(513, "a")), kInvalid,
                "inputs has 513 entries; at most 512");
  ExpectRefused(EmbedOf({std::string(9 << 20, 'a')}), kInvalid,
                "at most 8388608 are allowed");
  v1::EmbedRequest request = EmbedOf({"a"});
  request.set_dimensions(0);
  ExpectRefused(request, kInvalid, "dimensions is 0; the model allows 1 to 4");
  request.set_dimensions(5);
  ExpectRefused(request, kInvalid, "dimensions is 5; the model allows 1 to 4");
  request.clear_dimensions();
  request.mutable_tokenize()->set_prompt_name("quary");
  ExpectRefused(request, kInvalid,
                "\"quary\" is unknown; the model has: passage, query");
  request.clear_tokenize();
  request.mutable_tokenize()->set_truncation_side(
      static_cast<v1::TruncationSide>(7));
  ExpectRefused(request, kInvalid, "truncation_side 7 is unknown");
}

TEST_F(EncodeServiceTest, FarTooLargeMessagesAreCutOffByGrpc) {
  ExpectRefused(EmbedOf({std::string(17 << 20, 'a')}),
                grpc::StatusCode::RESOURCE_EXHAUSTED, "larger than max");
}

TEST_F(EncodeServiceTest, TheWrongTaskIsAFailedPrecondition) {
  v1::ClassifyRequest classify;
  classify.add_inputs()->set_text("a");
  v1::ClassifyResponse classes;
  const grpc::Status status = Classify(classify, &classes);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(
      status.error_message(),
      "the method needs a classifier, but \"fake\" is an embedding model");
  v1::RerankRequest rerank;
  rerank.add_texts("a");
  v1::RerankResponse ranks;
  EXPECT_EQ(Rerank(rerank, &ranks).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);

  Serve(Task::kClassification, 3);
  EXPECT_EQ(Embed(EmbedOf({"a"})).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(Rerank(rerank, &ranks).error_message(),
              HasSubstr("needs a classifier with one label"));
}

TEST_F(EncodeServiceTest, ClassifyIsASoftmaxInDescendingOrder) {
  Serve(Task::kClassification, 3);
  engine_->AnswerWith([](const Input&, const InputOptions&) {
    InputResult result;
    result.values = {1000.0F, 1002.0F, 1001.0F};
    return result;
  });
  v1::ClassifyRequest request;
  request.add_inputs()->set_text("x");
  v1::ClassifyResponse response;
  ASSERT_TRUE(Classify(request, &response).ok());
  const auto& scores = response.results(0).classification().scores();
  ASSERT_EQ(scores.size(), 3);
  EXPECT_EQ(scores[0].label(), "b");
  EXPECT_EQ(scores[1].label(), "c");
  EXPECT_EQ(scores[2].label(), "a");
  const double sum = 1 + std::exp(-1) + std::exp(-2);
  EXPECT_NEAR(scores[0].score(), 1 / sum, 1e-6);
  EXPECT_NEAR(scores[2].score(), std::exp(-2) / sum, 1e-6);

  request.set_raw_scores(true);
  ASSERT_TRUE(Classify(request, &response).ok());
  EXPECT_EQ(response.results(0).classification().scores(0).score(), 1002.0F);
}

TEST_F(EncodeServiceTest, OneLabelIsASigmoid) {
  Serve(Task::kClassification, 1);
  v1::ClassifyRequest request;
  request.add_inputs()->mutable_tokens()->add_ids(2);  // its logit
  v1::ClassifyResponse response;
  ASSERT_TRUE(Classify(request, &response).ok());
  const auto& score = response.results(0).classification().scores(0);
  EXPECT_EQ(score.label(), "a");
  EXPECT_NEAR(score.score(), 1 / (1 + std::exp(-2.0)), 1e-6);
}

TEST_F(EncodeServiceTest, RerankSortsPairsOfQueryAndText) {
  Serve(Task::kClassification, 1);
  engine_->AnswerWith([](const Input& input,
                         const InputOptions&) -> absl::StatusOr<InputResult> {
    EXPECT_EQ(input.text, "query");
    if (input.pair == "bad") return absl::InvalidArgumentError("too long");
    InputResult result;
    result.values = {static_cast<float>(input.pair->size())};
    return result;
  });
  v1::RerankRequest request;
  request.set_query("query");
  for (const char* text : {"aa", "bad", "cccc", "dd"}) request.add_texts(text);
  request.set_return_texts(true);
  request.set_raw_scores(true);
  v1::RerankResponse response;
  ASSERT_TRUE(Rerank(request, &response).ok());
  ASSERT_EQ(response.ranks_size(), 3);
  EXPECT_EQ(response.ranks(0).index(), 2);
  EXPECT_EQ(response.ranks(0).text(), "cccc");
  EXPECT_EQ(response.ranks(0).score(), 4);
  EXPECT_EQ(response.ranks(1).index(), 0) << "equal scores keep their order";
  EXPECT_EQ(response.ranks(2).index(), 3);
  ASSERT_EQ(response.errors_size(), 1);
  EXPECT_EQ(response.errors(0).index(), 1);
  EXPECT_EQ(response.errors(0).error().message(), "too long");

  request.clear_return_texts();
  request.clear_raw_scores();
  ASSERT_TRUE(Rerank(request, &response).ok());
  EXPECT_FALSE(response.ranks(0).has_text());
  EXPECT_NEAR(response.ranks(0).score(), 1 / (1 + std::exp(-4.0)), 1e-6);
}

TEST_F(EncodeServiceTest, RerankHasEmbedsLimits) {
  Serve(Task::kClassification, 1);
  v1::RerankRequest request;
  v1::RerankResponse response;
  EXPECT_EQ(Rerank(request, &response).error_message(),
            "texts is empty; send 1 to 512");
  for (int i = 0; i < 513; ++i) request.add_texts("a");
  EXPECT_EQ(Rerank(request, &response).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(EncodeServiceTest, EstimateRunsNothing) {
  v1::EstimateRequest request;
  request.add_inputs()->set_text("a");
  request.add_inputs()->set_text("bad");
  request.add_inputs();
  v1::EstimateResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->Estimate(&context, request, &response).ok());
  ASSERT_EQ(response.results_size(), 3);
  const v1::Estimate& estimate = response.results(0).estimate();
  EXPECT_EQ(estimate.tokens(), 5);
  EXPECT_EQ(estimate.activation_bytes(), 500);
  EXPECT_EQ(estimate.fixed_activation_bytes(), 50);
  EXPECT_EQ(estimate.dense_activation_bytes(), 5000);
  EXPECT_TRUE(estimate.fits());
  EXPECT_FALSE(estimate.admitted_now());
  EXPECT_EQ(estimate.longest_input(), 16);
  EXPECT_EQ(response.results(1).error().message(), "bad text");
  EXPECT_EQ(response.results(2).error().code(), 3);
  EXPECT_EQ(engine_->submitted(), 0);
}

TEST_F(EncodeServiceTest, ModelInfoTellsModelLimitsAndBudgets) {
  v1::GetModelInfoResponse info;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->GetModelInfo(&context, {}, &info).ok());
  EXPECT_EQ(info.model(), "fake");
  EXPECT_EQ(info.task(), v1::MODEL_TASK_EMBEDDING);
  EXPECT_EQ(info.dimensions(), 4);
  EXPECT_THAT(info.prompts(), ElementsAre("passage", "query"));
  ASSERT_EQ(info.layers_size(), 2);
  EXPECT_EQ(info.layers(0).ffn_out(), 6);
  EXPECT_EQ(info.layers(1).query(), 0);
  EXPECT_EQ(info.max_input_tokens(), 16);
  EXPECT_EQ(info.max_inputs_per_request(), 512);
  EXPECT_EQ(info.max_request_bytes(), 8 << 20);
  EXPECT_EQ(info.max_stream_inputs_in_flight(), 256);
  EXPECT_EQ(info.weight_bytes(), 20);
  EXPECT_EQ(info.dense_equivalent_weight_bytes(), 40);
  EXPECT_EQ(info.arena_bytes(), 1000);
  EXPECT_EQ(info.queue_budget_bytes(), 3000);
  EXPECT_EQ(info.backend(), "fake");
  EXPECT_EQ(info.backend_reason(), "a test wants it");
  EXPECT_EQ(info.mode(), "strict");
  EXPECT_EQ(info.server_version(), SVDSERVE_VERSION);
}

// Every width is told, the usual one (64) too.
TEST_F(EncodeServiceTest, ModelInfoTellsTheWidthsOfHeads) {
  const auto model = LoadModel("tests/golden/models/narrow_heads_f16");
  ASSERT_TRUE(model.ok()) << model.status();
  *engine_->mutable_shape() = model->shape;
  v1::GetModelInfoResponse info;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->GetModelInfo(&context, {}, &info).ok());
  ASSERT_EQ(info.layers_size(), 2);
  EXPECT_EQ(info.layers(0).query_head_dim(), 32);
  EXPECT_EQ(info.layers(0).value_head_dim(), 48);
  EXPECT_EQ(info.layers(1).query_head_dim(), 16);
  EXPECT_EQ(info.layers(1).value_head_dim(), 64);
}

TEST_F(EncodeServiceTest, DeadlineAndCancellationReachTheEngine) {
  engine_->Hold();
  context_ = std::make_unique<grpc::ClientContext>();
  const absl::Time deadline = absl::Now() + absl::Minutes(5);
  context_->set_deadline(absl::ToChronoTime(deadline));
  std::thread client([&] {
    EXPECT_EQ(
        stub_->Embed(context_.get(), EmbedOf({"a"}), &response_).error_code(),
        grpc::StatusCode::CANCELLED);
  });
  engine_->AwaitHeld(1);
  auto held = engine_->TakeHeld();
  EXPECT_LT(absl::AbsDuration(held[0].context.deadline - deadline),
            absl::Seconds(5));
  EXPECT_FALSE(held[0].context.cancelled.cancelled());
  context_->TryCancel();
  client.join();
  const absl::Time limit = absl::Now() + absl::Seconds(30);
  while (!held[0].context.cancelled.cancelled() && absl::Now() < limit) {
    std::this_thread::yield();
  }
  EXPECT_TRUE(held[0].context.cancelled.cancelled());
  std::move(held[0].done)(absl::CancelledError("dropped"));
}

TEST_F(EncodeServiceTest, InputsOfOneRequestShareAFlow) {
  engine_->Hold();
  std::vector<uint64_t> flows;
  for (int call = 0; call < 2; ++call) {
    std::thread client([&] { EXPECT_TRUE(Embed(EmbedOf({"a", "b"})).ok()); });
    engine_->AwaitHeld(2);
    for (auto& submitted : engine_->TakeHeld()) {
      flows.push_back(submitted.context.flow);
      engine_->Answer(std::move(submitted));
    }
    client.join();
  }
  EXPECT_NE(flows[0], 0);
  EXPECT_EQ(flows[0], flows[1]);
  EXPECT_EQ(flows[2], flows[3]);
  EXPECT_NE(flows[0], flows[2]);
}

TEST_F(EncodeServiceTest, NoDeadlineIsForever) {
  absl::Time deadline;
  engine_->Hold();
  std::thread client([&] { EXPECT_TRUE(Embed(EmbedOf({"a"})).ok()); });
  engine_->AwaitHeld(1);
  auto held = engine_->TakeHeld();
  deadline = held[0].context.deadline;
  engine_->Answer(std::move(held[0]));
  client.join();
  EXPECT_GT(deadline, absl::Now() + absl::Hours(24 * 365));
}

// Clients of gRPC give the trailer to their load balancer, not to the caller.
TEST(LoadReportTest, TellsTheShareOfTheActivationBudgetInUse) {
  EngineGauges gauges;
  gauges.arena_bytes = 1000;
  gauges.arena_in_use_bytes = 500;
  gauges.queue_budget_bytes = 3000;
  gauges.queue_reserved_bytes = 1500;
  xds::data::orca::v3::OrcaLoadReport report;
  ASSERT_TRUE(report.ParseFromString(LoadReport(gauges)));
  EXPECT_EQ(report.utilization().at("svdserve.activation_budget"), 0.5);
  ASSERT_TRUE(report.ParseFromString(LoadReport({})));
  EXPECT_EQ(report.utilization().at("svdserve.activation_budget"), 0);
}

TEST_F(EncodeServiceTest, RequestsAreCounted) {
  ASSERT_TRUE(Embed(EmbedOf({"a", "b"})).ok());
  Embed({});
  const std::string text = metrics_.Text();
  EXPECT_THAT(
      text,
      HasSubstr("svdserve_requests_total{code=\"OK\",method=\"Embed\"} 1"));
  EXPECT_THAT(text, HasSubstr("svdserve_requests_total{code=\"INVALID_"
                              "ARGUMENT\",method=\"Embed\"} 1"));
  EXPECT_THAT(
      text, HasSubstr("svdserve_inputs_total{code=\"OK\",method=\"Embed\"} 2"));
  EXPECT_THAT(text, HasSubstr("svdserve_request_activation_bytes_sum 600"));
}

}  // namespace
}  // namespace svdserve
