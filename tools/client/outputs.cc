#include "tools/client/outputs.h"

#include <cstddef>
#include <iostream>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tools/client/connection.h"

namespace svdserve {
namespace {

// Numbers of a list that a line of text shows.
constexpr size_t kShownNumbers = 4;

double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + 1e-9 * duration.nanos();
}

std::string ListText(const OrderedJson& list) {
  std::string text = "[";
  for (size_t i = 0; i < list.size(); ++i) {
    if (list.size() > 2 * kShownNumbers && i == kShownNumbers) {
      return absl::StrCat(text, ", ... ", list.size(), " values]");
    }
    absl::StrAppend(&text, i > 0 ? ", " : "", ToText(list[i]));
  }
  return absl::StrCat(text, "]");
}

}  // namespace

void AddOutputOptions(CLI::App* command, OutputFileOptions* options) {
  command->add_option("--output", options->file,
                      "File that gets the results as JSON lines");
  command->add_flag("--json", options->json,
                    "Print the results as JSON lines instead of text");
}

OrderedJson ToJson(const google::rpc::Status& error) {
  return {{"code", CodeName(error.code())}, {"message", error.message()}};
}

OrderedJson ToJson(const v1::Usage& usage) {
  const v1::Timings& times = usage.timings();
  return {{"tokens", usage.tokens()},
          {"activation_bytes", usage.activation_bytes()},
          {"dense_activation_bytes", usage.dense_activation_bytes()},
          {"seconds",
           {{"tokenization", Seconds(times.tokenization())},
            {"queue", Seconds(times.queue())},
            {"compute", Seconds(times.compute())},
            {"total", Seconds(times.total())}}}};
}

std::string ToText(const OrderedJson& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_array()) return ListText(value);
  if (!value.is_object()) return value.dump();
  std::string text;
  for (const auto& [key, item] : value.items()) {
    const std::string shown =
        item.is_object() ? absl::StrCat("(", ToText(item), ")") : ToText(item);
    absl::StrAppend(&text, text.empty() ? "" : "  ", key, " ", shown);
  }
  return text;
}

absl::StatusOr<ResultWriter> ResultWriter::Open(
    const OutputFileOptions& options) {
  ResultWriter writer;
  writer.json_ = options.json || !options.file.empty();
  writer.stream_ = &std::cout;
  if (!options.file.empty()) {
    writer.name_ = options.file;
    writer.file_ = std::make_unique<std::ofstream>(options.file);
    writer.stream_ = writer.file_.get();
  }
  if (!*writer.stream_) {
    return absl::PermissionDeniedError(
        absl::StrCat("cannot write ", writer.name_));
  }
  return writer;
}

void ResultWriter::Write(const OrderedJson& value) {
  if (value.contains("error")) ++errors_;
  *stream_ << (json_ ? value.dump(-1, ' ', false,
                                  OrderedJson::error_handler_t::replace)
                     : ToText(value))
           << '\n';
}

absl::Status ResultWriter::Close() {
  stream_->flush();
  if (!*stream_) {
    return absl::DataLossError(absl::StrCat("cannot write ", name_));
  }
  return absl::OkStatus();
}

}  // namespace svdserve
