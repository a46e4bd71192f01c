// svdctl compress: see tools/compress/.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tools/commands.h"
#include "tools/compress/calibration_text.h"
#include "tools/compress/compress.h"
#include "tools/compress/convert.h"
#include "tools/evaluate/evaluate.h"
#include "tools/evaluate/output_file.h"

namespace svdserve {
namespace {

std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

// While it lives, the first SIGINT or SIGTERM ends the work in order: nothing
// is left behind. A second one kills. A limit on the size of files is an error
// of the write, not a signal that kills.
class StopOnSignals {
 public:
  StopOnSignals() {
    HandleWith(Stop);
    std::signal(SIGXFSZ, SIG_IGN);
  }
  ~StopOnSignals() { HandleWith(SIG_DFL); }
  StopOnSignals(const StopOnSignals&) = delete;
  StopOnSignals& operator=(const StopOnSignals&) = delete;

 private:
  static void HandleWith(void (*handler)(int)) {
    std::signal(SIGINT, handler);
    std::signal(SIGTERM, handler);
  }
  static void Stop(int) {
    const int saved = errno;
    HandleWith(SIG_DFL);
    interrupted = true;
    constexpr char kStopping[] = "\nstopping; a second signal kills\n";
    std::ignore = write(STDERR_FILENO, kStopping, sizeof(kStopping) - 1);
    errno = saved;
  }
};

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
  std::string html;
  bool json = false;
};

// Before the work: whether the page will have texts and a place.
absl::Status CheckPage(const Flags& flags) {
  if (flags.html.empty()) return absl::OkStatus();
  if (flags.options.method != "svd") return CheckWritable(flags.html);
  return absl::InvalidArgumentError(
      "--html: method svd holds no text out to compare on; use svdctl "
      "evaluate");
}

// The result against the dense model on the text that was held out: a summary,
// unless JSON alone is wanted, and the page.
absl::Status Compare(const Flags& flags, const CompressionReport& report) {
  if (!report.calibration.has_value()) return absl::OkStatus();
  if (flags.json && flags.html.empty()) return absl::OkStatus();
  const absl::StatusOr<Evaluation> evaluation = Evaluate(
      flags.options.input, {flags.options.output},
      {.source = "held-out calibration text",
       .texts = report.calibration->held_out_texts},
      {.threads = flags.options.threads, .spectra = !flags.html.empty()});
  if (!evaluation.ok()) return evaluation.status();
  if (!flags.json) std::printf("\n%s", evaluation->ToText().c_str());
  if (flags.html.empty()) return absl::OkStatus();
  return WriteWhole(flags.html, evaluation->ToHtml());
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "svdctl compress: %s\n", status.ToString().c_str());
  return 1;
}

int Run(Flags flags) {
  if (!flags.dtype.empty()) {
    absl::StatusOr<DType> dtype = ParseDType(flags.dtype);
    if (!dtype.ok()) return Fail(dtype.status());
    flags.options.dtype = *dtype;
  }
  if (absl::Status s = CheckPage(flags); !s.ok()) return Fail(s);
  std::optional<StopOnSignals> stop_on_signals(std::in_place);
  ProgressLine progress;
  flags.options.progress = [&progress](double share) {
    progress.Show(share);
    return !interrupted;
  };
  absl::StatusOr<CompressionReport> report = CompressModel(flags.options);
  stop_on_signals.reset();  // OUT is complete: a comparison may be killed
  progress.End();
  if (!report.ok()) return Fail(report.status());
  std::fputs((flags.json ? report->ToJson() : report->ToTable()).c_str(),
             stdout);
  if (absl::Status s = Compare(flags, *report); !s.ok()) return Fail(s);
  return 0;
}

}  // namespace

CLI::App* AddCompressCommand(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  CompressOptions& options = flags->options;
  CLI::App* command = app.add_subcommand(
      "compress", "Make a model smaller: compress the encoder's matrices");
  command->add_option("IN", options.input, "Directory of a dense model")
      ->required();
  command
      ->add_option("OUT", options.output,
                   "Directory to make; it appears complete or not at all")
      ->required();
  CLI::Option_group* budget = command->add_option_group(
      "Budget", "What to keep: one of these (default: --ratio 0.5)");
  budget->require_option(0, 1);
  const auto add_budget = [&](const char* name, Budget::Kind kind,
                              const char* help) {
    budget->add_option_function<double>(
        name,
        [flags, kind](const double& value) {
          flags->options.budget = Budget{kind, value};
        },
        help);
  };
  add_budget("--ratio", Budget::Kind::kRatio,
             "Share of the encoder's weight-matrix parameters");
  add_budget("--max-activation-bytes-per-token", Budget::Kind::kActivationBytes,
             "The largest ratio whose activations, planned for a GPU at 32 "
             "inputs of 256 tokens, need no more");
  add_budget("--min-cosine", Budget::Kind::kCosine,
             "The smallest ratio whose mean cosine with the dense embeddings, "
             "on held-out calibration text, is no less");
  command
      ->add_option("--method", options.method,
                   "auto: whatever loses least; whitened: factors for the "
                   "outputs on calibration text; component: narrower attention "
                   "heads, and whitened; svd: factors for the matrix itself, "
                   "without calibration")
      ->capture_default_str();
  command->add_option(
      "--calibration", options.calibration.path,
      absl::StrCat("Text like the model's inputs, one a line: a file, or the "
                   "files below a directory (default: ",
                   std::string(kDefaultCalibration), ")"));
  command
      ->add_option("--calibration-tokens", options.calibration.tokens,
                   "Tokens to fit to (default: 16384 to 65536, by the model's "
                   "size)")
      ->check(CLI::Range(kFewestTokens, 1 << 24));
  command
      ->add_option("--seed", options.calibration.seed,
                   "Of the sample of the calibration text")
      ->check(CLI::Range(int64_t{0}, std::numeric_limits<int64_t>::max()))
      ->capture_default_str();
  command->add_option("--dtype", flags->dtype,
                      "Type of all weights in OUT: F32, F16 or BF16 "
                      "(default: as in IN)");
  command
      ->add_option("--threads", options.threads,
                   "Threads (default: one per processor)")
      ->check(CLI::Range(1, 1024));
  command->add_flag("--force", options.force,
                    "Replace OUT if it is a model's directory");
  command->add_option("--html", flags->html,
                      "Write the fidelity on held-out calibration text as a "
                      "page to this file, as svdctl evaluate does");
  command->add_flag("--json", flags->json,
                    "Print the report as JSON (also in OUT/compression.json)");
  command->callback([flags, exit_code] { *exit_code = Run(*flags); });
  return command;
}

}  // namespace svdserve
