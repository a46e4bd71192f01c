// An Evaluation as text and as JSON; page.cc makes the page of the JSON.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "tools/evaluate/evaluate.h"

namespace svdserve {
namespace {

using Json = nlohmann::ordered_json;

Json OrNull(const std::optional<double>& value) {
  return value.has_value() ? Json(*value) : Json();
}

Json FactsJson(const ModelFacts& facts) {
  Json json = {
      {"name", facts.name},
      {"parameters", facts.parameters},
      {"encoder_matrix_parameters", facts.matrix_parameters},
      {"file_bytes", facts.file_bytes},
      {"flops_per_token", facts.flops_per_token},
      {"activation_bytes_per_token", facts.activation_bytes_per_token}};
  for (const std::vector<MatrixFacts>& layer : facts.layers) {
    Json row;
    for (const MatrixFacts& matrix : layer) {
      row[matrix.kind] = {{"in", matrix.in},
                          {"out", matrix.out},
                          {"rank", matrix.rank},
                          {"parameters", matrix.parameters()}};
    }
    json["layers"].push_back(row);
  }
  json["compression"] = facts.compression;
  return json;
}

Json EmbeddingJson(const EmbeddingFidelity& fidelity) {
  const Distribution& cosine = fidelity.cosine;
  return {{"cosine",
           {{"mean", cosine.mean},
            {"min", cosine.min},
            {"p1", cosine.p1},
            {"p5", cosine.p5},
            {"p50", cosine.p50},
            {"histogram",
             {{"low", fidelity.histogram.low},
              {"high", fidelity.histogram.high},
              {"counts", fidelity.histogram.counts}}}}},
          {"neighbours",
           {{"queries", fidelity.neighbours.queries},
            {"recall_at_1", OrNull(fidelity.neighbours.recall_at_1)},
            {"recall_at_10", OrNull(fidelity.neighbours.recall_at_10)}}},
          {"similarities",
           {{"pairs", fidelity.similarities.pairs},
            {"sampled", fidelity.similarities.sampled},
            {"spearman", OrNull(fidelity.similarities.spearman)}}}};
}

Json LogitJson(const LogitAgreement& agreement) {
  return {{"argmax_agreement", OrNull(agreement.argmax)},
          {"score_spearman", OrNull(agreement.score_spearman)},
          {"mean_logit_error", agreement.mean_error},
          {"max_logit_error", agreement.max_error}};
}

Json WorstJson(const WorstText& worst, Task task) {
  Json json = {{"number", worst.number}};
  if (task == Task::kEmbedding) {
    json["cosine"] = worst.cosine;
  } else {
    json["max_logit_error"] = worst.max_error;
    json["dense_label"] = worst.dense_label;
    json["compressed_label"] = worst.compressed_label;
  }
  json["text"] = worst.text;
  return json;
}

Json ModelJson(const ModelEvaluation& model, Task task) {
  Json json = FactsJson(model.facts);
  json["ratio"] = model.ratio;
  if (model.embedding) json["embedding"] = EmbeddingJson(*model.embedding);
  if (model.classification) {
    json["classification"] = LogitJson(*model.classification);
  }
  for (const std::optional<double>& error : model.layer_errors) {
    json["layer_errors"].push_back(OrNull(error));
  }
  for (const WorstText& worst : model.worst) {
    json["worst"].push_back(WorstJson(worst, task));
  }
  return json;
}

std::string Number(const std::optional<double>& value) {
  return value.has_value() ? absl::StrFormat("%.4f", *value) : "-";
}

}  // namespace

std::string Evaluation::ToJson() const {
  Json json = {
      {"texts",
       {{"source", source},
        {"count", texts},
        {"tokens", tokens},
        {"truncated", truncated},
        {"max_tokens", max_tokens}}},
      {"task", task == Task::kEmbedding ? "embedding" : "classification"},
      {"labels", labels},
      {"seed", seed},
      {"layer_error_texts", layer_texts},
      {"cost_batch",
       {{"inputs", dense.cost_inputs}, {"tokens", dense.cost_tokens}}},
      {"dense", FactsJson(dense)},
      {"models", Json::array()}};
  for (const Spectrum& spectrum : spectra) {
    json["dense"]["spectra"].push_back({{"layer", spectrum.layer},
                                        {"kind", spectrum.kind},
                                        {"values", spectrum.values}});
  }
  for (const ModelEvaluation& model : models) {
    json["models"].push_back(ModelJson(model, task));
  }
  return json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) +
         "\n";
}

std::string Evaluation::ToText() const {
  std::string text = absl::StrFormat("%d texts, %d tokens of %s against %s\n",
                                     texts, tokens, source, dense.name);
  if (truncated > 0) {
    absl::StrAppendFormat(&text, "%d of them were cut to %d tokens\n",
                          truncated, max_tokens);
  }
  for (const ModelEvaluation& model : models) {
    absl::StrAppendFormat(&text, "%s: %.4f of the encoder's matrices\n",
                          model.facts.name, model.ratio);
    if (model.embedding) {
      const EmbeddingFidelity& fidelity = *model.embedding;
      absl::StrAppendFormat(
          &text,
          "  cosine      mean %.6f, p5 %.6f, p1 %.6f, least %.6f\n"
          "  neighbours  recall@1 %s, recall@10 %s\n"
          "  Spearman    %s of similarities\n",
          fidelity.cosine.mean, fidelity.cosine.p5, fidelity.cosine.p1,
          fidelity.cosine.min, Number(fidelity.neighbours.recall_at_1),
          Number(fidelity.neighbours.recall_at_10),
          Number(fidelity.similarities.spearman));
    }
    if (model.classification) {
      const LogitAgreement& agreement = *model.classification;
      absl::StrAppendFormat(&text,
                            "  same label  %s\n"
                            "  logits      error %.6f mean, %.6f max\n",
                            Number(agreement.argmax), agreement.mean_error,
                            agreement.max_error);
      if (agreement.score_spearman) {
        absl::StrAppendFormat(&text, "  Spearman    %s of scores\n",
                              Number(agreement.score_spearman));
      }
    }
    absl::StrAppendFormat(&text, "  last layer  relative error %s\n",
                          Number(model.layer_errors.back()));
  }
  return text;
}

}  // namespace svdserve
