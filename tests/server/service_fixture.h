// A Server on free loopback ports in front of a FakeEngine, and a client.
#ifndef SVDSERVE_TESTS_SERVER_SERVICE_FIXTURE_H_
#define SVDSERVE_TESTS_SERVER_SERVICE_FIXTURE_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/server.h"
#include "svdserve/v1/svdserve.grpc.pb.h"
#include "tests/server/fake_engine.h"

namespace svdserve {

class ServiceFixture : public ::testing::Test {
 protected:
  // For tests that need another model or other limits: first of all.
  void Serve(Task task, int width);
  void Serve(Task task, int width, Config config);
  void SetUp() override;

  static v1::EmbedRequest EmbedOf(const std::vector<std::string>& texts) {
    v1::EmbedRequest request;
    for (const std::string& text : texts) request.add_inputs()->set_text(text);
    return request;
  }
  grpc::Status Embed(const v1::EmbedRequest& request) {
    context_ = std::make_unique<grpc::ClientContext>();
    response_.Clear();
    return stub_->Embed(context_.get(), request, &response_);
  }
  grpc::Status Classify(const v1::ClassifyRequest& request,
                        v1::ClassifyResponse* response) {
    context_ = std::make_unique<grpc::ClientContext>();
    return stub_->Classify(context_.get(), request, response);
  }
  grpc::Status Rerank(const v1::RerankRequest& request,
                      v1::RerankResponse* response) {
    context_ = std::make_unique<grpc::ClientContext>();
    return stub_->Rerank(context_.get(), request, response);
  }
  // A value of the last call's trailing metadata, or "(none)".
  std::string Trailer(const std::string& key) const {
    const auto& trailers = context_->GetServerTrailingMetadata();
    const auto found = trailers.find(key);
    return found == trailers.end()
               ? "(none)"
               : std::string(found->second.data(), found->second.size());
  }

  static absl::Status QueueFull(absl::Duration retry_after);

  std::string metrics_listen_;  // none
  Metrics metrics_;
  std::unique_ptr<FakeEngine> engine_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::EncoderService::Stub> stub_;
  std::unique_ptr<grpc::ClientContext> context_;
  v1::EmbedResponse response_;
};

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_SERVER_SERVICE_FIXTURE_H_
