// svdctl load: how a server behaves under a load.
#include <iostream>
#include <map>
#include <memory>
#include <string>

#include "tools/client/connection.h"
#include "tools/client/outputs.h"
#include "tools/commands.h"
#include "tools/load/runner.h"
#include "tools/load/summary.h"

namespace svdserve {
namespace {

struct LoadCommandOptions {
  LoadOptions load;
  OutputFileOptions output;
};

int RunLoadCommand(const LoadCommandOptions& options) {
  if (options.load.warmup_seconds >= options.load.duration_seconds) {
    return Fail(
        absl::InvalidArgumentError("--warmup must be shorter than --duration"));
  }
  absl::StatusOr<ResultWriter> out = ResultWriter::Open(options.output);
  if (!out.ok()) return Fail(out.status());
  const absl::StatusOr<LoadResult> result = RunLoad(options.load);
  if (!result.ok()) return Fail(result.status());
  const LoadSummary summary = Summarize(result->samples, result->run);
  if (!options.output.json) std::cout << ToText(summary);
  if (options.output.json || !options.output.file.empty()) {
    out->Write(ToJson(summary));
    if (absl::Status closed = out->Close(); !closed.ok()) return Fail(closed);
  }
  if (summary.by_code.contains(0)) return 0;
  return Fail(absl::UnavailableError("not one request was answered OK"));
}

void AddShapeOptions(CLI::App* command, LoadOptions* load) {
  command
      ->add_option("--lengths", load->lengths,
                   "Tokens of each text: fixed:N or uniform:A-B; or file:PATH "
                   "for the lines of a file")
      ->capture_default_str();
  command
      ->add_option("--inputs", load->inputs_per_request,
                   "Inputs of one request")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_flag("--truncate", load->truncate,
                    "Ask the server to cut inputs that are too long");
  command->add_option("--method", load->method, "What is called")
      ->transform(CLI::CheckedTransformer(std::map<std::string, LoadMethod>{
          {"embed", LoadMethod::kEmbed}, {"classify", LoadMethod::kClassify}}))
      ->default_str("embed");
}

void AddPaceOptions(CLI::App* command, LoadOptions* load) {
  CLI::App* pace = command->add_option_group("pace", "One of these");
  pace->require_option(1);
  pace->add_option("--rate", load->rate,
                   "Requests a second, sent whatever the server does")
      ->check(CLI::PositiveNumber);
  pace->add_option("--saturate", load->saturate,
                   "Requests that are always in flight")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--arrivals", load->arrivals,
                   "poisson (as from many users) or uniform (equal gaps)")
      ->transform(CLI::CheckedTransformer(std::map<std::string, Arrivals>{
          {"poisson", Arrivals::kPoisson}, {"uniform", Arrivals::kUniform}}))
      ->default_str("poisson");
  command
      ->add_option("--duration", load->duration_seconds,
                   "Seconds of sending, warm-up included")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      ->add_option("--warmup", load->warmup_seconds,
                   "Seconds at the start that are not measured")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--max-in-flight", load->max_in_flight,
                   "Cap of unanswered requests; the result says if it limited")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      ->add_option("--connections", load->connections,
                   "Connections that share the requests")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--seed", load->seed, "Of arrivals and texts")
      ->capture_default_str();
}

}  // namespace

CLI::App* AddLoadCommand(CLI::App& app, int* exit_code) {
  auto options = std::make_shared<LoadCommandOptions>();
  CLI::App* command = app.add_subcommand(
      "load", "Send requests at a fixed rate and measure their latency");
  AddPaceOptions(command, &options->load);
  AddShapeOptions(command, &options->load);
  AddServerOptions(command, &options->load.server);
  command->add_option("--output", options->output.file,
                      "File that gets the result as JSON");
  command->add_flag("--json", options->output.json,
                    "Print the result as JSON instead of text");
  command->callback(
      [options, exit_code] { *exit_code = RunLoadCommand(*options); });
  return command;
}

}  // namespace svdserve
