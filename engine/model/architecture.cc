#include "engine/model/architecture.h"

namespace svdserve {
namespace {

constexpr std::string_view kBertLayers = "encoder.layer.";
constexpr ConfigKeys kBertKeys = {.hidden = "hidden_size",
                                  .heads = "num_attention_heads",
                                  .layers = "num_hidden_layers",
                                  .intermediate = "intermediate_size",
                                  .activation = "hidden_act"};

constexpr std::string_view kBertEncoders[] = {"BertModel", "BertForMaskedLM",
                                              "BertForPreTraining"};
constexpr std::string_view kBertHeads[] = {"cls.", "pooler.", "classifier."};

constexpr std::string_view kRobertaEncoders[] = {"RobertaModel",
                                                 "RobertaForMaskedLM"};
constexpr std::string_view kXlmRobertaEncoders[] = {"XLMRobertaModel",
                                                    "XLMRobertaForMaskedLM"};
constexpr std::string_view kRobertaHeads[] = {"lm_head.", "pooler.",
                                              "classifier."};
// RobertaClassificationHead.
constexpr std::array<ClassifierPart, 2> kRobertaClassifier = {
    {{"classifier.dense", HeadActivation::kTanh},
     {"classifier.out_proj", HeadActivation::kIdentity}}};

constexpr std::string_view kDistilBertEncoders[] = {"DistilBertModel",
                                                    "DistilBertForMaskedLM"};
constexpr std::string_view kDistilBertHeads[] = {
    "vocab_transform.", "vocab_layer_norm.", "vocab_projector.",
    "pre_classifier.", "classifier."};
constexpr LayerPart kDistilBertParts[] = {
    {"attention.self.query", "attention.q_lin"},
    {"attention.self.key", "attention.k_lin"},
    {"attention.self.value", "attention.v_lin"},
    {"attention.output.dense", "attention.out_lin"},
    {"attention.output.LayerNorm", "sa_layer_norm"},
    {"intermediate.dense", "ffn.lin1"},
    {"output.dense", "ffn.lin2"},
    {"output.LayerNorm", "output_layer_norm"}};

constexpr Architecture kArchitectures[] = {
    {.model_type = "bert",
     .keys = kBertKeys,
     .configured_epsilon = true,
     .token_types = true,
     .positions_follow_padding = false,
     .encoders = kBertEncoders,
     .classifier = "BertForSequenceClassification",
     .head = {{{"pooler.dense", HeadActivation::kTanh},
               {"classifier", HeadActivation::kIdentity}}},
     .heads = kBertHeads,
     .prefix = "bert.",
     .layers = kBertLayers,
     .layer_parts = {}},
    {.model_type = "roberta",
     .keys = kBertKeys,
     .configured_epsilon = true,
     .token_types = true,
     .positions_follow_padding = true,
     .encoders = kRobertaEncoders,
     .classifier = "RobertaForSequenceClassification",
     .head = kRobertaClassifier,
     .heads = kRobertaHeads,
     .prefix = "roberta.",
     .layers = kBertLayers,
     .layer_parts = {}},
    {.model_type = "xlm-roberta",
     .keys = kBertKeys,
     .configured_epsilon = true,
     .token_types = true,
     .positions_follow_padding = true,
     .encoders = kXlmRobertaEncoders,
     .classifier = "XLMRobertaForSequenceClassification",
     .head = kRobertaClassifier,
     .heads = kRobertaHeads,
     .prefix = "roberta.",
     .layers = kBertLayers,
     .layer_parts = {}},
    {.model_type = "distilbert",
     .keys = {.hidden = "dim",
              .heads = "n_heads",
              .layers = "n_layers",
              .intermediate = "hidden_dim",
              .activation = "activation"},
     .configured_epsilon = false,
     .token_types = false,
     .positions_follow_padding = false,
     .encoders = kDistilBertEncoders,
     .classifier = "DistilBertForSequenceClassification",
     .head = {{{"pre_classifier", HeadActivation::kRelu},
               {"classifier", HeadActivation::kIdentity}}},
     .heads = kDistilBertHeads,
     .prefix = "distilbert.",
     .layers = "transformer.layer.",
     .layer_parts = kDistilBertParts}};

using PartName = std::string_view LayerPart::*;

// Takes `prefix` off the front of *name; false if it is not there.
bool Consume(std::string_view prefix, std::string_view* name) {
  if (!name->starts_with(prefix)) return false;
  name->remove_prefix(prefix.size());
  return true;
}

// "LAYERS" "N" ".PART" ".weight", from one side's spelling to the other's. All
// other names stay.
std::string Rename(std::string_view name, std::string_view from_layers,
                   PartName from, std::string_view to_layers, PartName to,
                   std::span<const LayerPart> parts) {
  std::string_view rest = name;
  if (!Consume(from_layers, &rest)) return std::string(name);
  const std::string_view number = rest.substr(0, rest.find('.'));
  rest.remove_prefix(number.size());
  if (!Consume(".", &rest)) return std::string(name);
  for (const LayerPart& part : parts) {
    std::string_view tail = rest;
    if (!Consume(part.*from, &tail) || !tail.starts_with('.')) continue;
    std::string renamed(to_layers);
    renamed.append(number).append(".").append(part.*to).append(tail);
    return renamed;
  }
  return std::string(name);
}

// TensorFlow's names for a LayerNorm's parameters, in old checkpoints.
std::string WithoutGammaAndBeta(std::string name) {
  constexpr std::string_view kGamma = ".gamma";
  constexpr std::string_view kBeta = ".beta";
  if (name.ends_with(kGamma)) {
    name.replace(name.size() - kGamma.size(), kGamma.size(), ".weight");
  } else if (name.ends_with(kBeta)) {
    name.replace(name.size() - kBeta.size(), kBeta.size(), ".bias");
  }
  return name;
}

}  // namespace

std::string Architecture::CanonicalName(std::string_view name) const {
  Consume(prefix, &name);
  return WithoutGammaAndBeta(Rename(name, layers, &LayerPart::own, kBertLayers,
                                    &LayerPart::canonical, layer_parts));
}

std::string Architecture::OwnName(std::string_view canonical) const {
  return Rename(canonical, kBertLayers, &LayerPart::canonical, layers,
                &LayerPart::own, layer_parts);
}

const Architecture* FindArchitecture(std::string_view model_type) {
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.model_type == model_type) return &architecture;
  }
  return nullptr;
}

std::string ServedModelTypes() {
  std::string types;
  for (const Architecture& architecture : kArchitectures) {
    if (!types.empty()) types.append(", ");
    types.append(architecture.model_type);
  }
  return types;
}

}  // namespace svdserve
