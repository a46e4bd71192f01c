#include "tools/compress/report.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

namespace svdserve {
namespace {

std::string FormName(const MatrixReport& m) {
  if (m.rank > 0) return absl::StrCat(m.rank);
  const bool narrower =
      m.size.in != m.dense_size.in || m.size.out != m.dense_size.out;
  return narrower ? absl::StrCat(m.size.in, "x", m.size.out)
                  : std::string("dense");
}

std::string Describe(const Candidate& candidate) {
  return absl::StrFormat(
      "%s (mean cosine %.4f, %.0f activation bytes a token)",
      candidate.narrow_heads ? "narrower heads" : "factors alone",
      candidate.held_out_cosine, candidate.activation_bytes_per_token);
}

nlohmann::ordered_json CandidateJson(const Candidate& candidate) {
  return {{"narrow_heads", candidate.narrow_heads},
          {"held_out_mean_cosine", candidate.held_out_cosine},
          {"activation_bytes_per_token", candidate.activation_bytes_per_token}};
}

}  // namespace

const char* MatrixKindName(MatrixKind kind) {
  switch (kind) {
    case MatrixKind::kQuery:
      return "query";
    case MatrixKind::kKey:
      return "key";
    case MatrixKind::kValue:
      return "value";
    case MatrixKind::kAttentionOutput:
      return "attention_output";
    case MatrixKind::kFfnIn:
      return "ffn_in";
    case MatrixKind::kFfnOut:
      return "ffn_out";
  }
  return "?";
}

int64_t CompressionReport::dense_parameters() const {
  int64_t sum = 0;
  for (const MatrixReport& m : matrices) sum += m.dense_size.dense_parameters();
  return sum;
}

int64_t CompressionReport::kept_parameters() const {
  int64_t sum = 0;
  for (const MatrixReport& m : matrices) sum += m.size.parameters(m.rank);
  return sum;
}

double CompressionReport::kept_ratio() const {
  return static_cast<double>(kept_parameters()) / dense_parameters();
}

bool CompressionReport::HasNarrowHeads() const {
  return std::any_of(forms.begin(), forms.end(), [](const LayerForm& form) {
    return form.query_dim > 0 || form.value_dim > 0;
  });
}

std::string CompressionReport::ToTable() const {
  constexpr char kCell[] = "%17s";
  std::string table = absl::StrFormat("%-8s", "");
  for (int k = 0; k < kMatrixKinds; ++k) {
    absl::StrAppendFormat(&table, kCell,
                          MatrixKindName(static_cast<MatrixKind>(k)));
  }
  absl::StrAppendFormat(&table, "\n%-8s", "size");
  for (int k = 0; k < kMatrixKinds; ++k) {
    const MatrixSize& size = matrices[k].dense_size;
    absl::StrAppendFormat(&table, kCell, absl::StrCat(size.in, "x", size.out));
  }
  for (size_t i = 0; i < matrices.size(); ++i) {
    if (i % kMatrixKinds == 0) {
      absl::StrAppendFormat(&table, "\nlayer %-2d", matrices[i].layer);
    }
    absl::StrAppendFormat(&table, kCell,
                          absl::StrFormat("%s %.4f", FormName(matrices[i]),
                                          matrices[i].relative_error));
  }
  absl::StrAppendFormat(
      &table,
      "\nrows of layers: rank, or the matrix's size where heads are "
      "narrower; relative error of %s\n",
      calibration ? "the outputs on calibration text"
                  : "the matrix (Frobenius norm)");
  if (calibration) {
    absl::StrAppendFormat(
        &table,
        "calibration:      %d tokens, seed %d, of %s\n"
        "held-out text:    mean cosine %.4f with the dense model's "
        "embeddings, %d tokens\n",
        calibration->fit_tokens, calibration->seed, calibration->source,
        calibration->kept.held_out_cosine, calibration->held_out_tokens);
  }
  if (calibration && calibration->rejected) {
    absl::StrAppendFormat(&table, "auto:             kept %s, rejected %s\n",
                          Describe(calibration->kept),
                          Describe(*calibration->rejected));
  }
  absl::StrAppendFormat(
      &table,
      "encoder matrices: %d parameters of %d kept, ratio %.6f (asked: %s %g)\n"
      "whole model:      %d parameters of %d kept, method %s, dtype %s\n"
      "activations:      %.0f bytes a token on a GPU, of %.0f when dense\n",
      kept_parameters(), dense_parameters(), kept_ratio(),
      BudgetName(budget.kind), budget.value,
      kept_parameters() + other_parameters,
      dense_parameters() + other_parameters, method, dtype,
      activation_bytes_per_token, dense_activation_bytes_per_token);
  return table;
}

std::string CompressionReport::ToJson() const {
  nlohmann::ordered_json json;
  json["method"] = method;
  json["dtype"] = dtype;
  json["budget"] = {{"kind", BudgetName(budget.kind)}, {"value", budget.value}};
  json["ratio"] = {{"kept", kept_ratio()}};
  if (budget.kind == Budget::Kind::kRatio) {
    json["ratio"]["requested"] = budget.value;
  }
  json["parameters"] = {{"encoder_matrices_dense", dense_parameters()},
                        {"encoder_matrices_kept", kept_parameters()},
                        {"others", other_parameters}};
  json["activation_bytes_per_token"] = activation_bytes_per_token;
  json["dense_activation_bytes_per_token"] = dense_activation_bytes_per_token;
  if (calibration) {
    json["calibration"] = {
        {"source", calibration->source},
        {"seed", calibration->seed},
        {"fit_tokens", calibration->fit_tokens},
        {"held_out_tokens", calibration->held_out_tokens},
        {"held_out_mean_cosine", calibration->kept.held_out_cosine}};
    if (calibration->rejected) {
      json["calibration"]["kept"] = CandidateJson(calibration->kept);
      json["calibration"]["rejected"] = CandidateJson(*calibration->rejected);
    }
  }
  for (const LayerForm& form : forms) {
    nlohmann::ordered_json layer;
    for (int k = 0; k < kMatrixKinds; ++k) {
      layer[MatrixKindName(static_cast<MatrixKind>(k))] = form.ranks[k];
    }
    if (form.query_dim > 0) layer["query_dim"] = form.query_dim;
    if (form.value_dim > 0) layer["value_dim"] = form.value_dim;
    json["ranks"].push_back(layer);
  }
  const char* error = calibration ? "output_error" : "weight_error";
  for (const MatrixReport& m : matrices) {
    json["matrices"].push_back({{"name", m.name},
                                {"layer", m.layer},
                                {"kind", MatrixKindName(m.kind)},
                                {"in", m.size.in},
                                {"out", m.size.out},
                                {"rank", m.rank},
                                {"parameters", m.size.parameters(m.rank)},
                                {error, m.relative_error}});
  }
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) +
         "\n";
}

}  // namespace svdserve
