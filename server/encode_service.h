// svdserve.v1.EncoderService: bytes in, work for the engine, bytes out.
//
// Every method runs on gRPC's callback threads and never blocks; Estimate
// tokenizes there, the others in the engine's pool. A unary call finishes on
// the engine thread that answers its last input.
//
// Thread-safe. `engine` and `metrics` must outlive it, and it must outlive the
// gRPC server that it is registered with.
#ifndef SVDSERVE_SERVER_ENCODE_SERVICE_H_
#define SVDSERVE_SERVER_ENCODE_SERVICE_H_

#include <grpcpp/support/server_callback.h>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/arena_messages.h"
#include "server/call.h"
#include "svdserve/v1/svdserve.grpc.pb.h"

namespace svdserve {

struct ServiceOptions {
  RequestLimits limits;
  int stream_inputs_in_flight = 256;
};

class EncodeService final : public v1::EncoderService::CallbackService {
 public:
  EncodeService(Engine* engine, Metrics* metrics, const ServiceOptions& options)
      : reader_(*engine, options.limits),
        calls_(metrics),
        environment_{engine, metrics, &reader_, &calls_,
                     options.stream_inputs_in_flight} {
    SetMessageAllocatorFor_Embed(&embed_messages_);
    SetMessageAllocatorFor_Classify(&classify_messages_);
    SetMessageAllocatorFor_Rerank(&rerank_messages_);
  }

  // Refuses new calls with UNAVAILABLE; streams answer what they have read and
  // end.
  void StartDrain() { calls_.StartDrain(); }
  // False if calls are still open at `deadline`.
  bool WaitUntilIdle(absl::Time deadline) {
    return calls_.WaitUntilNone(deadline);
  }

  grpc::ServerUnaryReactor* Embed(grpc::CallbackServerContext* context,
                                  const v1::EmbedRequest* request,
                                  v1::EmbedResponse* response) override;
  grpc::ServerUnaryReactor* Classify(grpc::CallbackServerContext* context,
                                     const v1::ClassifyRequest* request,
                                     v1::ClassifyResponse* response) override;
  grpc::ServerUnaryReactor* Rerank(grpc::CallbackServerContext* context,
                                   const v1::RerankRequest* request,
                                   v1::RerankResponse* response) override;
  grpc::ServerBidiReactor<v1::EmbedRequest, v1::EmbedResponse>* EmbedStream(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* Estimate(grpc::CallbackServerContext* context,
                                     const v1::EstimateRequest* request,
                                     v1::EstimateResponse* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(
      grpc::CallbackServerContext* context,
      const v1::GetModelInfoRequest* request,
      v1::GetModelInfoResponse* response) override;

 private:
  grpc::ServerUnaryReactor* Run(grpc::CallbackServerContext* context,
                                Method method, absl::StatusOr<Work> work,
                                absl::AnyInvocable<void(const Results&)> fill);

  ArenaMessages<v1::EmbedRequest, v1::EmbedResponse> embed_messages_;
  ArenaMessages<v1::ClassifyRequest, v1::ClassifyResponse> classify_messages_;
  ArenaMessages<v1::RerankRequest, v1::RerankResponse> rerank_messages_;
  const RequestReader reader_;
  OpenCalls calls_;
  const CallEnvironment environment_;
};

}  // namespace svdserve

#endif  // SVDSERVE_SERVER_ENCODE_SERVICE_H_
