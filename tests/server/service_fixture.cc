#include "tests/server/service_fixture.h"

#include <grpcpp/create_channel.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/schedule/refusal.h"

namespace svdserve {

void ServiceFixture::SetUp() { Serve(Task::kEmbedding, 4); }

void ServiceFixture::Serve(Task task, int width) {
  Config config;
  Serve(task, width, config);
}

void ServiceFixture::Serve(Task task, int width, Config config) {
  server_.reset();
  engine_ = std::make_unique<FakeEngine>(task, width);
  config.listen = "127.0.0.1:0";
  config.metrics_listen = metrics_listen_;
  auto server = Server::Start(config, engine_.get(), &metrics_);
  ASSERT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  channel_ =
      grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->grpc_port()),
                          grpc::InsecureChannelCredentials());
  stub_ = v1::EncoderService::NewStub(channel_);
}

absl::Status ServiceFixture::QueueFull(absl::Duration retry_after) {
  RefusalDetail detail;
  detail.reason = RefusalReason::kQueueBudget;
  detail.subject = "queue_activation_bytes";
  detail.retry_after = retry_after;
  return MakeRefusal(absl::StatusCode::kResourceExhausted, "queue is full",
                     detail);
}

}  // namespace svdserve
