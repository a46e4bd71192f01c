// config.json of a BERT checkpoint: sizes, activation, architecture, labels.
#ifndef SVDSERVE_ENGINE_MODEL_BERT_CONFIG_H_
#define SVDSERVE_ENGINE_MODEL_BERT_CONFIG_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model.h"
#include "nlohmann/json.hpp"

namespace svdserve {

struct BertConfig {
  int hidden = 0;
  int heads = 0;
  int layers = 0;
  int intermediate = 0;
  int vocab = 0;
  int max_positions = 0;
  int type_vocab = 0;
  Activation activation = Activation::kGelu;
  float layer_norm_eps = 0;
  Task task = Task::kEmbedding;     // by architecture
  std::vector<std::string> labels;  // classification only
};

// `source` is the file's name, for errors. UNIMPLEMENTED for what is a valid
// configuration, but not one that is served.
absl::StatusOr<BertConfig> ParseBertConfig(const nlohmann::json& json,
                                           const std::string& source);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_MODEL_BERT_CONFIG_H_
