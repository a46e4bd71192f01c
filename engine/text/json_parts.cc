#include "engine/text/json_parts.h"

#include <limits>

namespace svdserve::json_parts {

absl::Status Invalid(std::string_view what) {
  return absl::InvalidArgumentError({what.data(), what.size()});
}

absl::Status Unsupported(std::string_view part, std::string_view type,
                         std::string_view supported) {
  return absl::UnimplementedError(
      absl::StrCat(std::string(part), " of type '", std::string(type),
                   "' is not supported; supported: ", std::string(supported)));
}

absl::StatusOr<int32_t> ReadId(const Json& json, const std::string& token) {
  constexpr auto kMax = std::numeric_limits<int32_t>::max();
  if (!json.is_number_unsigned() || json.get<uint64_t>() > kMax) {
    return Invalid("the id of token '" + token + "' is " + json.dump() +
                   ", not an integer from 0 to " + std::to_string(kMax));
  }
  return json.get<int32_t>();
}

AddedToken ReadAddedToken(const Json& json) {
  AddedToken token;
  token.content = json.at("content").get<std::string>();
  token.special = json.value("special", false);
  token.normalized = json.value("normalized", !token.special);
  token.single_word = json.value("single_word", false);
  token.lstrip = json.value("lstrip", false);
  token.rstrip = json.value("rstrip", false);
  return token;
}

absl::Status ReadVocab(const Json& json, TokenizerSpec* spec) {
  for (const auto& [token, number] : json.get_ref<const Json::object_t&>()) {
    absl::StatusOr<int32_t> id = ReadId(number, token);
    if (!id.ok()) return id.status();
    spec->vocab.push_back({token, *id});
  }
  return absl::OkStatus();
}

absl::Status ReadMerge(std::string_view line, BpeOptions* bpe) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos ||
      line.find(' ', space + 1) != std::string_view::npos) {
    return Invalid("merge " + std::to_string(bpe->merges.size()) + " is '" +
                   std::string(line) +
                   "', not two tokens with a space between");
  }
  bpe->merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  return absl::OkStatus();
}

namespace {

TemplatePiece Special(int32_t id, uint8_t type_id) {
  return {TemplatePiece::kSpecial, type_id, {id}};
}

}  // namespace

void SetBertTemplates(int32_t cls, int32_t sep, TokenizerSpec* spec) {
  spec->single = {
      Special(cls, 0), {TemplatePiece::kFirst, 0, {}}, Special(sep, 0)};
  spec->pair = spec->single;
  spec->pair.push_back({TemplatePiece::kSecond, 1, {}});
  spec->pair.push_back(Special(sep, 1));
}

void SetRobertaTemplates(int32_t cls, int32_t sep, TokenizerSpec* spec) {
  spec->single = {
      Special(cls, 0), {TemplatePiece::kFirst, 0, {}}, Special(sep, 0)};
  spec->pair = spec->single;
  spec->pair.push_back(Special(sep, 0));
  spec->pair.push_back({TemplatePiece::kSecond, 0, {}});
  spec->pair.push_back(Special(sep, 0));
}

}  // namespace svdserve::json_parts
