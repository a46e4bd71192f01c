// JSON as configuration files need it: no duplicate keys, no deep nesting,
// nothing after the end, and errors instead of exceptions.
#ifndef SVDSERVE_ENGINE_MODEL_STRICT_JSON_H_
#define SVDSERVE_ENGINE_MODEL_STRICT_JSON_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace svdserve {

// `source` opens the error message: a file's name.
absl::StatusOr<nlohmann::json> ParseStrictJson(std::string_view text,
                                               const std::string& source);

// Reads and parses a file of at most a few MiB. NOT_FOUND if there is none.
absl::StatusOr<nlohmann::json> ReadStrictJson(const std::string& path);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_MODEL_STRICT_JSON_H_
