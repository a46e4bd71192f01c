// svdctl info: the model that a server serves, its limits and budgets.
#include <google/protobuf/util/json_util.h>

#include <iostream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "svdserve/v1/svdserve.grpc.pb.h"
#include "tools/client/connection.h"
#include "tools/client/outputs.h"
#include "tools/commands.h"

namespace svdserve {
namespace {

struct InfoOptions {
  ServerOptions server;
  OutputFileOptions output;
};

OrderedJson InfoJson(const v1::GetModelInfoResponse& info) {
  google::protobuf::util::JsonPrintOptions print;
  print.always_print_primitive_fields = true;
  print.preserve_proto_field_names = true;
  std::string text;
  if (!google::protobuf::util::MessageToJsonString(info, &text, print).ok()) {
    return {{"error", "the reply cannot be printed"}};
  }
  return OrderedJson::parse(text);
}

int RunInfo(const InfoOptions& options) {
  absl::StatusOr<ResultWriter> out = ResultWriter::Open(options.output);
  if (!out.ok()) return Fail(out.status());
  auto channel = Connect(options.server);
  if (!channel.ok()) return Fail(channel.status());
  auto stub = v1::EncoderService::NewStub(*channel);
  grpc::ClientContext context;
  SetDeadline(options.server, &context);
  v1::GetModelInfoResponse info;
  const grpc::Status status = stub->GetModelInfo(&context, {}, &info);
  if (!status.ok()) return Fail("info", status);

  const OrderedJson json = InfoJson(info);
  if (options.output.json || !options.output.file.empty()) {
    out->Write(json);
    const absl::Status closed = out->Close();
    return closed.ok() ? 0 : Fail(closed);
  }
  for (const auto& [key, value] : json.items()) {
    if (key != "layers") {
      std::cout << key << ": " << ToText(value) << '\n';
      continue;
    }
    for (size_t layer = 0; layer < value.size(); ++layer) {
      std::cout << "ranks and head widths of layer " << layer << ": "
                << ToText(value[layer]) << '\n';
    }
  }
  return 0;
}

}  // namespace

CLI::App* AddInfoCommand(CLI::App& app, int* exit_code) {
  auto options = std::make_shared<InfoOptions>();
  CLI::App* command =
      app.add_subcommand("info", "Show a server's model, limits and budgets");
  AddOutputOptions(command, &options->output);
  AddServerOptions(command, &options->server);
  command->callback([options, exit_code] { *exit_code = RunInfo(*options); });
  return command;
}

}  // namespace svdserve
