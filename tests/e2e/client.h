// A blocking client of one server, for tests.
#ifndef SVDSERVE_TESTS_E2E_CLIENT_H_
#define SVDSERVE_TESTS_E2E_CLIENT_H_

#include <grpcpp/channel.h>
#include <grpcpp/support/status.h>

#include <memory>
#include <string>
#include <vector>

#include "svdserve/v1/svdserve.grpc.pb.h"

namespace svdserve {

class Client {
 public:
  explicit Client(int port);

  grpc::Status Call(const v1::EmbedRequest& request, v1::EmbedResponse* out);
  grpc::Status Call(const v1::ClassifyRequest& request,
                    v1::ClassifyResponse* out);
  grpc::Status Call(const v1::RerankRequest& request, v1::RerankResponse* out);
  grpc::Status Call(const v1::EstimateRequest& request,
                    v1::EstimateResponse* out);
  grpc::Status Call(const v1::GetModelInfoRequest& request,
                    v1::GetModelInfoResponse* out);
  // Sends all, half-closes, and returns what comes back.
  grpc::Status Stream(const std::vector<v1::EmbedRequest>& requests,
                      std::vector<v1::EmbedResponse>* out);

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

 private:
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::EncoderService::Stub> stub_;
};

v1::EmbedRequest EmbedOf(const std::vector<std::string>& texts);

// The values of each result; empty for an error.
std::vector<std::vector<float>> ValuesOf(const v1::EmbedResponse& response);

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_E2E_CLIENT_H_
