// The inputs of a client command: arguments, a file or stdin, one at a time, so
// that a file may be larger than memory.
//
//   InputOptions options;  AddInputOptions(command, &options);
//   absl::StatusOr<InputReader> reader = InputReader::Open(options);
//   while (true) { absl::StatusOr<bool> more = reader->Next(&input); ... }
#ifndef SVDSERVE_TOOLS_CLIENT_INPUTS_H_
#define SVDSERVE_TOOLS_CLIENT_INPUTS_H_

#include <CLI/CLI.hpp>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "svdserve/v1/svdserve.pb.h"

namespace svdserve {

struct ClientInputOptions {
  std::vector<std::string> texts = {};  // if empty: `file`, or else stdin
  std::string file = {};
  bool json_lines = false;  // always, if the file's name ends in .jsonl
  bool truncate = false;
  std::string side = "right";
  std::string prompt = {};
  int batch = 32;  // inputs of one request
};

void AddInputOptions(CLI::App* command, ClientInputOptions* options);
v1::TokenizeOptions TokenizeOptionsOf(const ClientInputOptions& options);

// One line of JSON: "text", {"text": ..., "pair": ...} or {"ids": [...],
// "type_ids": [...]}.
absl::StatusOr<v1::Input> ParseJsonInput(const std::string& line);

// Not thread-safe.
class InputReader {
 public:
  static absl::StatusOr<InputReader> Open(const ClientInputOptions& options);

  // False at the end. Errors name the line and what would be right.
  absl::StatusOr<bool> Next(v1::Input* input);
  // Puts up to `most` inputs into `inputs`; false if there are no more.
  absl::StatusOr<bool> NextBatch(
      int most, google::protobuf::RepeatedPtrField<v1::Input>* inputs);

 private:
  explicit InputReader(const ClientInputOptions& options);

  std::vector<std::string> texts_;
  bool json_lines_;
  std::string name_;  // for messages
  std::unique_ptr<std::ifstream> file_;
  std::istream* stream_ = nullptr;  // null if the inputs are `texts_`
  size_t position_ = 0;             // inputs or lines read
};

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_CLIENT_INPUTS_H_
