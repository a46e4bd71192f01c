#include "tools/evaluate/layer_errors.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "engine/model/model.h"
#include "kernels/team.h"
#include "tools/evaluate/metrics.h"

namespace svdserve {
namespace {

constexpr int64_t kMostBytes = int64_t{256} << 20;
constexpr int64_t kMostTokens = 8192;  // what one layer computes at once

// Calls visit(states, index) after the embeddings and after each layer.
absl::Status VisitStates(
    const std::string& directory, const TokenBatch& batch, int threads,
    const std::function<void(const FloatMatrix&, int)>& visit) {
  const absl::StatusOr<Model> model = LoadModel(directory);
  if (!model.ok()) return model.status();
  kernels::Team team(threads, "evaluate");
  absl::StatusOr<FloatMatrix> states = EmbedTokens(*model, batch, team);
  if (!states.ok()) return states.status();
  visit(*states, 0);
  int index = 0;
  for (const EncoderLayer& layer : model->layers) {
    auto forward = ForwardLayer::Create(*model, layer, team);
    if (!forward.ok()) return forward.status();
    states = forward->Run(batch, *std::move(states), team, nullptr);
    if (!states.ok()) return states.status();
    visit(*states, ++index);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LayerSample> MakeLayerSample(const std::string& dense,
                                            const ModelShape& shape,
                                            const TokenizedTexts& texts,
                                            int threads, uint64_t seed) {
  const int64_t bytes_per_token =
      int64_t{4} * shape.hidden * (shape.layers.size() + 1);
  const int64_t tokens = std::min(kMostTokens, kMostBytes / bytes_per_token);
  const int count = static_cast<int>(texts.encodings.size());
  // About as many as fit, whatever their lengths; the first always does.
  const auto wanted = static_cast<int>(
      count * std::min(1.0, static_cast<double>(tokens) / texts.tokens));
  LayerSample sample;
  for (const int i : Sample(count, std::max(wanted, 1), seed)) {
    const int length = static_cast<int>(texts.encodings[i].ids.size());
    const bool is_first = sample.batch.sequences() == 0;
    if (is_first || sample.batch.tokens() + length <= tokens) {
      sample.batch.Add(texts.encodings[i]);
    }
  }
  absl::Status status = VisitStates(dense, sample.batch, threads,
                                    [&sample](const FloatMatrix& states, int) {
                                      sample.dense.push_back(states.Copy());
                                    });
  if (!status.ok()) return status;
  return sample;
}

absl::StatusOr<std::vector<std::optional<double>>> LayerErrors(
    const LayerSample& sample, const std::string& compressed, int threads) {
  std::vector<std::optional<double>> errors;
  absl::Status status = VisitStates(compressed, sample.batch, threads,
                                    [&](const FloatMatrix& states, int index) {
                                      RelativeError error;
                                      error.Add(sample.dense[index].data(),
                                                states.data(), states.size());
                                      errors.push_back(error.value());
                                    });
  if (!status.ok()) return status;
  return errors;
}

}  // namespace svdserve
