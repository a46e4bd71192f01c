#include "engine/model/bert_config.h"

#include <algorithm>
#include <span>
#include <string_view>

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
constexpr double kDefaultEpsilon = 1e-12;  // of every model type

Activation ParseActivation(const char* key, JsonFields& fields) {
  const std::string name = fields.String(key, "gelu");
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") {
    return Activation::kGeluTanh;
  }
  if (name == "relu") return Activation::kRelu;
  fields.Unimplemented(
      key,
      absl::StrCat("is \"", name,
                   "\"; served are gelu, gelu_new, gelu_pytorch_tanh, relu"));
  return Activation::kGelu;
}

std::string Listed(std::span<const std::string_view> names) {
  std::string list;
  for (const std::string_view name : names) {
    list.append(name).append(", ");
  }
  return list;
}

Task ParseTask(const Architecture& architecture, const json& config,
               JsonFields& fields) {
  if (!fields.Has("architectures")) return Task::kEmbedding;
  const json& list = config["architectures"];
  if (!list.is_array() || list.size() != 1 || !list[0].is_string()) {
    fields.Fail("architectures", "must be a list of one name");
    return Task::kEmbedding;
  }
  const std::string name = list[0].get<std::string>();
  if (name == architecture.classifier) return Task::kClassification;
  if (std::ranges::find(architecture.encoders, name) ==
      architecture.encoders.end()) {
    fields.Unimplemented(
        "architectures",
        absl::StrCat("names ", name, "; served with this \"model_type\" are ",
                     Listed(architecture.encoders),
                     std::string(architecture.classifier)));
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

// Null, with an error in `fields`, for a model type that is not served.
const Architecture* ParseModelType(JsonFields& fields) {
  const std::string type = fields.String("model_type", "bert");
  const Architecture* architecture = FindArchitecture(type);
  if (architecture == nullptr) {
    fields.Unimplemented(
        "model_type",
        absl::StrCat("is \"", type, "\"; served are ", ServedModelTypes()));
  }
  return architecture;
}

// What a configuration can say and the engine does not do.
void RefuseVariants(const json& config, JsonFields& fields) {
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

void ParsePositions(JsonFields& fields, BertConfig& bert) {
  const char* key = "max_position_embeddings";
  bert.max_positions = fields.Int(key, 1, kMaxPositions);
  if (!bert.architecture->positions_follow_padding) return;
  // 1 is the default of RoBERTa and XLM-R.
  bert.unused_positions = fields.Int("pad_token_id", 0, kMaxPositions, 1) + 1;
  bert.max_positions -= bert.unused_positions;
  if (bert.max_positions >= 1) return;
  fields.Fail(key, absl::StrCat("leaves no position for an input: they begin "
                                "at \"pad_token_id\" + 1, ",
                                bert.unused_positions));
}

void CheckHeads(const BertConfig& bert, JsonFields& fields) {
  if (!fields.status().ok()) return;
  const ConfigKeys& keys = bert.architecture->keys;
  if (bert.hidden % bert.heads != 0) {
    fields.Fail(keys.hidden,
                absl::StrCat("(", bert.hidden, ") must be a multiple of \"",
                             keys.heads, "\" (", bert.heads, ")"));
    return;
  }
  const int head_dim = bert.hidden / bert.heads;
  if (head_dim % kHeadDimStep != 0 || head_dim > kMaxHeadDim) {
    fields.Unimplemented(
        keys.heads, absl::StrCat("gives heads of width ", head_dim,
                                 "; served are multiples of ", kHeadDimStep,
                                 " up to ", kMaxHeadDim));
  }
}

}  // namespace

absl::StatusOr<BertConfig> ParseBertConfig(const json& config,
                                           const std::string& source) {
  JsonFields fields(config, source);
  if (!fields.status().ok()) return fields.status();
  BertConfig bert;
  bert.architecture = ParseModelType(fields);
  if (bert.architecture == nullptr) return fields.status();
  const Architecture& architecture = *bert.architecture;
  const ConfigKeys& keys = architecture.keys;
  RefuseVariants(config, fields);
  bert.task = ParseTask(architecture, config, fields);
  bert.hidden = fields.Int(keys.hidden, 1, kMaxWidth);
  bert.heads = fields.Int(keys.heads, 1, kMaxWidth);
  bert.layers = fields.Int(keys.layers, 1, kMaxLayers);
  bert.intermediate = fields.Int(keys.intermediate, 1, kMaxWidth);
  bert.vocab = fields.Int("vocab_size", 1, kMaxVocab);
  ParsePositions(fields, bert);
  bert.type_vocab = architecture.token_types
                        ? fields.Int("type_vocab_size", 1, kMaxTypes, 2)
                        : 1;
  bert.layer_norm_eps = static_cast<float>(
      architecture.configured_epsilon
          ? fields.Number("layer_norm_eps", 0, 1, kDefaultEpsilon)
          : kDefaultEpsilon);
  bert.activation = ParseActivation(keys.activation, fields);
  if (bert.task == Task::kClassification) {
    bert.labels = ParseLabels(config, fields);
  }
  CheckHeads(bert, fields);
  if (!fields.status().ok()) return fields.status();
  return bert;
}

}  // namespace svdserve
