// config.json of BERT, RoBERTa, XLM-R or DistilBERT: architecture, sizes,
// activation, task, labels.
#ifndef SVDSERVE_ENGINE_MODEL_BERT_CONFIG_H_
#define SVDSERVE_ENGINE_MODEL_BERT_CONFIG_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/architecture.h"
#include "engine/model/model.h"
#include "nlohmann/json.hpp"

namespace svdserve {

struct BertConfig {
  const Architecture* architecture = nullptr;  // static
  int hidden = 0;
  int heads = 0;
  int layers = 0;
  int intermediate = 0;
  int vocab = 0;
  int max_positions = 0;     // that an input can have
  int unused_positions = 0;  // rows of the position embeddings before those
  int type_vocab = 0;        // 1 for models without token types
  Activation activation = Activation::kGelu;
  float layer_norm_eps = 0;
  Task task = Task::kEmbedding;     // by "architectures"
  std::vector<std::string> labels;  // classification only
};

// `source` is the file's name, for errors. UNIMPLEMENTED for what is a valid
// configuration, but not one that is served.
absl::StatusOr<BertConfig> ParseBertConfig(const nlohmann::json& json,
                                           const std::string& source);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_MODEL_BERT_CONFIG_H_
