// Compressed models against the dense model that they were made from, on texts:
// what `svdctl evaluate` reports.
//
//   auto texts = ReadTexts("texts.txt");
//   absl::StatusOr<Evaluation> e = Evaluate("minilm", {"minilm-r50"}, *texts);
//   std::puts(e->ToText().c_str());
#ifndef SVDSERVE_TOOLS_EVALUATE_EVALUATE_H_
#define SVDSERVE_TOOLS_EVALUATE_EVALUATE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model.h"
#include "tools/evaluate/metrics.h"
#include "tools/evaluate/model_facts.h"
#include "tools/evaluate/spectra.h"
#include "tools/evaluate/texts.h"

namespace svdserve {

struct EvaluateOptions {
  int threads = 0;      // 0: one per processor
  uint64_t seed = 0;    // of the samples that are taken of many texts
  bool spectra = true;  // of the dense model's matrices
  // Before each part of the work, with what it is.
  std::function<void(const std::string&)> progress = nullptr;
};

// A text whose output the compression moved far.
struct WorstText {
  int number = 0;         // of the texts, from 1
  std::string text = {};  // shortened
  double cosine = 0;      // embeddings
  double max_error = 0;   // classification: of the logits
  std::string dense_label = {};
  std::string compressed_label = {};
};

struct EmbeddingFidelity {
  Distribution cosine;
  Histogram histogram;  // of the cosines
  NeighbourAgreement neighbours;
  SimilarityAgreement similarities;
};

struct ModelEvaluation {
  ModelFacts facts;
  double ratio = 0;  // of the dense model's matrix_parameters
  std::optional<EmbeddingFidelity> embedding;    // by the model's task:
  std::optional<LogitAgreement> classification;  // one of the two
  // After the embeddings and each layer: see layer_errors.h.
  std::vector<std::optional<double>> layer_errors;
  std::vector<WorstText> worst;  // worst first
};

struct Evaluation {
  std::string source;  // of the texts
  int texts = 0;
  int64_t tokens = 0;
  int truncated = 0;  // texts cut to max_tokens
  int max_tokens = 0;
  int layer_texts = 0;  // that layer_errors are of
  uint64_t seed = 0;
  Task task = Task::kEmbedding;
  std::vector<std::string> labels;
  ModelFacts dense;
  std::vector<Spectrum> spectra;  // of the dense model
  std::vector<ModelEvaluation> models;

  std::string ToText() const;  // a few lines for a terminal
  // The same texts, models, seed and processor give the same bytes.
  std::string ToJson() const;
  // One page with all that it needs in it: see page/.
  std::string ToHtml() const;
};

// Runs one model at a time, in float32 on the CPU. FAILED_PRECONDITION, naming
// what differs, for a model that was not made from `dense`: another task,
// shape, pooling, labels or tokenizer.
absl::StatusOr<Evaluation> Evaluate(const std::string& dense,
                                    const std::vector<std::string>& compressed,
                                    const TextSet& texts,
                                    const EvaluateOptions& options = {});

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_EVALUATE_EVALUATE_H_
