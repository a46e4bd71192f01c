// svdctl inspect: see tools/inspect/.
#include <cstdio>
#include <map>
#include <memory>
#include <string>

#include "tools/commands.h"
#include "tools/inspect/inspect.h"

namespace svdserve {
namespace {

struct Flags {
  InspectOptions options;
  bool json = false;
};

int Run(const Flags& flags) {
  const absl::StatusOr<Inspection> inspection = Inspect(flags.options);
  if (!inspection.ok()) {
    std::fprintf(stderr, "svdctl inspect: %s\n",
                 inspection.status().ToString().c_str());
    return 1;
  }
  std::fputs((flags.json ? inspection->ToJson() : inspection->ToText()).c_str(),
             stdout);
  return 0;
}

}  // namespace

CLI::App* AddInspectCommand(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  InspectOptions& options = flags->options;
  CLI::App* command = app.add_subcommand(
      "inspect", "Show a model's ranks and bytes, and how a batch would run");
  command->add_option("MODEL", options.model, "A model's directory")
      ->required();
  CLI::Option* plan = command->add_option(
      "--plan", options.plan,
      "Plan a batch: SEQxLEN, such as 32x256 for 32 inputs of 256 tokens");
  command
      ->add_option("--device", options.device,
                   "cpu: as this machine would run it; cuda: as an H100 would, "
                   "in bfloat16 (default: cpu)")
      ->needs(plan)
      ->transform(CLI::CheckedTransformer(std::map<std::string, Device>{
          {"cpu", Device::kCpu}, {"cuda", Device::kCuda}}));
  command
      ->add_option("--arena", options.backend.arena_bytes,
                   "Bytes of activations that may exist at once, such as 64MiB "
                   "(default: as the server chooses)")
      ->needs(plan)
      ->transform(CLI::AsSizeValue(false));
  command
      ->add_option("--compute", options.backend.compute, "float32 or bfloat16")
      ->needs(plan)
      ->transform(CLI::CheckedTransformer(std::map<std::string, ComputeType>{
          {"float32", ComputeType::kF32}, {"bfloat16", ComputeType::kBF16}}));
  command
      ->add_option("--threads", options.backend.threads,
                   "Compute threads (default: as the server chooses)")
      ->needs(plan)
      ->check(CLI::Range(1, 1024));
  command->add_flag("--json", flags->json, "Print JSON");
  command->callback([flags, exit_code] { *exit_code = Run(*flags); });
  return command;
}

}  // namespace svdserve
