#include "tools/compress/report.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

namespace svdserve {
namespace {

std::string RankName(int rank) {
  return rank == 0 ? std::string("dense") : absl::StrCat(rank);
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
  for (const MatrixReport& m : matrices) sum += m.size.dense_parameters();
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

std::string CompressionReport::ToTable() const {
  constexpr char kCell[] = "%17s";
  std::string table = absl::StrFormat("%-8s", "");
  for (int k = 0; k < kMatrixKinds; ++k) {
    absl::StrAppendFormat(&table, kCell,
                          MatrixKindName(static_cast<MatrixKind>(k)));
  }
  absl::StrAppendFormat(&table, "\n%-8s", "size");
  for (int k = 0; k < kMatrixKinds; ++k) {
    const MatrixSize& size = matrices[k].size;
    absl::StrAppendFormat(&table, kCell, absl::StrCat(size.in, "x", size.out));
  }
  absl::StrAppendFormat(&table, "\n%-8s", "rank");
  for (const int rank : ranks) {
    absl::StrAppendFormat(&table, kCell, RankName(rank));
  }
  for (size_t i = 0; i < matrices.size(); ++i) {
    if (i % kMatrixKinds == 0) {
      absl::StrAppendFormat(&table, "\nlayer %-2d", matrices[i].layer);
    }
    absl::StrAppendFormat(&table, "%17.6f", matrices[i].relative_error);
  }
  absl::StrAppendFormat(
      &table,
      "\nrows of layers: relative error of each matrix (Frobenius norm)\n"
      "encoder matrices: %d parameters of %d kept, ratio %.6f (asked: %g)\n"
      "whole model:      %d parameters of %d kept, method %s, dtype %s\n",
      kept_parameters(), dense_parameters(), kept_ratio(), requested_ratio,
      kept_parameters() + other_parameters,
      dense_parameters() + other_parameters, method, dtype);
  return table;
}

std::string CompressionReport::ToJson() const {
  nlohmann::ordered_json json;
  json["method"] = method;
  json["dtype"] = dtype;
  json["ratio"] = {{"requested", requested_ratio}, {"kept", kept_ratio()}};
  json["parameters"] = {{"encoder_matrices_dense", dense_parameters()},
                        {"encoder_matrices_kept", kept_parameters()},
                        {"others", other_parameters}};
  for (int k = 0; k < kMatrixKinds; ++k) {
    json["ranks"][MatrixKindName(static_cast<MatrixKind>(k))] = ranks[k];
  }
  for (const MatrixReport& m : matrices) {
    json["matrices"].push_back({{"name", m.name},
                                {"layer", m.layer},
                                {"kind", MatrixKindName(m.kind)},
                                {"in", m.size.in},
                                {"out", m.size.out},
                                {"rank", m.rank},
                                {"parameters", m.size.parameters(m.rank)},
                                {"relative_error", m.relative_error}});
  }
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) +
         "\n";
}

}  // namespace svdserve
