// svdctl rerank: texts by how well they answer a query, best first.
#include <memory>
#include <string>
#include <utility>

#include "tools/client/batches.h"
#include "tools/commands.h"

namespace svdserve {
namespace {

struct RerankOptions {
  ClientOptions client;
  std::string query;
  bool raw_scores = false;
};

absl::StatusOr<v1::RerankRequest> MakeRequest(const RerankOptions& options) {
  absl::StatusOr<InputReader> reader = InputReader::Open(options.client.inputs);
  if (!reader.ok()) return reader.status();
  v1::RerankRequest request;
  *request.mutable_tokenize() = TokenizeOptionsOf(options.client.inputs);
  request.set_query(options.query);
  request.set_raw_scores(options.raw_scores);
  request.set_return_texts(true);
  v1::Input input;
  while (true) {
    const absl::StatusOr<bool> more = reader->Next(&input);
    if (!more.ok()) return more.status();
    if (!*more) return request;
    if (!input.has_text()) {
      return absl::InvalidArgumentError(
          "rerank takes single texts, no pairs and no ids");
    }
    request.add_texts(std::move(*input.mutable_text()));
  }
}

void WriteResults(const v1::RerankResponse& response, ResultWriter* out) {
  for (const v1::Rank& rank : response.ranks()) {
    OrderedJson json = {{"index", rank.index()},
                        {"score", rank.score()},
                        {"text", rank.text()}};
    json.update(ToJson(rank.usage()));
    out->Write(json);
  }
  for (const v1::RerankError& error : response.errors()) {
    out->Write({{"index", error.index()}, {"error", ToJson(error.error())}});
  }
}

int RunRerank(const RerankOptions& options) {
  const absl::StatusOr<v1::RerankRequest> request = MakeRequest(options);
  if (!request.ok()) return Fail(request.status());
  absl::StatusOr<ResultWriter> out = ResultWriter::Open(options.client.output);
  if (!out.ok()) return Fail(out.status());
  auto channel = Connect(options.client.server);
  if (!channel.ok()) return Fail(channel.status());

  auto stub = v1::EncoderService::NewStub(*channel);
  grpc::ClientContext context;
  SetDeadline(options.client.server, &context);
  v1::RerankResponse response;
  const grpc::Status status = stub->Rerank(&context, *request, &response);
  if (!status.ok()) return Fail("rerank", status);
  WriteResults(response, &*out);
  if (absl::Status closed = out->Close(); !closed.ok()) return Fail(closed);
  return out->errors() == 0 ? 0 : 1;
}

}  // namespace

CLI::App* AddRerankCommand(CLI::App& app, int* exit_code) {
  auto options = std::make_shared<RerankOptions>();
  CLI::App* command =
      app.add_subcommand("rerank", "Sort texts by their score with a query");
  command->add_option("--query", options->query, "What the texts answer")
      ->required();
  AddClientOptions(command, &options->client);
  command->add_flag("--raw-scores", options->raw_scores,
                    "Logits instead of probabilities");
  command->callback([options, exit_code] { *exit_code = RunRerank(*options); });
  return command;
}

}  // namespace svdserve
