#include "engine/model/json_fields.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace svdserve {

using nlohmann::json;

JsonFields::JsonFields(const json& object, std::string source)
    : object_(object), source_(std::move(source)) {
  if (!object_.is_object()) {
    status_ = absl::InvalidArgumentError(
        absl::StrCat(source_, ": not a JSON object"));
  }
}

bool JsonFields::Has(const std::string& key) const {
  return object_.is_object() && object_.contains(key) &&
         !object_[key].is_null();
}

const json* JsonFields::Find(const std::string& key, bool required) {
  if (Has(key)) return &object_[key];
  if (required) Fail(key, "is missing");
  return nullptr;
}

int JsonFields::Int(const std::string& key, int least, int most,
                    std::optional<int> fallback) {
  const json* item = Find(key, !fallback.has_value());
  if (item == nullptr) return fallback.value_or(least);
  const bool fits =
      item->is_number_integer() && *item >= least && *item <= most;
  if (fits) return item->get<int>();
  Fail(key, absl::StrCat("must be a whole number from ", least, " to ", most));
  return least;
}

double JsonFields::Number(const std::string& key, double least, double most,
                          std::optional<double> fallback) {
  const json* item = Find(key, !fallback.has_value());
  if (item == nullptr) return fallback.value_or(least);
  const bool fits = item->is_number() && *item >= least && *item <= most;
  if (fits) return item->get<double>();
  Fail(key, absl::StrCat("must be a number from ", least, " to ", most));
  return least;
}

bool JsonFields::Bool(const std::string& key, bool fallback) {
  const json* item = Find(key, false);
  if (item == nullptr) return fallback;
  if (item->is_boolean()) return item->get<bool>();
  Fail(key, "must be true or false");
  return fallback;
}

std::string JsonFields::String(const std::string& key,
                               const std::optional<std::string>& fallback) {
  const json* item = Find(key, !fallback.has_value());
  if (item == nullptr) return fallback.value_or("");
  if (item->is_string()) return item->get<std::string>();
  Fail(key, "must be a string");
  return "";
}

void JsonFields::Fail(const std::string& key, const std::string& reason) {
  if (!status_.ok()) return;
  status_ = absl::InvalidArgumentError(
      absl::StrCat(source_, ": \"", key, "\" ", reason));
}

void JsonFields::Unimplemented(const std::string& key,
                               const std::string& reason) {
  if (!status_.ok()) return;
  status_ = absl::UnimplementedError(
      absl::StrCat(source_, ": \"", key, "\" ", reason));
}

}  // namespace svdserve
