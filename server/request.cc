#include "server/request.h"

#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace svdserve {
namespace {

absl::StatusOr<Input> ReadTokens(const v1::TokenIds& tokens) {
  if (tokens.ids().empty()) {
    return absl::InvalidArgumentError("tokens.ids is empty; send at least one");
  }
  if (!tokens.type_ids().empty() &&
      tokens.type_ids_size() != tokens.ids_size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tokens.type_ids has ", tokens.type_ids_size(), " values for ",
        tokens.ids_size(), " ids; send none or one for each id"));
  }
  constexpr uint32_t kMostId = std::numeric_limits<int32_t>::max();
  for (const uint32_t id : tokens.ids()) {
    if (id > kMostId) {
      return absl::InvalidArgumentError(
          absl::StrCat("token id ", id, " is not in the vocabulary"));
    }
  }
  for (const uint32_t type : tokens.type_ids()) {
    if (type > std::numeric_limits<uint8_t>::max()) {
      return absl::InvalidArgumentError(
          absl::StrCat("token type ", type, " is not a type of the model"));
    }
  }
  Input input;
  input.ids.assign(tokens.ids().begin(), tokens.ids().end());
  input.type_ids.assign(tokens.type_ids().begin(), tokens.type_ids().end());
  return input;
}

absl::StatusOr<Input> ReadInput(const v1::Input& message) {
  Input input;
  switch (message.kind_case()) {
    case v1::Input::kText:
      input.text = message.text();
      return input;
    case v1::Input::kPair:
      input.text = message.pair().first();
      input.pair = message.pair().second();
      return input;
    case v1::Input::kTokens:
      return ReadTokens(message.tokens());
    case v1::Input::KIND_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError(
      "the input has no kind; set one of text, pair, tokens");
}

std::vector<absl::StatusOr<Input>> ReadInputs(
    const google::protobuf::RepeatedPtrField<v1::Input>& messages) {
  std::vector<absl::StatusOr<Input>> inputs;
  inputs.reserve(messages.size());
  for (const v1::Input& message : messages) {
    inputs.push_back(ReadInput(message));
  }
  return inputs;
}

const char* TaskName(Task task) {
  return task == Task::kEmbedding ? "an embedding model" : "a classifier";
}

}  // namespace

absl::Status RequestReader::CheckSize(const google::protobuf::Message& request,
                                      int inputs, const char* field) const {
  if (inputs == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " is empty; send 1 to ", limits_.max_inputs));
  }
  if (inputs > limits_.max_inputs) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " has ", inputs, " entries; at most ",
                     limits_.max_inputs, " are allowed in one request"));
  }
  const uint64_t bytes = request.ByteSizeLong();
  if (bytes > limits_.max_request_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the request has ", bytes, " bytes; at most ",
        limits_.max_request_bytes, " are allowed (server.max_request_bytes)"));
  }
  return absl::OkStatus();
}

absl::Status RequestReader::CheckTask(Task wanted) const {
  if (config_.task == wanted) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the method needs ", TaskName(wanted), ", but \"",
                   config_.name, "\" is ", TaskName(config_.task)));
}

absl::StatusOr<InputOptions> RequestReader::ReadOptions(
    const v1::TokenizeOptions& message) const {
  InputOptions options;
  options.truncate = message.truncate();
  switch (message.truncation_side()) {
    case v1::TRUNCATION_SIDE_UNSPECIFIED:
    case v1::TRUNCATION_SIDE_RIGHT:
      options.side = TruncationSide::kRight;
      break;
    case v1::TRUNCATION_SIDE_LEFT:
      options.side = TruncationSide::kLeft;
      break;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("truncation_side ", message.truncation_side(),
                       " is unknown; known are RIGHT (1) and LEFT (2)"));
  }
  if (!message.has_prompt_name()) return options;
  if (config_.prompts.count(message.prompt_name()) == 0) {
    const auto name = [](std::string* out, const auto& prompt) {
      out->append(prompt.first);
    };
    return absl::InvalidArgumentError(absl::StrCat(
        "prompt_name \"", message.prompt_name(), "\" is unknown; ",
        config_.prompts.empty()
            ? "the model has no prompts"
            : absl::StrCat("the model has: ",
                           absl::StrJoin(config_.prompts, ", ", name))));
  }
  options.prompt = message.prompt_name();
  return options;
}

absl::StatusOr<Work> RequestReader::Read(
    const v1::EmbedRequest& request) const {
  absl::Status status = CheckTask(Task::kEmbedding);
  status.Update(CheckSize(request, request.inputs_size(), "inputs"));
  if (!status.ok()) return status;
  absl::StatusOr<InputOptions> options = ReadOptions(request.tokenize());
  if (!options.ok()) return options.status();
  options->output.normalize =
      request.has_normalize() ? request.normalize() : config_.normalize;
  const uint32_t width = shape_.output_width();
  if (request.has_dimensions()) {
    if (request.dimensions() < 1 || request.dimensions() > width) {
      return absl::InvalidArgumentError(
          absl::StrCat("dimensions is ", request.dimensions(),
                       "; the model allows 1 to ", width));
    }
    options->output.dimensions = static_cast<int>(request.dimensions());
  }
  return Work{ReadInputs(request.inputs()), *options};
}

absl::StatusOr<Work> RequestReader::Read(
    const v1::ClassifyRequest& request) const {
  absl::Status status = CheckTask(Task::kClassification);
  status.Update(CheckSize(request, request.inputs_size(), "inputs"));
  if (!status.ok()) return status;
  absl::StatusOr<InputOptions> options = ReadOptions(request.tokenize());
  if (!options.ok()) return options.status();
  options->output.normalize = false;
  return Work{ReadInputs(request.inputs()), *options};
}

absl::StatusOr<Work> RequestReader::Read(
    const v1::RerankRequest& request) const {
  absl::Status status = CheckTask(Task::kClassification);
  if (status.ok() && shape_.output_width() != 1) {
    status = absl::FailedPreconditionError(
        absl::StrCat("reranking needs a classifier with one label, but \"",
                     config_.name, "\" has ", shape_.output_width()));
  }
  status.Update(CheckSize(request, request.texts_size(), "texts"));
  if (!status.ok()) return status;
  absl::StatusOr<InputOptions> options = ReadOptions(request.tokenize());
  if (!options.ok()) return options.status();
  options->output.normalize = false;
  Work work{{}, *options};
  work.inputs.reserve(request.texts_size());
  for (const std::string& text : request.texts()) {
    Input input;
    input.text = request.query();
    input.pair = text;
    work.inputs.emplace_back(std::move(input));
  }
  return work;
}

absl::StatusOr<Work> RequestReader::Read(
    const v1::EstimateRequest& request) const {
  const absl::Status status =
      CheckSize(request, request.inputs_size(), "inputs");
  if (!status.ok()) return status;
  absl::StatusOr<InputOptions> options = ReadOptions(request.tokenize());
  if (!options.ok()) return options.status();
  return Work{ReadInputs(request.inputs()), *options};
}

}  // namespace svdserve
