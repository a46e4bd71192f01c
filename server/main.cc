// svdserve: serves one model over gRPC. See server/README.md.
#include <CLI/CLI.hpp>
#include <iostream>
#include <map>
#include <string>

#include "server/config.h"
#include "server/run.h"

namespace svdserve {
namespace {

struct Flags {
  std::string config_file;
  std::string ports_file;
  std::map<std::string, std::string> overrides;  // key -> value
  bool print_config = false;
};

void Declare(CLI::App* app, Flags* flags) {
  app->add_option("--config", flags->config_file,
                  "YAML file; deploy/config.example.yaml documents every key");
  const auto override_key = [&](const char* flag, const char* key,
                                const char* help) {
    app->add_option_function<std::string>(
        flag, [=](const std::string& value) { flags->overrides[key] = value; },
        help);
  };
  override_key("--model", "model.directory", "Directory of the model");
  override_key("--listen", "server.listen", "Address of the gRPC port");
  override_key("--metrics-listen", "metrics.listen",
               "Address of the Prometheus endpoint");
  app->add_option("--ports-file", flags->ports_file,
                  "Write the bound ports to this file when ready");
  app->add_flag("--print-config", flags->print_config,
                "Check the configuration, print all of it and exit");
  app->set_version_flag("--version", SVDSERVE_VERSION);
}

absl::StatusOr<Config> Configure(const Flags& flags) {
  absl::StatusOr<Config> config = Config();
  if (!flags.config_file.empty()) config = LoadConfig(flags.config_file);
  for (const auto& [key, value] : flags.overrides) {
    if (!config.ok()) break;
    absl::Status status = SetConfigKey(key, value, &*config);
    if (!status.ok()) return status;
  }
  if (config.ok() && config->engine.model_directory.empty() &&
      !flags.print_config) {
    return absl::InvalidArgumentError(
        "no model: pass --model DIR, or set model.directory in the file that "
        "--config names");
  }
  return config;
}

int Main(int argc, char** argv) {
  BlockStopSignals();
  CLI::App app("Serves an SVD-compressed transformer encoder over gRPC.",
               "svdserve");
  Flags flags;
  Declare(&app, &flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? kExitOk : kExitUsage;
  }
  const absl::StatusOr<Config> config = Configure(flags);
  if (!config.ok()) {
    std::cerr << "svdserve: " << config.status().message() << "\n";
    return kExitConfig;
  }
  if (flags.print_config) {
    std::cout << PrintConfig(*config);
    return kExitOk;
  }
  return Run(*config, flags.ports_file);
}

}  // namespace
}  // namespace svdserve

int main(int argc, char** argv) { return svdserve::Main(argc, argv); }
