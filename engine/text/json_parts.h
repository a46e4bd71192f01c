// Pieces of JSON that several tokenizer files share. Internal to the readers.
//
// The library's exceptions stop at ParseGuarded(); nothing else throws on.
#ifndef SVDSERVE_ENGINE_TEXT_JSON_PARTS_H_
#define SVDSERVE_ENGINE_TEXT_JSON_PARTS_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "engine/text/added_tokens.h"
#include "engine/text/tokenizer_spec.h"

namespace svdserve::json_parts {

using Json = nlohmann::json;

absl::Status Invalid(std::string_view what);
// "a model of type 'X' is not supported; supported: ..."
absl::Status Unsupported(std::string_view part, std::string_view type,
                         std::string_view supported);

// The id of `token`: an integer from 0 to 2^31 - 1.
absl::StatusOr<int32_t> ReadId(const Json& json, const std::string& token);

AddedToken ReadAddedToken(const Json& json);

// An object from tokens to ids.
absl::Status ReadVocab(const Json& json, TokenizerSpec* spec);

// "left right": the two tokens of a merge.
absl::Status ReadMerge(std::string_view line, BpeOptions* bpe);

// [CLS] A [SEP] and [CLS] A [SEP] B [SEP].
void SetBertTemplates(int32_t cls, int32_t sep, TokenizerSpec* spec);
// <s> A </s> and <s> A </s> </s> B </s>, all of type 0.
void SetRobertaTemplates(int32_t cls, int32_t sep, TokenizerSpec* spec);

// Runs `parse`, which says in *where what it is reading, and puts that and the
// name of the file in front of every error.
template <typename Parse>
absl::StatusOr<TokenizerSpec> ParseGuarded(std::string_view name, Parse parse) {
  TokenizerSpec spec;
  std::string where(name);
  absl::Status status;
  try {
    status = parse(&spec, &where);
  } catch (const Json::exception& e) {
    status = absl::InvalidArgumentError(e.what());
  }
  if (status.ok()) return spec;
  return absl::Status(status.code(),
                      absl::StrCat(where, ": ", status.message()));
}

}  // namespace svdserve::json_parts

#endif  // SVDSERVE_ENGINE_TEXT_JSON_PARTS_H_
