// svdctl embed: one vector an input, through one stream of requests, so that
// the server always has work and a file may be larger than memory.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "tools/client/batches.h"
#include "tools/commands.h"

namespace svdserve {
namespace {

using Stream = grpc::ClientReaderWriter<v1::EmbedRequest, v1::EmbedResponse>;

struct EmbedOptions {
  ClientOptions client;
  std::optional<bool> normalize;
  std::optional<uint32_t> dimensions;
};

OrderedJson ResultJson(int index, const v1::EmbedResult& result) {
  OrderedJson json = {{"index", index}};
  if (result.has_error()) {
    json["error"] = ToJson(result.error());
    return json;
  }
  json.update(ToJson(result.embedding().usage()));
  json["embedding"] = result.embedding().values();
  return json;
}

// Writes all inputs into the stream. What was wrong with them is returned.
absl::Status Send(const EmbedOptions& options, InputReader* reader,
                  Stream* stream) {
  v1::EmbedRequest request;
  *request.mutable_tokenize() = TokenizeOptionsOf(options.client.inputs);
  if (options.normalize) request.set_normalize(*options.normalize);
  if (options.dimensions) request.set_dimensions(*options.dimensions);
  absl::StatusOr<bool> more = true;
  while (true) {
    more = reader->NextBatch(options.client.inputs.batch,
                             request.mutable_inputs());
    if (!more.ok() || !*more || !stream->Write(request)) break;
  }
  stream->WritesDone();
  return more.status();
}

int RunEmbed(const EmbedOptions& options) {
  absl::StatusOr<InputReader> reader = InputReader::Open(options.client.inputs);
  if (!reader.ok()) return Fail(reader.status());
  absl::StatusOr<ResultWriter> out = ResultWriter::Open(options.client.output);
  if (!out.ok()) return Fail(out.status());
  auto channel = Connect(options.client.server);
  if (!channel.ok()) return Fail(channel.status());

  auto stub = v1::EncoderService::NewStub(*channel);
  grpc::ClientContext context;
  // A file may be of any length, and so may the time that it takes.
  if (!options.client.inputs.texts.empty()) {
    SetDeadline(options.client.server, &context);
  }
  std::unique_ptr<Stream> stream = stub->EmbedStream(&context);
  absl::Status sent;
  std::thread sender([&] { sent = Send(options, &*reader, stream.get()); });
  v1::EmbedResponse response;
  int index = 0;
  while (stream->Read(&response)) {
    for (const v1::EmbedResult& result : response.results()) {
      out->Write(ResultJson(index++, result));
    }
  }
  sender.join();
  const grpc::Status status = stream->Finish();
  const absl::Status closed = out->Close();
  if (!sent.ok()) return Fail(sent);
  if (!status.ok()) return Fail("embed", status);
  if (!closed.ok()) return Fail(closed);
  return out->errors() == 0 ? 0 : 1;
}

}  // namespace

CLI::App* AddEmbedCommand(CLI::App& app, int* exit_code) {
  auto options = std::make_shared<EmbedOptions>();
  CLI::App* command = app.add_subcommand("embed", "Turn texts into vectors");
  AddClientOptions(command, &options->client);
  command->add_flag("--normalize,!--no-normalize", options->normalize,
                    "Vectors of length 1, or not; default: as the model says");
  command->add_option("--dimensions", options->dimensions,
                      "Keep only so many values of each vector");
  command->callback([options, exit_code] { *exit_code = RunEmbed(*options); });
  return command;
}

}  // namespace svdserve
