// What differs between the architectures that are served: keys of config.json,
// names of tensors, positions, token types, heads. One table, in
// architecture.cc; all other code knows the encoder as BertModel spells it.
//
//   const Architecture* roberta = FindArchitecture("roberta");
//   roberta->CanonicalName("roberta.encoder.layer.0.output.dense.bias");
#ifndef SVDSERVE_ENGINE_MODEL_ARCHITECTURE_H_
#define SVDSERVE_ENGINE_MODEL_ARCHITECTURE_H_

#include <array>
#include <span>
#include <string>
#include <string_view>

#include "engine/model/model_shape.h"

namespace svdserve {

// Under which keys config.json has what every encoder has.
struct ConfigKeys {
  const char* hidden;
  const char* heads;
  const char* layers;
  const char* intermediate;
  const char* activation;
};

// One part of a layer, without ".weight": BERT's name, and this architecture's.
struct LayerPart {
  std::string_view canonical;
  std::string_view own;
};

// A linear map of the classifier and what follows it.
struct ClassifierPart {
  const char* name;
  HeadActivation activation;
};

struct Architecture {
  std::string_view model_type;  // of config.json
  ConfigKeys keys;
  // layer_norm_eps is read; otherwise it is 1e-12, whatever config.json says.
  bool configured_epsilon;
  bool token_types;
  // Positions count from pad_token_id + 1: the position embeddings before that
  // are no input's.
  bool positions_follow_padding;

  // Values of "architectures": the encoder, or within a model whose other
  // weights are ignored; and the classifier.
  std::span<const std::string_view> encoders;
  std::string_view classifier;
  // Its head, over the first token: [hidden -> hidden], [hidden -> labels].
  std::array<ClassifierPart, 2> head;
  // How the names of heads' tensors begin, the classifier's among them.
  std::span<const std::string_view> heads;

  std::string_view prefix;  // of the encoder's tensors beside a head
  std::string_view layers;  // what stands before a layer's number
  std::span<const LayerPart> layer_parts;  // empty: BERT's

  // A tensor's name as BertModel spells it: without `prefix`, in BERT's layers,
  // and `.gamma` / `.beta` of old checkpoints as `.weight` / `.bias`. Names of
  // heads, and what is unknown, stay.
  std::string CanonicalName(std::string_view name) const;
  // The other way, without `prefix`: for messages.
  std::string OwnName(std::string_view canonical) const;
};

// By config.json's model_type; null if it is not served.
const Architecture* FindArchitecture(std::string_view model_type);
// "bert, roberta, ...": for messages.
std::string ServedModelTypes();

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_MODEL_ARCHITECTURE_H_
