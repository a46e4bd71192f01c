#include "engine/engine.h"

#include <memory>
#include <utility>
#include <vector>

#include "engine/device/backend.h"
#include "engine/engine_impl.h"
#include "engine/model/model.h"
#include "engine/text/tokenizer.h"

namespace svdserve {

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(
    const EngineOptions& options, Observer* observer) {
  absl::StatusOr<Model> model = LoadModel(options.model_directory);
  if (!model.ok()) return model.status();
  absl::StatusOr<std::unique_ptr<const Tokenizer>> tokenizer =
      Tokenizer::Load(options.model_directory);
  if (!tokenizer.ok()) return tokenizer.status();
  absl::StatusOr<std::vector<std::unique_ptr<Backend>>> backends =
      CreateBackends(*model, options.backend);
  if (!backends.ok()) return backends.status();
  EngineParts parts;
  parts.backends = *std::move(backends);
  parts.tokenizer = *std::move(tokenizer);
  parts.config = model->config;
  parts.shape = model->shape;
  parts.type_vocab =
      static_cast<int>(model->embeddings.token_type.shape().front());
  parts.weight_bytes = model->WeightBytes();
  parts.dense_equivalent_weight_bytes = model->DenseEquivalentBytes();
  parts.observer = observer;
  return MakeEngine(options, std::move(parts));
}

}  // namespace svdserve
