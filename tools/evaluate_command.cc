// svdctl evaluate: see tools/evaluate/.
#include <cstdint>
#include <cstdio>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "tools/commands.h"
#include "tools/evaluate/evaluate.h"
#include "tools/evaluate/output_file.h"

namespace svdserve {
namespace {

struct Flags {
  std::string dense;
  std::vector<std::string> compressed;
  std::string text;
  std::string json;
  std::string html;
  EvaluateOptions options;
};

// Before the work: it would be lost if its result had no place.
absl::Status CheckOutputs(const Flags& flags) {
  for (const std::string& path : {flags.json, flags.html}) {
    if (path.empty()) continue;
    if (absl::Status s = CheckWritable(path); !s.ok()) return s;
  }
  if (!flags.json.empty() && flags.json == flags.html) {
    return absl::InvalidArgumentError("--json and --html name the same file: " +
                                      flags.json);
  }
  return absl::OkStatus();
}

absl::Status Run(Flags flags) {
  if (absl::Status s = CheckOutputs(flags); !s.ok()) return s;
  const absl::StatusOr<TextSet> texts = ReadTexts(flags.text);
  if (!texts.ok()) return texts.status();
  flags.options.progress = [](const std::string& what) {
    std::fprintf(stderr, "%s\n", what.c_str());
  };
  const absl::StatusOr<Evaluation> evaluation =
      Evaluate(flags.dense, flags.compressed, *texts, flags.options);
  if (!evaluation.ok()) return evaluation.status();
  if (!flags.html.empty()) {
    absl::Status s = WriteWhole(flags.html, evaluation->ToHtml());
    if (!s.ok()) return s;
  }
  if (flags.json.empty()) {
    std::fputs(evaluation->ToJson().c_str(), stdout);
    return absl::OkStatus();
  }
  std::fputs(evaluation->ToText().c_str(), stdout);
  return WriteWhole(flags.json, evaluation->ToJson());
}

}  // namespace

CLI::App* AddEvaluateCommand(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand(
      "evaluate", "Compare compressed models with their dense model on texts");
  command
      ->add_option("DENSE", flags->dense, "Directory of the model they are of")
      ->required();
  command
      ->add_option("COMPRESSED", flags->compressed,
                   "Directories of compressed models")
      ->required();
  command->add_option("--text", flags->text, "File with one text a line")
      ->required();
  command->add_option("--json", flags->json,
                      "Write the report as JSON to this file and a summary to "
                      "stdout (default: JSON to stdout)");
  command->add_option("--html", flags->html,
                      "Write the report as a page to this file");
  command
      ->add_option("--threads", flags->options.threads,
                   "Compute threads (default: one per processor)")
      ->check(CLI::Range(1, 1024));
  command
      ->add_option("--seed", flags->options.seed,
                   "Of the samples that are taken of many texts")
      ->check(CLI::Range(int64_t{0}, std::numeric_limits<int64_t>::max()))
      ->capture_default_str();
  command->callback([flags, exit_code] {
    const absl::Status status = Run(*flags);
    *exit_code = status.ok() ? 0 : 1;
    if (status.ok()) return;
    std::fprintf(stderr, "svdctl evaluate: %s\n", status.ToString().c_str());
  });
  return command;
}

}  // namespace svdserve
