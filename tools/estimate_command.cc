// svdctl estimate: what inputs would cost, without running them.
#include <memory>

#include "tools/client/batches.h"
#include "tools/commands.h"

namespace svdserve {
namespace {

OrderedJson ResultJson(int index, const v1::EstimateResult& result) {
  OrderedJson json = {{"index", index}};
  if (result.has_error()) {
    json["error"] = ToJson(result.error());
    return json;
  }
  const v1::Estimate& estimate = result.estimate();
  json["tokens"] = estimate.tokens();
  json["activation_bytes"] = estimate.activation_bytes();
  json["fixed_activation_bytes"] = estimate.fixed_activation_bytes();
  json["dense_activation_bytes"] = estimate.dense_activation_bytes();
  json["fits"] = estimate.fits();
  json["admitted_now"] = estimate.admitted_now();
  json["longest_input"] = estimate.longest_input();
  return json;
}

int RunEstimate(const ClientOptions& options) {
  return RunInBatches("estimate", options, &v1::EncoderService::Stub::Estimate,
                      v1::EstimateRequest(), ResultJson);
}

}  // namespace

CLI::App* AddEstimateCommand(CLI::App& app, int* exit_code) {
  auto options = std::make_shared<ClientOptions>();
  CLI::App* command = app.add_subcommand(
      "estimate", "Tell tokens, bytes and admission of texts; runs nothing");
  AddClientOptions(command, options.get());
  command->callback(
      [options, exit_code] { *exit_code = RunEstimate(*options); });
  return command;
}

}  // namespace svdserve
