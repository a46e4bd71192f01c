#include "server/encode_service.h"

#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "server/embed_stream.h"
#include "server/status_util.h"

namespace svdserve {
namespace {

// A unary call; deletes itself when gRPC is done with it.
class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  UnaryCall(const CallEnvironment* environment,
            grpc::CallbackServerContext* context, Method method)
      : environment_(*environment),
        context_(context),
        method_(method),
        arrived_(absl::Now()) {
    environment_.calls->Opened();
  }

  RequestContext request_context() const {
    return MakeRequestContext(*context_, cancellation_);
  }

  // Nothing of the call may be touched afterwards.
  void Answer(const absl::Status& status, const Results& results) {
    RecordAnswer(environment_, *context_, method_, status, results, arrived_);
    AddTrailers(*environment_.engine, status, context_);
    Finish(ToGrpcStatus(status));
  }

  void OnCancel() override { cancellation_.Cancel(); }

  void OnDone() override {
    OpenCalls* const calls = environment_.calls;
    delete this;
    calls->Closed();
  }

 private:
  const CallEnvironment& environment_;
  grpc::CallbackServerContext* const context_;
  const Method method_;
  const absl::Time arrived_;
  CancellationSource cancellation_;
};

}  // namespace

grpc::ServerUnaryReactor* EncodeService::Run(
    grpc::CallbackServerContext* context, Method method,
    absl::StatusOr<Work> work, absl::AnyInvocable<void(const Results&)> fill) {
  auto* const call = new UnaryCall(&environment_, context, method);
  if (calls_.draining()) work = DrainingError();
  if (!work.ok()) {
    call->Answer(work.status(), {});
    return call;
  }
  RunWork(environment_.engine, *std::move(work), call->request_context(),
          [call, fill = std::move(fill)](const Results& results) mutable {
            const absl::Status status = StatusOfAll(results);
            if (status.ok()) fill(results);
            call->Answer(status, results);
          });
  return call;
}

grpc::ServerUnaryReactor* EncodeService::Embed(
    grpc::CallbackServerContext* context, const v1::EmbedRequest* request,
    v1::EmbedResponse* response) {
  return Run(
      context, Method::kEmbed, reader_.Read(*request),
      [response](const Results& results) { FillEmbed(results, response); });
}

grpc::ServerUnaryReactor* EncodeService::Classify(
    grpc::CallbackServerContext* context, const v1::ClassifyRequest* request,
    v1::ClassifyResponse* response) {
  return Run(context, Method::kClassify, reader_.Read(*request),
             [this, request, response](const Results& results) {
               FillClassify(results, environment_.engine->model_config().labels,
                            request->raw_scores(), response);
             });
}

grpc::ServerUnaryReactor* EncodeService::Rerank(
    grpc::CallbackServerContext* context, const v1::RerankRequest* request,
    v1::RerankResponse* response) {
  return Run(context, Method::kRerank, reader_.Read(*request),
             [request, response](const Results& results) {
               FillRerank(results, *request, response);
             });
}

grpc::ServerBidiReactor<v1::EmbedRequest, v1::EmbedResponse>*
EncodeService::EmbedStream(grpc::CallbackServerContext* context) {
  return svdserve::EmbedStream::Open(&environment_, context);
}

grpc::ServerUnaryReactor* EncodeService::Estimate(
    grpc::CallbackServerContext* context, const v1::EstimateRequest* request,
    v1::EstimateResponse* response) {
  auto* const call = new UnaryCall(&environment_, context, Method::kEstimate);
  absl::StatusOr<Work> work = reader_.Read(*request);
  if (calls_.draining()) work = DrainingError();
  if (work.ok()) {
    std::vector<absl::StatusOr<InputEstimate>> estimates;
    estimates.reserve(work->inputs.size());
    for (const absl::StatusOr<Input>& input : work->inputs) {
      estimates.push_back(
          input.ok() ? environment_.engine->Estimate(*input, work->options)
                     : input.status());
    }
    FillEstimate(estimates, response);
  }
  call->Answer(work.status(), {});
  return call;
}

grpc::ServerUnaryReactor* EncodeService::GetModelInfo(
    grpc::CallbackServerContext* context, const v1::GetModelInfoRequest*,
    v1::GetModelInfoResponse* response) {
  auto* const call =
      new UnaryCall(&environment_, context, Method::kGetModelInfo);
  FillModelInfo(*environment_.engine, response);
  response->set_max_inputs_per_request(reader_.limits().max_inputs);
  response->set_max_request_bytes(reader_.limits().max_request_bytes);
  response->set_max_stream_inputs_in_flight(
      environment_.stream_inputs_in_flight);
  call->Answer(calls_.draining() ? DrainingError() : absl::OkStatus(), {});
  return call;
}

}  // namespace svdserve
