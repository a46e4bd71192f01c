// Every method of a real server with small random models, against what Hugging
// Face computes with them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/e2e/client.h"
#include "tests/e2e/server_process.h"
#include "tests/golden/golden.h"
#include "tests/server/wire_clients.h"

namespace svdserve {
namespace {

using ::testing::HasSubstr;

constexpr double kTolerance = 2e-4;  // float32 against float64

class ServeTest : public ::testing::Test {
 protected:
  void Serve(const std::string& model) {
    golden_ = ReadGoldenModel(model);
    server_ = std::make_unique<ServerProcess>(
        std::vector<std::string>{"--model", golden_.directory});
    ASSERT_TRUE(server_->AwaitReady()) << server_->Log();
    client_ = std::make_unique<Client>(server_->grpc_port());
  }

  static v1::Input WireInput(const GoldenInput& golden) {
    v1::Input input;
    if (golden.pair.has_value()) {
      input.mutable_pair()->set_first(golden.text);
      input.mutable_pair()->set_second(*golden.pair);
    } else if (!golden.text.empty()) {
      input.set_text(golden.text);
    } else {
      v1::TokenIds* tokens = input.mutable_tokens();
      tokens->mutable_ids()->Add(golden.ids.begin(), golden.ids.end());
      tokens->mutable_type_ids()->Add(golden.type_ids.begin(),
                                      golden.type_ids.end());
    }
    return input;
  }
  static void ExpectNear(const std::vector<float>& got,
                         const std::vector<double>& wanted) {
    ASSERT_EQ(got.size(), wanted.size());
    for (int i = 0; i < got.size(); ++i) {
      EXPECT_NEAR(got[i], wanted[i], kTolerance * (1 + std::abs(wanted[i])));
    }
  }
  // The golden inputs that need no prompt, as one request.
  v1::EmbedRequest GoldenRequest(std::vector<GoldenInput>* inputs) const {
    v1::EmbedRequest request;
    for (const GoldenInput& input : golden_.inputs) {
      if (!input.prompt.empty()) continue;
      *request.add_inputs() = WireInput(input);
      inputs->push_back(input);
    }
    return request;
  }

  GoldenModel golden_;
  std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<Client> client_;
};

TEST_F(ServeTest, EmbeddingsAreThoseOfHuggingFace) {
  Serve("factored");
  std::vector<GoldenInput> inputs;
  const v1::EmbedRequest request = GoldenRequest(&inputs);
  v1::EmbedResponse response;
  const grpc::Status status = client_->Call(request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  const auto values = ValuesOf(response);
  ASSERT_EQ(values.size(), inputs.size());
  ASSERT_GT(values.size(), 3);
  for (int i = 0; i < values.size(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(response.results(i).error().message(), "");
    ExpectNear(values[i], inputs[i].output);
    EXPECT_EQ(response.results(i).embedding().usage().tokens(),
              inputs[i].ids.size());
  }
}

TEST_F(ServeTest, ClassificationsAreThoseOfHuggingFace) {
  Serve("classify_factored");
  v1::ClassifyRequest request;
  request.set_raw_scores(true);
  for (const GoldenInput& input : golden_.inputs) {
    *request.add_inputs() = WireInput(input);
  }
  v1::ClassifyResponse response;
  const grpc::Status status = client_->Call(request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  v1::GetModelInfoResponse info;
  ASSERT_TRUE(client_->Call(v1::GetModelInfoRequest(), &info).ok());
  for (int i = 0; i < golden_.inputs.size(); ++i) {
    std::vector<float> logits(info.labels_size());
    for (const auto& score : response.results(i).classification().scores()) {
      for (int label = 0; label < logits.size(); ++label) {
        if (info.labels(label) == score.label()) logits[label] = score.score();
      }
    }
    ExpectNear(logits, golden_.inputs[i].output);
  }
}

TEST_F(ServeTest, RerankingScoresPairsAsHuggingFaceDoes) {
  Serve("rerank_1_label");
  int pairs = 0;
  for (const GoldenInput& input : golden_.inputs) {
    if (!input.pair.has_value()) continue;
    ++pairs;
    v1::RerankRequest request;
    request.set_query(input.text);
    request.add_texts(*input.pair);
    request.add_texts(input.text);
    request.set_raw_scores(true);
    v1::RerankResponse response;
    ASSERT_TRUE(client_->Call(request, &response).ok());
    ASSERT_EQ(response.ranks_size(), 2);
    EXPECT_GE(response.ranks(0).score(), response.ranks(1).score());
    for (const v1::Rank& rank : response.ranks()) {
      if (rank.index() == 0) ExpectNear({rank.score()}, input.output);
    }
  }
  EXPECT_GT(pairs, 0);
}

TEST_F(ServeTest, TheStreamGivesEmbedsBitsInOrder) {
  Serve("mean_normalize");
  std::vector<v1::EmbedRequest> requests;
  for (int i = 0; i < 300; ++i) {
    requests.push_back(EmbedOf({absl::StrCat("text number ", i)}));
  }
  std::vector<v1::EmbedResponse> streamed;
  ASSERT_TRUE(client_->Stream(requests, &streamed).ok());
  ASSERT_EQ(streamed.size(), requests.size());
  for (const int i : {0, 1, 150, 299}) {
    v1::EmbedResponse alone;
    ASSERT_TRUE(client_->Call(requests[i], &alone).ok());
    EXPECT_EQ(ValuesOf(streamed[i]), ValuesOf(alone)) << i;
  }
}

// Same text, same bits: alone, in a request of many, beside other clients.
TEST_F(ServeTest, AnOutputDoesNotDependOnItsBatch) {
  Serve("factored");
  std::vector<GoldenInput> inputs;
  const v1::EmbedRequest all = GoldenRequest(&inputs);
  std::vector<std::vector<float>> alone;
  for (const v1::Input& input : all.inputs()) {
    v1::EmbedRequest request;
    *request.add_inputs() = input;
    v1::EmbedResponse response;
    ASSERT_TRUE(client_->Call(request, &response).ok());
    alone.push_back(ValuesOf(response)[0]);
    ASSERT_FALSE(alone.back().empty());
  }
  std::vector<std::thread> clients;
  for (int c = 0; c < 4; ++c) {
    clients.emplace_back([&] {
      Client client(server_->grpc_port());
      for (int i = 0; i < 10; ++i) {
        v1::EmbedResponse response;
        EXPECT_TRUE(client.Call(all, &response).ok());
        EXPECT_EQ(ValuesOf(response), alone) << "every bit";
      }
    });
  }
  for (std::thread& client : clients) client.join();
}

TEST_F(ServeTest, OptionsCutAndNormalize) {
  Serve("mean_normalize");
  v1::EmbedRequest request = EmbedOf({"a cat sat"});
  request.set_dimensions(8);
  v1::EmbedResponse response;
  ASSERT_TRUE(client_->Call(request, &response).ok());
  const std::vector<float> cut = ValuesOf(response)[0];
  ASSERT_EQ(cut.size(), 8);
  double norm = 0;
  for (const float x : cut) norm += x * x;
  EXPECT_NEAR(norm, 1, 1e-5);
}

TEST_F(ServeTest, BadInputsAreAnsweredInTheirPlaces) {
  Serve("factored");
  v1::EmbedRequest request = EmbedOf({"fine"});
  v1::TokenIds* long_input = request.add_inputs()->mutable_tokens();
  for (int i = 0; i < 5000; ++i) long_input->add_ids(5);
  request.add_inputs()->mutable_tokens()->add_ids(1 << 20);
  request.add_inputs()->set_text("fine");
  v1::EmbedResponse response;
  ASSERT_TRUE(client_->Call(request, &response).ok());
  EXPECT_EQ(response.results(1).error().code(), 3);
  EXPECT_THAT(response.results(1).error().message(), HasSubstr("5000"));
  EXPECT_EQ(response.results(2).error().code(), 3);
  EXPECT_THAT(response.results(2).error().message(), HasSubstr("1048576"));
  EXPECT_EQ(ValuesOf(response)[0], ValuesOf(response)[3]);
  EXPECT_FALSE(ValuesOf(response)[0].empty());
}

TEST_F(ServeTest, EstimateIsWhatARunIsCharged) {
  Serve("factored");
  v1::EstimateRequest estimate;
  estimate.add_inputs()->set_text("how much is this?");
  v1::EstimateResponse estimated;
  ASSERT_TRUE(client_->Call(estimate, &estimated).ok());
  v1::EmbedResponse response;
  ASSERT_TRUE(client_->Call(EmbedOf({"how much is this?"}), &response).ok());
  const v1::Usage& usage = response.results(0).embedding().usage();
  const v1::Estimate& estimated_usage = estimated.results(0).estimate();
  EXPECT_EQ(estimated_usage.tokens(), usage.tokens());
  EXPECT_EQ(estimated_usage.activation_bytes(), usage.activation_bytes());
  EXPECT_EQ(estimated_usage.dense_activation_bytes(),
            usage.dense_activation_bytes());
  EXPECT_TRUE(estimated_usage.fits());
  EXPECT_TRUE(estimated_usage.admitted_now());
  EXPECT_GT(usage.activation_bytes(), 0);
}

TEST_F(ServeTest, TheServerDescribesItself) {
  Serve("factored");
  v1::GetModelInfoResponse info;
  ASSERT_TRUE(client_->Call(v1::GetModelInfoRequest(), &info).ok());
  EXPECT_EQ(info.model(), "factored");
  EXPECT_EQ(info.backend(), "cpu");
  EXPECT_EQ(info.mode(), "strict");
  EXPECT_EQ(info.dimensions(), golden_.inputs[0].output.size());
  EXPECT_GT(info.layers(0).query(), 0) << "factored";
  EXPECT_LT(info.weight_bytes(), info.dense_equivalent_weight_bytes());
  EXPECT_GT(info.arena_bytes(), 0);
  EXPECT_THAT(ListServices(client_->channel()),
              HasSubstr("svdserve.v1.EncoderService"));
}

TEST_F(ServeTest, NarrowHeadsAreServedAndDescribed) {
  Serve("narrow_heads_f16");
  std::vector<GoldenInput> inputs;
  v1::EmbedResponse response;
  ASSERT_TRUE(client_->Call(GoldenRequest(&inputs), &response).ok());
  const auto values = ValuesOf(response);
  ASSERT_EQ(values.size(), inputs.size());
  ASSERT_GT(values.size(), 0);
  for (int i = 0; i < values.size(); ++i) {
    SCOPED_TRACE(i);
    ExpectNear(values[i], inputs[i].output);
  }
  v1::GetModelInfoResponse info;
  ASSERT_TRUE(client_->Call(v1::GetModelInfoRequest(), &info).ok());
  EXPECT_EQ(info.layers(0).query_head_dim(), 32);
  EXPECT_EQ(info.layers(0).value_head_dim(), 48);
  EXPECT_EQ(info.layers(1).value_head_dim(), 64);
}

TEST_F(ServeTest, MetricsTellWhatRan) {
  Serve("factored");
  v1::EmbedResponse response;
  ASSERT_TRUE(client_->Call(EmbedOf({"a", "b", "c"}), &response).ok());
  const std::string scraped = Scrape(server_->metrics_port());
  EXPECT_THAT(scraped, HasSubstr("svdserve_inputs_total{code=\"OK\",method="
                                 "\"Embed\"} 3"));
  EXPECT_THAT(scraped, HasSubstr("svdserve_input_tokens_count 3"));
  EXPECT_THAT(scraped, HasSubstr("backend=\"cpu\""));
  EXPECT_THAT(scraped, HasSubstr("svdserve_healthy 1"));
}

}  // namespace
}  // namespace svdserve
