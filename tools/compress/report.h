// What a compression did, exactly.
#ifndef SVDSERVE_TOOLS_COMPRESS_REPORT_H_
#define SVDSERVE_TOOLS_COMPRESS_REPORT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/compress/budget.h"
#include "tools/compress/layer_form.h"
#include "tools/compress/rank_allocation.h"

namespace svdserve {

const char* MatrixKindName(MatrixKind kind);  // "query", ..., "ffn_out"

struct MatrixReport {
  std::string name;  // without ".weight"
  int layer = 0;
  MatrixKind kind = MatrixKind::kQuery;
  MatrixSize dense_size;
  MatrixSize size;  // another one where heads were narrowed
  int rank = 0;     // 0: not factored
  // By svd: of the matrix, Frobenius norm, before rounding to the dtype. By the
  // other methods: of its outputs on the calibration text, see
  // CompressedLayer::output_errors.
  double relative_error = 0;
};

// Compressed layers that a method made, and judged.
struct Candidate {
  bool narrow_heads = false;  // whether heads could be narrowed
  // The mean cosine of held-out embeddings with the dense ones.
  double held_out_cosine = 0;
  double activation_bytes_per_token = 0;  // see ActivationBytesPerToken()
};

// Of the methods that calibrate.
struct CalibrationReport {
  std::string source;
  uint64_t seed = 0;
  int fit_tokens = 0;
  int held_out_tokens = 0;
  Candidate kept;
  std::optional<Candidate> rejected;        // if `auto` compared two
  std::vector<std::string> held_out_texts;  // not in compression.json
};

struct CompressionReport {
  std::string method;
  std::string dtype = "as input";  // or that of all tensors: "F32", ...
  Budget budget;
  std::vector<LayerForm> forms;        // [layers]
  std::vector<MatrixReport> matrices;  // by layer, then kind
  std::optional<CalibrationReport> calibration;
  // See ActivationBytesPerToken().
  double activation_bytes_per_token = 0;
  double dense_activation_bytes_per_token = 0;
  int64_t other_parameters = 0;  // everything but the matrices

  int64_t dense_parameters() const;  // of the matrices, before
  int64_t kept_parameters() const;   // of the matrices, after
  double kept_ratio() const;
  bool HasNarrowHeads() const;

  // A table of layers and kinds for people.
  std::string ToTable() const;
  // compression.json. Nothing in it depends on when it was made.
  std::string ToJson() const;
};

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_REPORT_H_
