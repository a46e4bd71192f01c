#include "engine/model/bert_config.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "engine/model/json_fields.h"

namespace svdserve {
namespace {

using nlohmann::json;

// Bounds that no BERT comes near; they keep products within 64 bits.
constexpr int kMaxWidth = 1 << 16;
constexpr int kMaxLayers = 1 << 10;
constexpr int kMaxVocab = 1 << 24;
constexpr int kMaxPositions = 1 << 20;
constexpr int kMaxTypes = 256;  // type ids are bytes
constexpr int kMaxLabels = 1 << 14;

Activation ParseActivation(JsonFields& fields) {
  const std::string name = fields.String("hidden_act", "gelu");
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") {
    return Activation::kGeluTanh;
  }
  if (name == "relu") return Activation::kRelu;
  fields.Unimplemented(
      "hidden_act",
      absl::StrCat("is \"", name,
                   "\"; served are gelu, gelu_new, gelu_pytorch_tanh, relu"));
  return Activation::kGelu;
}

// Architectures whose encoder is BertModel; other heads' weights are ignored.
Task ParseTask(const json& config, JsonFields& fields) {
  if (!fields.Has("architectures")) return Task::kEmbedding;
  const json& list = config["architectures"];
  if (!list.is_array() || list.size() != 1 || !list[0].is_string()) {
    fields.Fail("architectures", "must be a list of one name");
    return Task::kEmbedding;
  }
  const std::string name = list[0].get<std::string>();
  if (name == "BertForSequenceClassification") return Task::kClassification;
  if (name != "BertModel" && name != "BertForMaskedLM" &&
      name != "BertForPreTraining") {
    fields.Unimplemented(
        "architectures",
        absl::StrCat("names ", name,
                     "; served are BertModel (also within BertForMaskedLM or "
                     "BertForPreTraining) and BertForSequenceClassification"));
  }
  return Task::kEmbedding;
}

// id2label: {"0": "NEGATIVE", ...}. transformers omits it for two labels with
// the names LABEL_0 and LABEL_1.
std::vector<std::string> ParseLabels(const json& config, JsonFields& fields) {
  std::vector<std::string> labels;
  if (!fields.Has("id2label")) {
    const int count = fields.Int("num_labels", 1, kMaxLabels, 2);
    for (int i = 0; i < count; ++i) labels.push_back(absl::StrCat("LABEL_", i));
    return labels;
  }
  const json& names = config["id2label"];
  if (!names.is_object() || names.empty() || names.size() > kMaxLabels) {
    fields.Fail("id2label", "must map each class number to its name");
    return labels;
  }
  for (size_t i = 0; i < names.size(); ++i) {
    const auto found = names.find(absl::StrCat(i));
    if (found == names.end() || !found->is_string()) {
      fields.Fail("id2label", absl::StrCat("lacks a name for class ", i));
      return labels;
    }
    labels.push_back(found->get<std::string>());
  }
  return labels;
}

// What BERT's configuration can say and the engine does not do.
void RefuseVariants(const json& config, JsonFields& fields) {
  const std::string type = fields.String("model_type", "bert");
  if (type != "bert") {
    fields.Unimplemented("model_type",
                         absl::StrCat("is \"", type, "\"; served is \"bert\""));
  }
  const std::string positions =
      fields.String("position_embedding_type", "absolute");
  if (positions != "absolute") {
    fields.Unimplemented(
        "position_embedding_type",
        absl::StrCat("is \"", positions, "\"; served is \"absolute\""));
  }
  for (const char* key : {"is_decoder", "add_cross_attention"}) {
    if (fields.Bool(key, false)) {
      fields.Unimplemented(key, "is true; only encoders are served");
    }
  }
  if (fields.Has("pruned_heads") && !config["pruned_heads"].empty()) {
    fields.Unimplemented("pruned_heads", "is set; pruning is not served");
  }
  if (fields.Has("quantization_config")) {
    fields.Unimplemented("quantization_config",
                         "is set; weights must be F32, F16 or BF16");
  }
}

void CheckHeads(const BertConfig& bert, JsonFields& fields) {
  if (!fields.status().ok()) return;
  if (bert.hidden % bert.heads != 0) {
    fields.Fail("hidden_size", absl::StrCat("(", bert.hidden,
                                            ") must be a multiple of "
                                            "\"num_attention_heads\" (",
                                            bert.heads, ")"));
    return;
  }
  const int head_dim = bert.hidden / bert.heads;
  if (head_dim % kHeadDimStep != 0 || head_dim > kMaxHeadDim) {
    fields.Unimplemented("num_attention_heads",
                         absl::StrCat("gives heads of width ", head_dim,
                                      "; served are multiples of ",
                                      kHeadDimStep, " up to ", kMaxHeadDim));
  }
}

}  // namespace

absl::StatusOr<BertConfig> ParseBertConfig(const json& config,
                                           const std::string& source) {
  JsonFields fields(config, source);
  if (!fields.status().ok()) return fields.status();
  RefuseVariants(config, fields);
  BertConfig bert;
  bert.task = ParseTask(config, fields);
  bert.hidden = fields.Int("hidden_size", 1, kMaxWidth);
  bert.heads = fields.Int("num_attention_heads", 1, kMaxWidth);
  bert.layers = fields.Int("num_hidden_layers", 1, kMaxLayers);
  bert.intermediate = fields.Int("intermediate_size", 1, kMaxWidth);
  bert.vocab = fields.Int("vocab_size", 1, kMaxVocab);
  bert.max_positions = fields.Int("max_position_embeddings", 1, kMaxPositions);
  bert.type_vocab = fields.Int("type_vocab_size", 1, kMaxTypes, 2);
  bert.layer_norm_eps =
      static_cast<float>(fields.Number("layer_norm_eps", 0, 1, 1e-12));
  bert.activation = ParseActivation(fields);
  if (bert.task == Task::kClassification) {
    bert.labels = ParseLabels(config, fields);
  }
  CheckHeads(bert, fields);
  if (!fields.status().ok()) return fields.status();
  return bert;
}

}  // namespace svdserve
