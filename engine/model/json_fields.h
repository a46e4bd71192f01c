// Typed access to the fields of a JSON configuration file. The first error is
// kept and names file and key; later reads return their defaults, so that a
// parser reads all its fields and asks for the status once.
//
//   JsonFields fields(json, "config.json");
//   int heads = fields.Int("num_attention_heads", 1, 1024);
//   if (!fields.status().ok()) return fields.status();
#ifndef SVDSERVE_ENGINE_MODEL_JSON_FIELDS_H_
#define SVDSERVE_ENGINE_MODEL_JSON_FIELDS_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"

namespace svdserve {

class JsonFields {
 public:
  // Keeps a reference to `object`, which may turn out to be none.
  JsonFields(const nlohmann::json& object, std::string source);

  // Present and not null.
  bool Has(const std::string& key) const;
  // `fallback` is for absent keys; without one the key is required.
  int Int(const std::string& key, int least, int most,
          std::optional<int> fallback = std::nullopt);
  double Number(const std::string& key, double least, double most,
                std::optional<double> fallback = std::nullopt);
  bool Bool(const std::string& key, bool fallback);
  std::string String(const std::string& key,
                     const std::optional<std::string>& fallback = std::nullopt);

  // Records an error about a key, unless there is one already.
  void Fail(const std::string& key, const std::string& reason);
  void Unimplemented(const std::string& key, const std::string& reason);
  const absl::Status& status() const { return status_; }
  const std::string& source() const { return source_; }

 private:
  const nlohmann::json* Find(const std::string& key, bool required);

  const nlohmann::json& object_;
  const std::string source_;
  absl::Status status_;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_MODEL_JSON_FIELDS_H_
