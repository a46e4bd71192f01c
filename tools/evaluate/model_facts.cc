#include "tools/evaluate/model_facts.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tools/compress/budget.h"

namespace svdserve {
namespace {

namespace fs = std::filesystem;

// The batch that costs are told of: that of ActivationBytesPerToken().
constexpr int kCostInputs = 32;
constexpr int kCostTokens = 256;

int64_t Size(const Linear& linear) {
  return linear.weight.size() + linear.u.size() + linear.v.size() +
         linear.bias.size();
}
int64_t Size(const LayerNorm& norm) {
  return norm.gamma.size() + norm.beta.size();
}

int64_t Parameters(const Model& model) {
  const Embeddings& embeddings = model.embeddings;
  int64_t sum = embeddings.word.size() + embeddings.position.size() +
                embeddings.token_type.size() + Size(embeddings.norm);
  for (const EncoderLayer& layer : model.layers) {
    for (const EncoderMatrix& kind : kEncoderMatrices)
      sum += Size(layer.*kind.linear);
    sum += Size(layer.attention_norm) + Size(layer.ffn_norm);
  }
  for (const HeadLayer& head : model.head) sum += Size(head.linear);
  return sum;
}

absl::StatusOr<uint64_t> FileBytes(const std::string& directory) {
  uint64_t sum = 0;
  std::error_code error;
  fs::recursive_directory_iterator files(directory, error);
  for (; !error && files != fs::end(files); files.increment(error)) {
    if (files->path().extension() != ".safetensors") continue;
    sum += fs::file_size(files->path(), error);
    if (error) break;
  }
  if (error) return absl::ErrnoToStatus(error.value(), directory);
  return sum;
}

absl::StatusOr<nlohmann::ordered_json> ReadCompression(
    const std::string& directory) {
  const fs::path path = fs::path(directory) / "compression.json";
  std::ifstream file(path, std::ios::binary);
  if (!file) return nlohmann::ordered_json();
  auto json = nlohmann::ordered_json::parse(file, nullptr,
                                            /*allow_exceptions=*/false);
  if (json.is_object()) return json;
  return absl::InvalidArgumentError(
      absl::StrCat(path.string(),
                   " is no JSON object; remove it, or compress "
                   "the model again"));
}

}  // namespace

absl::StatusOr<ModelFacts> FactsOf(const std::string& directory,
                                   const Model& model) {
  ModelFacts facts;
  facts.name = model.config.name;
  facts.parameters = Parameters(model);
  facts.cost_inputs = kCostInputs;
  facts.cost_tokens = std::min(kCostTokens, model.shape.max_tokens);
  for (const EncoderLayer& layer : model.layers) {
    std::vector<MatrixFacts>& matrices = facts.layers.emplace_back();
    for (const EncoderMatrix& kind : kEncoderMatrices) {
      const Linear& linear = layer.*kind.linear;
      matrices.push_back({kind.name, linear.in, linear.out, linear.rank});
      facts.matrix_parameters += matrices.back().parameters();
    }
    // A token's query with all keys, its weights with all values.
    facts.flops_per_token +=
        int64_t{2} * facts.cost_tokens * (layer.query.out + layer.value.out);
  }
  facts.flops_per_token += 2 * facts.matrix_parameters;

  const absl::StatusOr<double> activations =
      ActivationBytesPerToken(model.shape);
  if (!activations.ok()) return activations.status();
  facts.activation_bytes_per_token = *activations;
  absl::StatusOr<uint64_t> bytes = FileBytes(directory);
  if (!bytes.ok()) return bytes.status();
  facts.file_bytes = *bytes;
  auto compression = ReadCompression(directory);
  if (!compression.ok()) return compression.status();
  facts.compression = *std::move(compression);
  return facts;
}

}  // namespace svdserve
