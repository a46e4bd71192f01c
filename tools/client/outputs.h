// The results of a client command, as readable text or JSON lines.
//
//   absl::StatusOr<ResultWriter> out = ResultWriter::Open(options);
//   out->Write(ToJson(result));  // an object a line, or a line of text
#ifndef SVDSERVE_TOOLS_CLIENT_OUTPUTS_H_
#define SVDSERVE_TOOLS_CLIENT_OUTPUTS_H_

#include <CLI/CLI.hpp>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "svdserve/v1/svdserve.pb.h"

namespace svdserve {

// Keys in the order in which they are written.
using OrderedJson = nlohmann::ordered_json;

struct OutputFileOptions {
  std::string file = {};  // empty is stdout
  bool json = false;      // JSON lines; always, if `file` is given
};

void AddOutputOptions(CLI::App* command, OutputFileOptions* options);

OrderedJson ToJson(const google::rpc::Status& error);
OrderedJson ToJson(const v1::Usage& usage);

// "key value  key value": long lists are cut, objects are indented lines.
std::string ToText(const OrderedJson& value);

// Not thread-safe.
class ResultWriter {
 public:
  static absl::StatusOr<ResultWriter> Open(const OutputFileOptions& options);

  // One result. An "error" in it is counted.
  void Write(const OrderedJson& value);
  // Flushes; fails if anything could not be written.
  absl::Status Close();
  int errors() const { return errors_; }

 private:
  ResultWriter() = default;

  bool json_ = false;
  std::string name_ = "stdout";
  std::unique_ptr<std::ofstream> file_;
  std::ostream* stream_ = nullptr;
  int errors_ = 0;
};

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_CLIENT_OUTPUTS_H_
