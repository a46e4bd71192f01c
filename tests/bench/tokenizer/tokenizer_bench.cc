// Times our tokenizer over a file of texts, one a line; see compare.py.
//
//   tokenizer_bench DIRECTORY TEXTS [--repeat N] [--max-tokens N] [--offsets]
//                   [--ids FILE]
//
// Prints the fastest pass as JSON. --ids writes all ids of one pass as
// little-endian int32, each text ended by -1.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
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

struct Pass {
  double seconds;
  size_t tokens;
};

absl::StatusOr<Pass> RunPass(const Tokenizer& tokenizer,
                             const std::vector<std::string>& texts,
                             const EncodeOptions& options, Encoding* encoding) {
  size_t tokens = 0;
  const auto start = std::chrono::steady_clock::now();
  for (const std::string& text : texts) {
    absl::Status status =
        tokenizer.Encode(text, std::nullopt, options, encoding);
    if (!status.ok()) return status;
    tokens += encoding->ids.size();
  }
  const std::chrono::duration<double> seconds =
      std::chrono::steady_clock::now() - start;
  return Pass{seconds.count(), tokens};
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

absl::Status Run(const Arguments& arguments) {
  auto load_start = std::chrono::steady_clock::now();
  auto tokenizer = Tokenizer::Load(arguments.directory);
  if (!tokenizer.ok()) return tokenizer.status();
  const std::chrono::duration<double> load =
      std::chrono::steady_clock::now() - load_start;
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
  const nlohmann::json out = {{"texts", texts.size()},
                              {"bytes", bytes},
                              {"tokens", best.tokens},
                              {"seconds", best.seconds},
                              {"load_seconds", load.count()}};
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
