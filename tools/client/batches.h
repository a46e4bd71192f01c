// The commands that send their inputs in requests of a few inputs, one after
// the other, and write each result.
#ifndef SVDSERVE_TOOLS_CLIENT_BATCHES_H_
#define SVDSERVE_TOOLS_CLIENT_BATCHES_H_

#include <CLI/CLI.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "svdserve/v1/svdserve.grpc.pb.h"
#include "tools/client/connection.h"
#include "tools/client/inputs.h"
#include "tools/client/outputs.h"

namespace svdserve {

struct ClientOptions {
  ServerOptions server;
  ClientInputOptions inputs;
  OutputFileOptions output;
};

inline void AddClientOptions(CLI::App* command, ClientOptions* options) {
  AddInputOptions(command, &options->inputs);
  AddOutputOptions(command, &options->output);
  AddServerOptions(command, &options->server);
}

// `request` holds everything but the inputs; `to_json` turns the index of an
// input and its result into what is written. Returns the exit code.
template <typename Request, typename Response, typename ResultToJson>
int RunInBatches(const char* name, const ClientOptions& options,
                 grpc::Status (v1::EncoderService::Stub::*method)(
                     grpc::ClientContext*, const Request&, Response*),
                 Request request, ResultToJson to_json) {
  absl::StatusOr<InputReader> reader = InputReader::Open(options.inputs);
  if (!reader.ok()) return Fail(reader.status());
  absl::StatusOr<ResultWriter> out = ResultWriter::Open(options.output);
  if (!out.ok()) return Fail(out.status());
  auto channel = Connect(options.server);
  if (!channel.ok()) return Fail(channel.status());

  v1::EncoderService::Stub stub(*channel);
  *request.mutable_tokenize() = TokenizeOptionsOf(options.inputs);
  int index = 0;
  while (true) {
    const absl::StatusOr<bool> more =
        reader->NextBatch(options.inputs.batch, request.mutable_inputs());
    if (!more.ok()) return Fail(more.status());
    if (!*more) break;
    grpc::ClientContext context;
    SetDeadline(options.server, &context);
    Response response;
    const grpc::Status status = (stub.*method)(&context, request, &response);
    if (!status.ok()) return Fail(name, status);
    for (const auto& result : response.results()) {
      out->Write(to_json(index++, result));
    }
  }
  if (absl::Status closed = out->Close(); !closed.ok()) return Fail(closed);
  return out->errors() == 0 ? 0 : 1;
}

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_CLIENT_BATCHES_H_
