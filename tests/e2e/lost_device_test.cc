// What a server does whose GPUs fail, emulated ones: with one left it serves,
// with none it answers everybody and exits with a code of its own.
#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/e2e/client.h"
#include "tests/e2e/server_process.h"
#include "tests/server/wire_clients.h"

namespace svdserve {
namespace {

using grpc::health::v1::HealthCheckResponse;
using ::testing::Contains;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kModel[] = "tests/golden/models/factored";
constexpr int kExitNoDevice = 71;
constexpr int kClients = 4;
constexpr int kInputs = 3;  // of a call
constexpr int kCallsBeforeTheFault = 20;

class LostDeviceTest : public ::testing::Test {
 protected:
  // With the emulated GPUs of these numbers; "": both.
  void Serve(const std::string& gpus) {
    const std::string config = WriteTempFile("gpus.yaml", R"(
engine:
  device: cuda
  devices: ")" + gpus + R"("
  max_batch_tokens: 256
)");
    server_ = std::make_unique<ServerProcess>(
        std::vector<std::string>{"--config", config, "--model", kModel},
        SVDSERVE_EMULATED_BINARY);
    ASSERT_TRUE(server_->AwaitReady()) << server_->Log();
    EXPECT_THAT(server_->Log(), HasSubstr("backend=cuda"));
    EXPECT_THAT(server_->Log(), HasSubstr("an emulated A100, sm_80, is GPU"));
  }

  // Clients that call without a pause until Stop(), or until the server says
  // that no device is left.
  void StartClients() {
    for (int i = 0; i < kClients; ++i)
      clients_.emplace_back([this] { Call(); });
    AwaitCalls(kCallsBeforeTheFault);
  }
  void AwaitCalls(int more) const {
    const int wanted = answered_ + more;
    while (answered_ < wanted) std::this_thread::yield();
  }
  void Stop() {
    stop_ = true;
    for (std::thread& client : clients_) client.join();
    clients_.clear();
  }

  // What it was that calls failed with.
  std::vector<std::string> TakeFailures() {
    const std::lock_guard lock(mutex_);
    return std::exchange(failures_, {});
  }

  bool Serving() const {
    const Client client(server_->grpc_port());
    const auto stub = grpc::health::v1::Health::NewStub(client.channel());
    grpc::ClientContext context;
    HealthCheckResponse response;
    return stub->Check(&context, {}, &response).ok() &&
           response.status() == HealthCheckResponse::SERVING;
  }

  std::unique_ptr<ServerProcess> server_;

 private:
  void Call() {
    Client client(server_->grpc_port());
    const v1::EmbedRequest request = EmbedOf({"one", "two words", "so, three"});
    while (!stop_) {
      v1::EmbedResponse response;
      const grpc::Status status = client.Call(request, &response);
      if (status.ok()) {
        ++answered_;
        NoteErrors(response);
        continue;
      }
      EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
      Note(status.error_message());
      if (status.error_message().find("failed") == std::string::npos) return;
    }
  }
  // Inputs of one call may be in different batches.
  void NoteErrors(const v1::EmbedResponse& response) {
    for (const v1::EmbedResult& result : response.results()) {
      if (result.has_embedding()) continue;
      EXPECT_EQ(result.error().code(), grpc::StatusCode::UNAVAILABLE);
      Note(result.error().message());
    }
  }
  void Note(const std::string& failure) {
    const std::lock_guard lock(mutex_);
    failures_.push_back(failure);
  }

  std::atomic<int> answered_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> clients_;
  std::mutex mutex_;
  std::vector<std::string> failures_;
};

TEST_F(LostDeviceTest, WithNoneLeftAllAreAnsweredAndTheExitCodeTells) {
  Serve("0");
  Client client(server_->grpc_port());
  const auto stub = grpc::health::v1::Health::NewStub(client.channel());
  grpc::ClientContext context;
  const auto watch = stub->Watch(&context, {});
  HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);

  StartClients();
  server_->Signal(SIGUSR1);
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(server_->AwaitExit(), kExitNoDevice) << server_->Log();
  Stop();
  const std::vector<std::string> failures = TakeFailures();
  EXPECT_THAT(failures, Contains(HasSubstr("the device failed: GPU 0")));
  EXPECT_THAT(failures, Not(Contains(HasSubstr("Socket closed"))));
  EXPECT_THAT(server_->Log(), HasSubstr("no device is left"));
  EXPECT_THAT(server_->Log(), HasSubstr("drained"));
}

TEST_F(LostDeviceTest, WithOneLeftItServesAndMetricsTell) {
  Serve("");
  const std::string before = Scrape(server_->metrics_port());
  EXPECT_THAT(before, HasSubstr("svdserve_device_in_service{device=\"0\"} 1"));
  for (const char* kind : {"weights", "arena", "other"}) {
    for (const char* gpu : {"0", "1"}) {
      const std::string metric =
          std::string("svdserve_device_memory_bytes{device=\"") + gpu +
          "\",kind=\"" + kind + "\"} ";
      EXPECT_THAT(before, HasSubstr(metric));
      EXPECT_THAT(before, Not(HasSubstr(metric + "0\n")));
    }
  }

  StartClients();
  server_->Signal(SIGUSR1);
  std::string metrics;
  do {
    metrics = Scrape(server_->metrics_port());
  } while (metrics.find("svdserve_device_in_service{device=\"0\"} 1") !=
           std::string::npos);
  EXPECT_THAT(metrics, HasSubstr("svdserve_device_in_service{device=\"0\"} 0"));
  EXPECT_THAT(metrics, HasSubstr("svdserve_device_in_service{device=\"1\"} 1"));
  EXPECT_THAT(metrics, HasSubstr("svdserve_healthy 1"));
  AwaitCalls(kCallsBeforeTheFault);
  EXPECT_TRUE(Serving());
  const std::vector<std::string> failures = TakeFailures();
  EXPECT_THAT(failures, Each(HasSubstr("the device failed: GPU 0")));
  EXPECT_GE(failures.size(), 1);
  EXPECT_LE(failures.size(), kClients * kInputs);  // of one call each

  server_->Signal(SIGUSR2);
  EXPECT_EQ(server_->AwaitExit(), kExitNoDevice) << server_->Log();
  Stop();
}

TEST_F(LostDeviceTest, WithAFaultButASignalToStopItDrainsAsEver) {
  Serve("");
  StartClients();
  server_->Signal(SIGUSR2);
  AwaitCalls(kCallsBeforeTheFault);
  server_->Signal(SIGTERM);
  EXPECT_EQ(server_->AwaitExit(), 0) << server_->Log();
  Stop();
}

}  // namespace
}  // namespace svdserve
