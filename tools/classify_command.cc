// svdctl classify: labels with scores, highest first.
#include <memory>
#include <utility>

#include "tools/client/batches.h"
#include "tools/commands.h"

namespace svdserve {
namespace {

struct ClassifyOptions {
  ClientOptions client;
  bool raw_scores = false;
};

OrderedJson ResultJson(int index, const v1::ClassifyResult& result) {
  OrderedJson json = {{"index", index}};
  if (result.has_error()) {
    json["error"] = ToJson(result.error());
    return json;
  }
  json.update(ToJson(result.classification().usage()));
  OrderedJson& scores = json["scores"] = OrderedJson::array();
  for (const v1::LabelScore& score : result.classification().scores()) {
    scores.push_back({{"label", score.label()}, {"score", score.score()}});
  }
  return json;
}

int RunClassify(const ClassifyOptions& options) {
  v1::ClassifyRequest request;
  request.set_raw_scores(options.raw_scores);
  return RunInBatches("classify", options.client,
                      &v1::EncoderService::Stub::Classify, std::move(request),
                      ResultJson);
}

}  // namespace

CLI::App* AddClassifyCommand(CLI::App& app, int* exit_code) {
  auto options = std::make_shared<ClassifyOptions>();
  CLI::App* command =
      app.add_subcommand("classify", "Score texts with a classifier's labels");
  AddClientOptions(command, &options->client);
  command->add_flag("--raw-scores", options->raw_scores,
                    "Logits instead of probabilities");
  command->callback(
      [options, exit_code] { *exit_code = RunClassify(*options); });
  return command;
}

}  // namespace svdserve
