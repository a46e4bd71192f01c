// What a compression did, exactly.
#ifndef SVDSERVE_TOOLS_COMPRESS_REPORT_H_
#define SVDSERVE_TOOLS_COMPRESS_REPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tools/compress/rank_allocation.h"

namespace svdserve {

const char* MatrixKindName(MatrixKind kind);  // "query", ..., "ffn_out"

struct MatrixReport {
  std::string name;  // without ".weight"
  int layer = 0;
  MatrixKind kind = MatrixKind::kQuery;
  MatrixSize size;
  int rank = 0;               // 0: stayed dense
  double relative_error = 0;  // Frobenius, before rounding to the dtype
};

struct CompressionReport {
  std::string method;
  std::string dtype = "as input";  // or that of all tensors: "F32", ...
  double requested_ratio = 0;
  KindRanks ranks{};
  std::vector<MatrixReport> matrices;  // by layer, then kind
  int64_t other_parameters = 0;        // everything but the matrices

  int64_t dense_parameters() const;  // of the matrices, before
  int64_t kept_parameters() const;   // of the matrices, after
  double kept_ratio() const;

  // A table of layers and kinds for people.
  std::string ToTable() const;
  // compression.json. Nothing in it depends on when or where it was made.
  std::string ToJson() const;
};

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_REPORT_H_
