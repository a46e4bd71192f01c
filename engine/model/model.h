// A checkpoint in host memory: configuration and typed weights.
//
// Model is plain data, filled by LoadModel() and read by a backend, which packs
// the weights for its device; the Model can be dropped afterwards. Weights are
// read into memory, never mapped: a file that is truncated or replaced while
// the server runs cannot hurt it. FORMAT.md specifies the factored format.
//
//   absl::StatusOr<Model> model = LoadModel("models/minilm-r50");
//   const ModelShape& shape = model->shape;
#ifndef SVDSERVE_ENGINE_MODEL_MODEL_H_
#define SVDSERVE_ENGINE_MODEL_MODEL_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/architecture.h"
#include "engine/model/model_shape.h"
#include "engine/model/tensor.h"

namespace svdserve {

enum class Task { kEmbedding, kClassification };
enum class Pooling { kMean, kCls, kMax };

// y = x·W + b. Either dense, or W = U·V.
struct Linear {
  int in = 0;
  int out = 0;
  int rank = 0;   // 0: dense
  Tensor weight;  // dense:    [out, in], as Hugging Face stores it
  Tensor u;       // factored: [in, rank]
  Tensor v;       // factored: [rank, out]
  Tensor bias;    // [out], or empty
};

struct LayerNorm {
  Tensor gamma;  // [hidden]
  Tensor beta;   // [hidden]
};

struct Embeddings {
  Tensor word;        // [vocab, hidden]
  Tensor position;    // [max_positions, hidden]
  Tensor token_type;  // [type_vocab, hidden]; [1, hidden] of zeros for none
  LayerNorm norm;
};

struct EncoderLayer {
  Linear query, key;        // [hidden -> heads * query_dim]
  Linear value;             // [hidden -> heads * value_dim]
  Linear attention_output;  // [heads * value_dim -> hidden]
  LayerNorm attention_norm;
  Linear ffn_in;   // [hidden -> intermediate]
  Linear ffn_out;  // [intermediate -> hidden]
  LayerNorm ffn_norm;
};

// A linear map and an activation after pooling: sentence-transformers' Dense
// modules, or the parts of a classifier, in order.
struct HeadLayer {
  Linear linear;
  HeadActivation activation = HeadActivation::kIdentity;
};

struct ModelConfig {
  std::string name;  // directory's last component
  Task task = Task::kEmbedding;
  Pooling pooling = Pooling::kMean;
  bool normalize = false;  // sentence-transformers' Normalize module
  int max_tokens = 512;    // special tokens included
  float layer_norm_eps = 1e-12f;
  std::vector<std::string> labels;             // classification: [num_labels]
  std::map<std::string, std::string> prompts;  // name -> prefix
  std::string default_prompt;                  // a key of prompts, or ""
};

struct Model {
  const Architecture* architecture = nullptr;  // of the checkpoint; static
  ModelConfig config;
  ModelShape shape;
  Embeddings embeddings;
  std::vector<EncoderLayer> layers;
  std::vector<HeadLayer> head;

  uint64_t WeightBytes() const;  // as stored
  // If nothing were factored and all heads were as wide as head_dim.
  uint64_t DenseEquivalentBytes() const;
};

// Reads a Hugging Face or sentence-transformers directory, dense, factored or
// mixed. Errors name file, tensor and reason; INVALID_ARGUMENT for damaged
// files, NOT_FOUND for absent ones, UNIMPLEMENTED for architectures that are
// not served.
absl::StatusOr<Model> LoadModel(const std::string& directory);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_MODEL_MODEL_H_
