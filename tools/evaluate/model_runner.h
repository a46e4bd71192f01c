// A model on the engine's CPU backend, in float32: what a server would answer,
// without a server.
//
// Owns tokenizer and packed weights. Not thread-safe; the backend has threads.
//
//   auto runner = ModelRunner::Load("minilm", {.threads = 2});
//   auto tokens = (*runner)->Tokenize(texts);
//   absl::StatusOr<Outputs> outputs = (*runner)->Run(*tokens);
#ifndef SVDSERVE_TOOLS_EVALUATE_MODEL_RUNNER_H_
#define SVDSERVE_TOOLS_EVALUATE_MODEL_RUNNER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/device/backend.h"
#include "engine/model/model.h"
#include "engine/plan/plan.h"
#include "engine/text/tokenizer.h"
#include "tools/evaluate/metrics.h"
#include "tools/evaluate/model_facts.h"

namespace svdserve {

struct TokenizedTexts {
  std::vector<Encoding> encodings;  // [texts] without offsets
  int64_t tokens = 0;               // special tokens included
  int truncated = 0;                // texts cut to the model's max_tokens
};

class ModelRunner {
 public:
  static absl::StatusOr<std::unique_ptr<ModelRunner>> Load(
      const std::string& directory, int threads);

  const ModelConfig& config() const { return config_; }
  const ModelShape& shape() const { return shape_; }
  const ModelFacts& facts() const { return facts_; }
  int threads() const { return backend_->target().threads; }

  // As the engine does it: with the model's default prompt, cut at its
  // max_tokens.
  absl::StatusOr<TokenizedTexts> Tokenize(
      const std::vector<std::string>& texts) const;

  // Embeddings of unit length, or logits; [texts, output_width]. INTERNAL,
  // naming the text's place, if one is not finite.
  absl::StatusOr<Outputs> Run(const TokenizedTexts& texts);

 private:
  ModelRunner() = default;
  absl::Status RunBatch(const TokenizedTexts& texts, size_t first, size_t end,
                        Outputs* outputs);

  ModelConfig config_;
  ModelShape shape_;
  ModelFacts facts_;
  int type_vocab_ = 0;
  std::unique_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Planner> planner_;
};

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_EVALUATE_MODEL_RUNNER_H_
