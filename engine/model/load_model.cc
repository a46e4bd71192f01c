// LoadModel: configuration, then every weight that it implies, then nothing
// that it does not.

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/architecture.h"
#include "engine/model/bert_config.h"
#include "engine/model/checkpoint.h"
#include "engine/model/model.h"
#include "engine/model/modules.h"
#include "engine/model/strict_json.h"

namespace svdserve {
namespace {

// Fills Model parts from a checkpoint and remembers which tensors it used. The
// first error is kept; the rest then returns empty tensors.
class WeightLoader {
 public:
  WeightLoader(const Checkpoint& checkpoint, const Architecture& architecture)
      : checkpoint_(checkpoint), architecture_(architecture) {}

  Tensor Load(const std::string& name, const std::vector<int64_t>& shape) {
    if (!status_.ok()) return Tensor();
    absl::StatusOr<Tensor> tensor = checkpoint_.Load(name, shape);
    if (!tensor.ok()) {
      status_ = tensor.status();
      return Tensor();
    }
    used_.insert(name);
    return *std::move(tensor);
  }

  LayerNorm LoadNorm(const std::string& name, int width) {
    return {.gamma = Load(name + ".weight", {width}),
            .beta = Load(name + ".bias", {width})};
  }

  // NAME.weight, or NAME.U and NAME.V; NAME.bias.
  Linear LoadLinear(const std::string& name, int in, int out,
                    bool bias = true) {
    Linear linear;
    linear.in = in;
    linear.out = out;
    const std::string u = name + ".U";
    const std::string v = name + ".V";
    if (checkpoint_.Has(u) || checkpoint_.Has(v)) {
      linear.rank = CheckFactors(name, u, v, in, out);
      linear.u = Load(u, {in, linear.rank});
      linear.v = Load(v, {linear.rank, out});
    } else {
      linear.weight = Load(name + ".weight", {out, in});
    }
    if (bias) linear.bias = Load(name + ".bias", {out});
    return linear;
  }

  // The width of each of `heads` heads to which NAME maps, by its stored shape;
  // `usual` where that is absent or no matrix, which LoadLinear() will say.
  int HeadDim(const std::string& name, int heads, int usual) {
    const std::string tensor = Stored(name, ".V");
    if (!checkpoint_.Has(tensor)) return usual;
    const std::vector<int64_t>& shape = checkpoint_.Entry(tensor).shape;
    if (shape.size() != 2) return usual;
    const int64_t width = shape[tensor.ends_with(".V") ? 1 : 0];
    if (width == int64_t{1} * heads * usual) return usual;
    const int64_t dim = width / heads;
    if (width % heads != 0 || dim % kHeadDimStep != 0 || dim < kHeadDimStep ||
        dim > kMaxHeadDim) {
      Fail(checkpoint_.Error(
          tensor, absl::StrCat("has an output width of ", width, " for ", heads,
                               " heads; it must be ", heads, " times ", usual,
                               ", or times a multiple of ", kHeadDimStep,
                               " up to ", kMaxHeadDim)));
      return usual;
    }
    return static_cast<int>(dim);
  }

  // Other heads than the usual ones need the format that has them. `factor` is
  // the one that is as wide as the heads.
  void CheckHeadFormat(const std::string& name, const std::string& factor,
                       int dim, int usual) {
    const std::string tensor = Stored(name, factor);
    if (dim == usual || !checkpoint_.Has(tensor) ||
        checkpoint_.FormatOf(tensor) == kHeadDimsVersion) {
      return;
    }
    Fail(checkpoint_.Error(
        tensor, absl::StrCat("has heads of width ", dim,
                             ", not hidden_size / "
                             "num_attention_heads (",
                             usual, "); then the file's metadata must say ",
                             kFormatKey, " = \"", kHeadDimsVersion, "\"")));
  }

  // Queries and keys are multiplied with each other.
  void CheckSameHeadDim(const std::string& query, int query_dim,
                        const std::string& key, int key_dim) {
    if (query_dim == key_dim) return;
    Fail(checkpoint_.Error(
        Stored(key, ".V"),
        absl::StrCat("has heads of width ", key_dim, ", but \"",
                     checkpoint_.OwnName(Stored(query, ".V")),
                     "\" has heads of width ", query_dim,
                     "; they must be the same")));
  }

  // Tensors that change what the encoder computes must all be used.
  void RefuseUnused() {
    for (const auto& [name, location] : checkpoint_.tensors()) {
      if (!status_.ok()) return;
      if (used_.contains(name) || Ignored(name)) continue;
      status_ = checkpoint_.Error(name, "is not part of this architecture");
    }
  }

  const absl::Status& status() const { return status_; }

 private:
  void Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

  // The tensor that holds NAME's matrix: this factor of it, or all.
  std::string Stored(const std::string& name, const std::string& factor) const {
    return name + (checkpoint_.Has(name + factor) ? factor : ".weight");
  }

  // The rank, which U and V must agree on.
  int CheckFactors(const std::string& name, const std::string& u,
                   const std::string& v, int in, int out) {
    for (const std::string& factor : {u, v}) {
      if (checkpoint_.Has(factor)) continue;
      const std::string& other = factor == u ? v : u;
      Fail(checkpoint_.Error(
          other,
          absl::StrCat("comes without \"", checkpoint_.OwnName(factor), "\"")));
      return 0;
    }
    if (checkpoint_.Has(name + ".weight")) {
      Fail(checkpoint_.Error(
          u, "the same matrix is also stored dense, under .weight"));
      return 0;
    }
    const std::vector<int64_t>& shape = checkpoint_.Entry(u).shape;
    const int64_t most = std::min(in, out);
    if (shape.size() != 2 || shape[1] < 1 || shape[1] > most) {
      Fail(checkpoint_.Error(u, absl::StrCat("its shape must be [", in,
                                             ", rank] with a rank "
                                             "from 1 to ",
                                             most)));
      return 0;
    }
    return static_cast<int>(shape[1]);
  }

  // Buffers, and heads that the task does not use.
  bool Ignored(std::string_view name) const {
    return name == "embeddings.position_ids" ||
           name == "embeddings.token_type_ids" ||
           std::ranges::any_of(architecture_.heads, [name](const auto& head) {
             return name.starts_with(head);
           });
  }

  const Checkpoint& checkpoint_;
  const Architecture& architecture_;
  std::set<std::string> used_;
  absl::Status status_;
};

// A matrix without its first `count` rows; shares its bytes.
Tensor DropRows(const Tensor& matrix, int count) {
  if (matrix.empty() || count == 0) return matrix;
  std::vector<int64_t> shape = matrix.shape();
  const int64_t skipped = count * shape[1] * BytesOf(matrix.dtype());
  shape[0] -= count;
  return Tensor(matrix.dtype(), std::move(shape),
                {matrix.bytes(), matrix.data() + skipped});
}

Tensor LoadPositions(const BertConfig& bert, WeightLoader& weights) {
  const int rows = bert.unused_positions + bert.max_positions;
  return DropRows(weights.Load("embeddings.position_embeddings.weight",
                               {rows, bert.hidden}),
                  bert.unused_positions);
}

// One row of zeros for a model without token types.
Tensor LoadTokenTypes(const BertConfig& bert, WeightLoader& weights) {
  if (!bert.architecture->token_types) {
    return Tensor::FromF32({1, bert.hidden}, std::vector<float>(bert.hidden));
  }
  return weights.Load("embeddings.token_type_embeddings.weight",
                      {bert.type_vocab, bert.hidden});
}

Embeddings LoadEmbeddings(const BertConfig& bert, WeightLoader& weights) {
  return {.word = weights.Load("embeddings.word_embeddings.weight",
                               {bert.vocab, bert.hidden}),
          .position = LoadPositions(bert, weights),
          .token_type = LoadTokenTypes(bert, weights),
          .norm = weights.LoadNorm("embeddings.LayerNorm", bert.hidden)};
}

// The matrices of a layer's attention.
struct AttentionNames {
  std::string query, key, value, output;
};

struct HeadDims {
  int query = 0;
  int value = 0;
};

// The widths of a layer's heads, by the shapes of its matrices.
HeadDims LoadHeadDims(const BertConfig& bert, const AttentionNames& names,
                      WeightLoader& weights) {
  const int usual = bert.hidden / bert.heads;
  const auto dim = [&](const std::string& name) {
    return weights.HeadDim(name, bert.heads, usual);
  };
  const HeadDims dims = {.query = dim(names.query), .value = dim(names.value)};
  weights.CheckSameHeadDim(names.query, dims.query, names.key, dim(names.key));
  weights.CheckHeadFormat(names.query, ".V", dims.query, usual);
  weights.CheckHeadFormat(names.key, ".V", dims.query, usual);
  weights.CheckHeadFormat(names.value, ".V", dims.value, usual);
  weights.CheckHeadFormat(names.output, ".U", dims.value, usual);
  return dims;
}

EncoderLayer LoadLayer(const BertConfig& bert, int index,
                       WeightLoader& weights) {
  const int d = bert.hidden;
  const int ffn = bert.intermediate;
  const std::string layer = absl::StrCat("encoder.layer.", index, ".");
  const std::string attention = layer + "attention.";
  const AttentionNames names = {.query = attention + "self.query",
                                .key = attention + "self.key",
                                .value = attention + "self.value",
                                .output = attention + "output.dense"};
  const HeadDims dims = LoadHeadDims(bert, names, weights);
  const int query_width = bert.heads * dims.query;
  const int value_width = bert.heads * dims.value;
  return {
      .query = weights.LoadLinear(names.query, d, query_width),
      .key = weights.LoadLinear(names.key, d, query_width),
      .value = weights.LoadLinear(names.value, d, value_width),
      .attention_output = weights.LoadLinear(names.output, value_width, d),
      .attention_norm = weights.LoadNorm(attention + "output.LayerNorm", d),
      .ffn_in = weights.LoadLinear(layer + "intermediate.dense", d, ffn),
      .ffn_out = weights.LoadLinear(layer + "output.dense", ffn, d),
      .ffn_norm = weights.LoadNorm(layer + "output.LayerNorm", d),
  };
}

LayerShape LayerShapeFrom(const EncoderLayer& layer, const ModelShape& model) {
  const int query_dim = layer.query.out / model.heads;
  const int value_dim = layer.value.out / model.heads;
  return {.query = layer.query.rank,
          .key = layer.key.rank,
          .value = layer.value.rank,
          .attention_output = layer.attention_output.rank,
          .ffn_in = layer.ffn_in.rank,
          .ffn_out = layer.ffn_out.rank,
          .query_dim = query_dim == model.head_dim ? 0 : query_dim,
          .value_dim = value_dim == model.head_dim ? 0 : value_dim};
}

std::vector<HeadLayer> LoadClassifier(const BertConfig& bert,
                                      WeightLoader& weights) {
  const auto& [inner, last] = bert.architecture->head;
  const int labels = static_cast<int>(bert.labels.size());
  return {{.linear = weights.LoadLinear(inner.name, bert.hidden, bert.hidden),
           .activation = inner.activation},
          {.linear = weights.LoadLinear(last.name, bert.hidden, labels),
           .activation = last.activation}};
}

// The Dense modules of sentence-transformers, each from files of its own.
absl::StatusOr<std::vector<HeadLayer>> LoadDenseModules(
    const std::vector<DenseModule>& modules, const Architecture& architecture) {
  std::vector<HeadLayer> head;
  for (const DenseModule& module : modules) {
    absl::StatusOr<Checkpoint> checkpoint =
        Checkpoint::Open(module.directory, architecture);
    if (!checkpoint.ok()) return checkpoint.status();
    WeightLoader weights(*checkpoint, architecture);
    head.push_back({.linear = weights.LoadLinear("linear", module.in,
                                                 module.out, module.bias),
                    .activation = module.activation});
    weights.RefuseUnused();
    if (!weights.status().ok()) return weights.status();
  }
  return head;
}

// "models/minilm/" -> "minilm".
std::string NameOf(const std::string& directory) {
  std::filesystem::path path =
      std::filesystem::path(directory).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

absl::StatusOr<ModelConfig> MakeConfig(const std::string& directory,
                                       const BertConfig& bert,
                                       const SentenceModules& modules) {
  const std::string list = JoinPath(directory, "modules.json");
  const bool classifier = bert.task == Task::kClassification;
  if (modules.listed && !classifier && modules.transformer_only) {
    return absl::UnimplementedError(absl::StrCat(
        list, ": has no Pooling module; token embeddings are not served"));
  }
  ModelConfig config;
  config.name = NameOf(directory);
  // With a Pooling module it embeds, whatever head it was trained with.
  config.task = modules.listed && !modules.transformer_only ? Task::kEmbedding
                                                            : bert.task;
  config.pooling =
      config.task == Task::kClassification ? Pooling::kCls : modules.pooling;
  config.normalize = modules.normalize;
  config.max_tokens = std::min(bert.max_positions,
                               modules.max_tokens.value_or(bert.max_positions));
  config.layer_norm_eps = bert.layer_norm_eps;
  if (config.task == Task::kClassification) config.labels = bert.labels;
  config.prompts = modules.prompts;
  config.default_prompt = modules.default_prompt;
  return config;
}

ModelShape ShapeFrom(const BertConfig& bert, const Model& model) {
  ModelShape shape;
  shape.hidden = bert.hidden;
  shape.heads = bert.heads;
  shape.head_dim = bert.hidden / bert.heads;
  shape.intermediate = bert.intermediate;
  shape.vocab = bert.vocab;
  shape.max_positions = bert.max_positions;
  shape.type_vocab = bert.type_vocab;
  shape.max_tokens = model.config.max_tokens;
  shape.activation = bert.activation;
  for (const EncoderLayer& layer : model.layers) {
    shape.layers.push_back(LayerShapeFrom(layer, shape));
  }
  for (const HeadLayer& head : model.head) {
    shape.head_widths.push_back(head.linear.out);
  }
  return shape;
}

}  // namespace

absl::StatusOr<Model> LoadModel(const std::string& directory) {
  const std::string config_path = JoinPath(directory, "config.json");
  absl::StatusOr<nlohmann::json> json = ReadStrictJson(config_path);
  if (!json.ok()) return json.status();
  absl::StatusOr<BertConfig> bert = ParseBertConfig(*json, config_path);
  if (!bert.ok()) return bert.status();
  absl::StatusOr<SentenceModules> modules =
      ReadSentenceModules(directory, bert->hidden);
  if (!modules.ok()) return modules.status();
  absl::StatusOr<ModelConfig> config = MakeConfig(directory, *bert, *modules);
  if (!config.ok()) return config.status();
  const Architecture& architecture = *bert->architecture;
  absl::StatusOr<Checkpoint> checkpoint =
      Checkpoint::Open(directory, architecture);
  if (!checkpoint.ok()) return checkpoint.status();

  Model model;
  model.architecture = &architecture;
  model.config = *std::move(config);
  WeightLoader weights(*checkpoint, architecture);
  model.embeddings = LoadEmbeddings(*bert, weights);
  for (int i = 0; i < bert->layers && weights.status().ok(); ++i) {
    model.layers.push_back(LoadLayer(*bert, i, weights));
  }
  if (model.config.task == Task::kClassification) {
    model.head = LoadClassifier(*bert, weights);
  } else {
    absl::StatusOr<std::vector<HeadLayer>> head =
        LoadDenseModules(modules->dense, architecture);
    if (!head.ok()) return head.status();
    model.head = *std::move(head);
  }
  weights.RefuseUnused();
  if (!weights.status().ok()) return weights.status();
  model.shape = ShapeFrom(*bert, model);
  return model;
}

}  // namespace svdserve
