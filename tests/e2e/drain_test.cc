// kill -TERM under load: nothing that was accepted is lost.
#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <string>
#include <thread>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/e2e/client.h"
#include "tests/e2e/server_process.h"

namespace svdserve {
namespace {

using grpc::health::v1::HealthCheckResponse;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kModel[] = "tests/golden/models/factored";
constexpr int kClients = 4;
constexpr int kCallsBeforeTheSignal = 20;

class DrainTest : public ::testing::Test {
 protected:
  DrainTest() : server_({"--model", kModel}) {}

  // A call is answered in full, or refused; a connection that breaks under a
  // call has lost it.
  static void ExpectAnsweredOrRefused(const grpc::Status& status,
                                      const v1::EmbedResponse& response,
                                      int inputs) {
    if (status.ok()) {
      ASSERT_EQ(response.results_size(), inputs);
      for (const v1::EmbedResult& result : response.results()) {
        if (result.has_embedding()) continue;
        EXPECT_EQ(result.error().code(), grpc::StatusCode::UNAVAILABLE);
      }
      return;
    }
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE)
        << status.error_message();
    EXPECT_THAT(status.error_message(), Not(AnyOf(HasSubstr("Socket closed"),
                                                  HasSubstr("reset by peer"))));
  }

  // Calls without a pause until one is refused.
  void CallUntilRefused(std::atomic<int>* answered) const {
    Client client(server_.grpc_port());
    const v1::EmbedRequest request =
        EmbedOf({"one", "two words", "three more words"});
    grpc::Status status;
    while (status.ok()) {
      v1::EmbedResponse response;
      status = client.Call(request, &response);
      ExpectAnsweredOrRefused(status, response, request.inputs_size());
      if (status.ok()) ++*answered;
    }
  }

  ServerProcess server_;
};

TEST_F(DrainTest, EveryAcceptedRequestIsAnswered) {
  ASSERT_TRUE(server_.AwaitReady()) << server_.Log();
  std::atomic<int> answered{0};
  std::vector<std::thread> clients;
  clients.reserve(kClients);
  for (int i = 0; i < kClients; ++i) {
    clients.emplace_back([&] { CallUntilRefused(&answered); });
  }
  while (answered < kCallsBeforeTheSignal) std::this_thread::yield();
  server_.Signal(SIGTERM);
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(server_.AwaitExit(), 0) << server_.Log();
}

TEST_F(DrainTest, AStreamIsAnsweredAsFarAsItWasRead) {
  ASSERT_TRUE(server_.AwaitReady()) << server_.Log();
  Client client(server_.grpc_port());
  const auto stub = v1::EncoderService::NewStub(client.channel());
  grpc::ClientContext context;
  const auto stream = stub->EmbedStream(&context);
  std::thread writer([&] {
    while (stream->Write(EmbedOf({"again and again"}))) {
    }
  });
  v1::EmbedResponse response;
  int answered = 0;
  while (stream->Read(&response)) {
    EXPECT_TRUE(response.results(0).has_embedding() ||
                response.results(0).error().code() ==
                    grpc::StatusCode::UNAVAILABLE);
    if (++answered == kCallsBeforeTheSignal) server_.Signal(SIGTERM);
  }
  const grpc::Status status = stream->Finish();
  writer.join();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("shutting down"));
  EXPECT_EQ(server_.AwaitExit(), 0) << server_.Log();
}

TEST_F(DrainTest, HealthWatchSeesItFirst) {
  ASSERT_TRUE(server_.AwaitReady()) << server_.Log();
  Client client(server_.grpc_port());
  const auto stub = grpc::health::v1::Health::NewStub(client.channel());
  grpc::ClientContext context;
  const auto watch = stub->Watch(&context, {});
  HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  server_.Signal(SIGTERM);
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(server_.AwaitExit(), 0) << server_.Log();
}

}  // namespace
}  // namespace svdserve
