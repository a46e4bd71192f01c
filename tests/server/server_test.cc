#include "server/server.h"

#include <gmock/gmock.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/server/service_fixture.h"
#include "tests/server/wire_clients.h"

namespace svdserve {
namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using ::testing::HasSubstr;

constexpr char kService[] = "svdserve.v1.EncoderService";

class ServerTest : public ServiceFixture {
 protected:
  HealthCheckResponse::ServingStatus StatusOf(const std::string& service) {
    grpc::ClientContext context;
    HealthCheckRequest request;
    request.set_service(service);
    HealthCheckResponse response;
    const auto stub = Health::NewStub(channel_);
    EXPECT_TRUE(stub->Check(&context, request, &response).ok()) << service;
    return response.status();
  }
  void AwaitDraining() {
    while (!engine_->draining()) std::this_thread::yield();
  }
};

TEST_F(ServerTest, HealthFollowsTheEngineAndRecoversByItself) {
  for (const char* service : {"", kService}) {
    EXPECT_EQ(StatusOf(service), HealthCheckResponse::SERVING);
    engine_->SetHealthy(false);
    server_->FollowHealth();
    EXPECT_EQ(StatusOf(service), HealthCheckResponse::NOT_SERVING);
    engine_->SetHealthy(true);
    server_->FollowHealth();
    EXPECT_EQ(StatusOf(service), HealthCheckResponse::SERVING);
  }
}

TEST_F(ServerTest, HealthWatchSeesTheDrainBeforeCallsAreRefused) {
  const auto stub = Health::NewStub(channel_);
  grpc::ClientContext context;
  HealthCheckRequest request;
  request.set_service(kService);
  const auto watch = stub->Watch(&context, request);
  HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);

  engine_->Hold();
  std::thread client([&] { EXPECT_TRUE(Embed(EmbedOf({"a"})).ok()); });
  engine_->AwaitHeld(1);
  std::thread drain([&] { EXPECT_TRUE(server_->Drain()); });
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  AwaitDraining();
  for (auto& submitted : engine_->TakeHeld()) {
    engine_->Answer(std::move(submitted));
  }
  client.join();
  drain.join();
  server_.reset();
  EXPECT_FALSE(watch->Read(&response));
  watch->Finish();
}

TEST_F(ServerTest, ADrainRefusesNewCallsAndFinishesThoseInFlight) {
  engine_->Hold();
  std::thread client([&] { EXPECT_TRUE(Embed(EmbedOf({"a"})).ok()); });
  engine_->AwaitHeld(1);
  std::thread drain([&] { EXPECT_TRUE(server_->Drain()); });
  AwaitDraining();
  grpc::ClientContext context;
  v1::GetModelInfoResponse info;
  const grpc::Status refused = stub_->GetModelInfo(&context, {}, &info);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(refused.error_message(), HasSubstr("shutting down"));
  for (auto& submitted : engine_->TakeHeld()) {
    engine_->Answer(std::move(submitted));
  }
  client.join();
  drain.join();
}

TEST_F(ServerTest, AtTheDrainsBoundTheRestIsAnsweredUnavailable) {
  Config config;
  config.drain_timeout = absl::Milliseconds(50);
  Serve(Task::kEmbedding, 4, config);
  engine_->Hold();
  std::thread client([&] {
    EXPECT_EQ(Embed(EmbedOf({"a"})).error_code(),
              grpc::StatusCode::UNAVAILABLE);
  });
  engine_->AwaitHeld(1);
  EXPECT_FALSE(server_->Drain());
  client.join();
}

TEST_F(ServerTest, ReflectionListsTheServices) {
  const std::string services = ListServices(channel_);
  EXPECT_THAT(services, HasSubstr(kService));
  EXPECT_THAT(services, HasSubstr("grpc.health.v1.Health"));
}

TEST_F(ServerTest, MetricsAreServedOnTheirOwnPort) {
  metrics_listen_ = "127.0.0.1:0";
  Serve(Task::kEmbedding, 4);
  ASSERT_TRUE(Embed(EmbedOf({"a"})).ok());
  const std::string scraped = Scrape(server_->metrics_port());
  EXPECT_THAT(scraped, HasSubstr("200 OK"));
  EXPECT_THAT(scraped, HasSubstr("svdserve_arena_budget_bytes 1000"));
  EXPECT_THAT(
      scraped,
      HasSubstr("svdserve_requests_total{code=\"OK\",method=\"Embed\"} 1"));
}

TEST_F(ServerTest, ATakenPortIsAnErrorThatNamesIt) {
  const std::string taken = absl::StrCat("127.0.0.1:", server_->grpc_port());
  Metrics metrics;
  Config config;
  config.listen = taken;
  config.metrics_listen.clear();
  EXPECT_THAT(
      std::string(
          Server::Start(config, engine_.get(), &metrics).status().message()),
      HasSubstr("server.listen: cannot listen on " + taken));
  config.listen = "127.0.0.1:0";
  config.metrics_listen = taken;
  EXPECT_THAT(
      std::string(
          Server::Start(config, engine_.get(), &metrics).status().message()),
      HasSubstr("metrics.listen: cannot listen on " + taken));
}

}  // namespace
}  // namespace svdserve
