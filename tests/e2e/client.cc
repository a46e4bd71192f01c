#include "tests/e2e/client.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>

#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace svdserve {

Client::Client(int port)
    : channel_(grpc::CreateChannel(absl::StrCat("127.0.0.1:", port),
                                   grpc::InsecureChannelCredentials())),
      stub_(v1::EncoderService::NewStub(channel_)) {}

grpc::Status Client::Call(const v1::EmbedRequest& request,
                          v1::EmbedResponse* out) {
  grpc::ClientContext context;
  return stub_->Embed(&context, request, out);
}

grpc::Status Client::Call(const v1::ClassifyRequest& request,
                          v1::ClassifyResponse* out) {
  grpc::ClientContext context;
  return stub_->Classify(&context, request, out);
}

grpc::Status Client::Call(const v1::RerankRequest& request,
                          v1::RerankResponse* out) {
  grpc::ClientContext context;
  return stub_->Rerank(&context, request, out);
}

grpc::Status Client::Call(const v1::EstimateRequest& request,
                          v1::EstimateResponse* out) {
  grpc::ClientContext context;
  return stub_->Estimate(&context, request, out);
}

grpc::Status Client::Call(const v1::GetModelInfoRequest& request,
                          v1::GetModelInfoResponse* out) {
  grpc::ClientContext context;
  return stub_->GetModelInfo(&context, request, out);
}

grpc::Status Client::Stream(const std::vector<v1::EmbedRequest>& requests,
                            std::vector<v1::EmbedResponse>* out) {
  grpc::ClientContext context;
  const auto stream = stub_->EmbedStream(&context);
  std::thread writer([&] {
    for (const v1::EmbedRequest& request : requests) stream->Write(request);
    stream->WritesDone();
  });
  v1::EmbedResponse response;
  while (stream->Read(&response)) out->push_back(std::move(response));
  writer.join();
  return stream->Finish();
}

v1::EmbedRequest EmbedOf(const std::vector<std::string>& texts) {
  v1::EmbedRequest request;
  for (const std::string& text : texts) request.add_inputs()->set_text(text);
  return request;
}

std::vector<std::vector<float>> ValuesOf(const v1::EmbedResponse& response) {
  std::vector<std::vector<float>> values;
  for (const v1::EmbedResult& result : response.results()) {
    const auto& row = result.embedding().values();
    values.emplace_back(row.begin(), row.end());
  }
  return values;
}

}  // namespace svdserve
