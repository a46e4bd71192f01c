#include "tools/client/inputs.h"

#include <cstdint>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace svdserve {
namespace {

using nlohmann::json;

constexpr char kJsonShapes[] =
    "expected \"text\", {\"text\": ..., \"pair\": ...} or {\"ids\": [...], "
    "\"type_ids\": [...]}";

// The JSON library knows what UTF-8 is; it says no by an exception.
bool IsUtf8(const std::string& text) {
  try {
    json(text).dump();
    return true;
  } catch (const json::exception&) {
    return false;
  }
}

bool AreNumbers(const json& value) {
  if (!value.is_array()) return false;
  for (const json& item : value) {
    if (!item.is_number_unsigned() ||
        item.get<uint64_t>() > std::numeric_limits<uint32_t>::max()) {
      return false;
    }
  }
  return true;
}

// True if `object` has `required` and besides it at most `optional`.
bool HasOnly(const json& object, const char* required, const char* optional) {
  return object.contains(required) &&
         object.size() == (object.contains(optional) ? 2 : 1);
}

absl::StatusOr<v1::Input> InputOfIds(const json& object) {
  v1::Input input;
  const json type_ids = object.value("type_ids", json::array());
  if (!AreNumbers(object["ids"]) || !AreNumbers(type_ids)) {
    return absl::InvalidArgumentError(
        "ids and type_ids must be lists of whole numbers below 2^32");
  }
  for (const json& id : object["ids"]) {
    input.mutable_tokens()->add_ids(id.get<uint32_t>());
  }
  for (const json& id : type_ids) {
    input.mutable_tokens()->add_type_ids(id.get<uint32_t>());
  }
  return input;
}

absl::StatusOr<v1::Input> InputOfText(const json& object) {
  v1::Input input;
  if (!object["text"].is_string() ||
      !object.value("pair", json("")).is_string()) {
    return absl::InvalidArgumentError("text and pair must be strings");
  }
  if (object.contains("pair")) {
    input.mutable_pair()->set_first(object["text"].get<std::string>());
    input.mutable_pair()->set_second(object["pair"].get<std::string>());
  } else {
    input.set_text(object["text"].get<std::string>());
  }
  return input;
}

}  // namespace

void AddInputOptions(CLI::App* command, ClientInputOptions* options) {
  command->add_option("texts", options->texts,
                      "Texts; without any, --input or stdin is read");
  command->add_option("--input", options->file,
                      "File with one text a line, or JSON lines if its name "
                      "ends in .jsonl; - is stdin");
  command->add_flag("--jsonl", options->json_lines,
                    absl::StrCat("The input is JSON lines: ", kJsonShapes));
  command->add_flag("--truncate", options->truncate,
                    "Cut inputs that are too long, instead of failing them");
  command
      ->add_option("--truncation-side", options->side,
                   "Which end --truncate cuts")
      ->check(CLI::IsMember({"left", "right"}))
      ->capture_default_str();
  command->add_option("--prompt", options->prompt,
                      "Name of a prompt of the model, put before each text");
  command->add_option("--batch", options->batch, "Inputs of one request")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

v1::TokenizeOptions TokenizeOptionsOf(const ClientInputOptions& options) {
  v1::TokenizeOptions tokenize;
  tokenize.set_truncate(options.truncate);
  tokenize.set_truncation_side(options.side == "left"
                                   ? v1::TRUNCATION_SIDE_LEFT
                                   : v1::TRUNCATION_SIDE_RIGHT);
  if (!options.prompt.empty()) tokenize.set_prompt_name(options.prompt);
  return tokenize;
}

absl::StatusOr<v1::Input> ParseJsonInput(const std::string& line) {
  const json value = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (value.is_string()) {
    v1::Input input;
    input.set_text(value.get<std::string>());
    return input;
  }
  if (value.is_object() && HasOnly(value, "text", "pair")) {
    return InputOfText(value);
  }
  if (value.is_object() && HasOnly(value, "ids", "type_ids")) {
    return InputOfIds(value);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      value.is_discarded() ? "not JSON; " : "wrong JSON; ", kJsonShapes));
}

InputReader::InputReader(const ClientInputOptions& options)
    : texts_(options.texts),
      json_lines_(options.json_lines ||
                  absl::EndsWith(options.file, ".jsonl")) {}

absl::StatusOr<InputReader> InputReader::Open(
    const ClientInputOptions& options) {
  InputReader reader(options);
  if (!options.texts.empty()) {
    if (!options.file.empty()) {
      return absl::InvalidArgumentError("give texts or --input, not both");
    }
    reader.name_ = "text";
    return reader;
  }
  if (options.file.empty() || options.file == "-") {
    reader.name_ = "stdin: line";
    reader.stream_ = &std::cin;
    return reader;
  }
  reader.name_ = absl::StrCat(options.file, ": line");
  reader.file_ = std::make_unique<std::ifstream>(options.file);
  if (!*reader.file_) {
    return absl::NotFoundError(absl::StrCat("cannot read ", options.file));
  }
  reader.stream_ = reader.file_.get();
  return reader;
}

absl::StatusOr<bool> InputReader::Next(v1::Input* input) {
  std::string line;
  if (stream_ == nullptr) {
    if (position_ == texts_.size()) return false;
    line = texts_[position_++];
  } else {
    if (!std::getline(*stream_, line)) return false;
    ++position_;
    if (!line.empty() && line.back() == '\r') line.pop_back();
  }
  if (json_lines_) {
    absl::StatusOr<v1::Input> parsed = ParseJsonInput(line);
    if (!parsed.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(name_, " ", position_, ": ", parsed.status().message()));
    }
    *input = *std::move(parsed);
    return true;
  }
  if (!IsUtf8(line)) {
    return absl::InvalidArgumentError(
        absl::StrCat(name_, " ", position_, " is not valid UTF-8"));
  }
  input->Clear();
  input->set_text(std::move(line));
  return true;
}

absl::StatusOr<bool> InputReader::NextBatch(
    int most, google::protobuf::RepeatedPtrField<v1::Input>* inputs) {
  inputs->Clear();
  while (inputs->size() < most) {
    v1::Input input;
    absl::StatusOr<bool> more = Next(&input);
    if (!more.ok()) return more.status();
    if (!*more) break;
    *inputs->Add() = std::move(input);
  }
  return !inputs->empty();
}

}  // namespace svdserve
