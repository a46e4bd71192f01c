// svdctl compress: see tools/compress/.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>

#include "tools/commands.h"
#include "tools/compress/compress.h"
#include "tools/compress/convert.h"

namespace svdserve {
namespace {

std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

// The first SIGINT or SIGTERM ends the work in order: nothing is left behind.
// A second one kills.
void StopOnSignals() {
  struct sigaction action = {};
  action.sa_handler = [](int) { interrupted = true; };
  action.sa_flags = SA_RESETHAND;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

// One line on stderr: rewritten in place on a terminal, else a new line for
// each tenth of the work.
class ProgressLine {
 public:
  void Show(double share) {
    const bool terminal = isatty(STDERR_FILENO) == 1;
    const int tenth = static_cast<int>(share * 10);
    if (!terminal && tenth == last_tenth_) return;
    last_tenth_ = tenth;
    const std::chrono::duration<double> spent =
        std::chrono::steady_clock::now() - start_;
    const double left = spent.count() * (1 - share) / std::max(share, 1e-9);
    std::fprintf(stderr, "%scompressing: %3.0f %%, %.0f s, %.0f s left%s",
                 terminal ? "\r" : "", share * 100, spent.count(), left,
                 terminal ? " \033[K" : "\n");
    shown_ = terminal;
  }
  void End() const {
    if (shown_) std::fputc('\n', stderr);
  }

 private:
  const std::chrono::steady_clock::time_point start_ =
      std::chrono::steady_clock::now();
  int last_tenth_ = -1;
  bool shown_ = false;
};

struct Flags {
  CompressOptions options;
  std::string dtype;
  bool json = false;
};

int Run(Flags flags) {
  if (!flags.dtype.empty()) {
    absl::StatusOr<DType> dtype = ParseDType(flags.dtype);
    if (!dtype.ok()) {
      std::fprintf(stderr, "svdctl compress: %s\n",
                   dtype.status().ToString().c_str());
      return 1;
    }
    flags.options.dtype = *dtype;
  }
  StopOnSignals();
  ProgressLine progress;
  flags.options.progress = [&progress](double share) {
    progress.Show(share);
    return !interrupted;
  };
  absl::StatusOr<CompressionReport> report = CompressModel(flags.options);
  progress.End();
  if (!report.ok()) {
    std::fprintf(stderr, "svdctl compress: %s\n",
                 report.status().ToString().c_str());
    return 1;
  }
  std::fputs((flags.json ? report->ToJson() : report->ToTable()).c_str(),
             stdout);
  return 0;
}

}  // namespace

CLI::App* AddCompressCommand(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  CompressOptions& options = flags->options;
  CLI::App* command = app.add_subcommand(
      "compress", "Make a model smaller: factor the encoder's matrices");
  command->add_option("IN", options.input, "Directory of a dense model")
      ->required();
  command
      ->add_option("OUT", options.output,
                   "Directory to make; it appears complete or not at all")
      ->required();
  command
      ->add_option("--ratio", options.ratio,
                   "Share of the encoder's weight-matrix parameters to keep")
      ->capture_default_str();
  command->add_option("--method", options.method, "How to factor: svd")
      ->capture_default_str();
  command->add_option("--dtype", flags->dtype,
                      "Type of all weights in OUT: F32, F16 or BF16 "
                      "(default: as in IN)");
  command
      ->add_option("--threads", options.threads,
                   "Matrices at once (default: one per processor)")
      ->check(CLI::Range(1, 1024));
  command->add_flag("--force", options.force,
                    "Replace OUT if it is a model's directory");
  command->add_flag("--json", flags->json,
                    "Print the report as JSON (also in OUT/compression.json)");
  command->callback([flags, exit_code] { *exit_code = Run(*flags); });
  return command;
}

}  // namespace svdserve
