// Times our tokenizer over a file of texts, one a line; see compare.py.
//
//   tokenizer_bench DIRECTORY TEXTS [--repeat N] [--max-tokens N] [--offsets]
//                   [--ids FILE]
//
// Prints as JSON the processor time of the fastest pass, and that and the
// resident memory of the load. --ids writes all ids of one pass as
// little-endian int32, each text ended by -1.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <ctime>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "engine/text/tokenizer.h"

namespace svdserve {
namespace {

struct Arguments {
  std::string directory;
  std::string texts;
  std::string ids;
  int repeat = 5;
  EncodeOptions options;
};

std::vector<std::string> ReadLines(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

// Of this process, which has one thread; others on the machine do not count.
double ProcessorSeconds() {
  return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

struct Pass {
  double seconds;
  size_t tokens;
};

absl::StatusOr<Pass> RunPass(const Tokenizer& tokenizer,
                             const std::vector<std::string>& texts,
                             const EncodeOptions& options, Encoding* encoding) {
  size_t tokens = 0;
  const double start = ProcessorSeconds();
  for (const std::string& text : texts) {
    absl::Status status =
        tokenizer.Encode(text, std::nullopt, options, encoding);
    if (!status.ok()) return status;
    tokens += encoding->ids.size();
  }
  return Pass{ProcessorSeconds() - start, tokens};
}

absl::Status WriteIds(const Tokenizer& tokenizer,
                      const std::vector<std::string>& texts,
                      const Arguments& arguments) {
  std::ofstream file(arguments.ids, std::ios::binary);
  Encoding encoding;
  for (const std::string& text : texts) {
    absl::Status status =
        tokenizer.Encode(text, std::nullopt, arguments.options, &encoding);
    if (!status.ok()) return status;
    encoding.ids.push_back(-1);
    file.write(
        reinterpret_cast<const char*>(encoding.ids.data()),
        static_cast<std::streamsize>(encoding.ids.size() * sizeof(int32_t)));
  }
  return absl::OkStatus();
}

// Of this process, by Linux.
int64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t all = 0, resident = 0;
  file >> all >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

absl::Status Run(const Arguments& arguments) {
  const int64_t resident_before = ResidentBytes();
  const double load_start = ProcessorSeconds();
  auto tokenizer = Tokenizer::Load(arguments.directory);
  if (!tokenizer.ok()) return tokenizer.status();
  const double load_seconds = ProcessorSeconds() - load_start;
  const int64_t load_bytes = ResidentBytes() - resident_before;
  const std::vector<std::string> texts = ReadLines(arguments.texts);
  size_t bytes = 0;
  for (const std::string& text : texts) bytes += text.size();
  if (!arguments.ids.empty()) {
    absl::Status status = WriteIds(**tokenizer, texts, arguments);
    if (!status.ok()) return status;
  }
  Encoding encoding;
  Pass best{1e30, 0};
  for (int i = 0; i < arguments.repeat; ++i) {
    auto pass = RunPass(**tokenizer, texts, arguments.options, &encoding);
    if (!pass.ok()) return pass.status();
    if (pass->seconds < best.seconds) best = *pass;
  }
  const nlohmann::json out = {
      {"texts", texts.size()},        {"bytes", bytes},
      {"tokens", best.tokens},        {"seconds", best.seconds},
      {"load_seconds", load_seconds}, {"load_bytes", load_bytes}};
  std::cout << out.dump() << "\n";
  return absl::OkStatus();
}

}  // namespace
}  // namespace svdserve

int main(int argc, char** argv) {
  svdserve::Arguments arguments;
  CLI::App app("Times the tokenizer");
  app.add_option("directory", arguments.directory)->required();
  app.add_option("texts", arguments.texts)->required();
  app.add_option("--ids", arguments.ids);
  app.add_option("--repeat", arguments.repeat)->check(CLI::PositiveNumber);
  app.add_option("--max-tokens", arguments.options.max_tokens);
  app.add_flag("--offsets", arguments.options.with_offsets);
  CLI11_PARSE(app, argc, argv);
  arguments.options.truncate = arguments.options.max_tokens > 0;
  const absl::Status status = svdserve::Run(arguments);
  if (status.ok()) return 0;
  std::cerr << status << "\n";
  return 1;
}
