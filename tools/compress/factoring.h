// The matrices of an encoder and their decomposition, side by side.
#ifndef SVDSERVE_TOOLS_COMPRESS_FACTORING_H_
#define SVDSERVE_TOOLS_COMPRESS_FACTORING_H_

#include <functional>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "engine/model/model.h"
#include "engine/model/safetensors.h"
#include "tools/compress/method.h"
#include "tools/compress/report.h"

namespace svdserve {

// One matrix on its way: what it is, and its factors once they are there.
struct Factoring {
  MatrixReport report;
  const Linear* linear = nullptr;  // of the model, which must outlive this
  RawTensor u;                     // [in, rank]; empty if it stays dense
  RawTensor v;                     // [rank, out]
};

// Sizes of the matrices of a layer; all layers of a model have the same.
LayerSizes SizesOf(const EncoderLayer& layer);

const Linear& LinearOf(const EncoderLayer& layer, MatrixKind kind);
Linear& LinearOf(EncoderLayer& layer, MatrixKind kind);

// All matrices of the encoder, by layer, then kind; nothing is computed.
std::vector<Factoring> ListMatrices(const Model& model, const KindRanks& ranks);

struct FactoringOptions {
  std::optional<DType> dtype;  // of the factors; default: the matrix's own
  int threads = 0;             // 0: one per processor
  // After each matrix, with the share of the work that is done, one call at a
  // time. Returns false to stop.
  std::function<bool(double share_done)> progress;
};

// Fills in factors and errors, one matrix per thread. CANCELLED if it was
// stopped, else the first error.
absl::Status FactorAll(const Method& method, const FactoringOptions& options,
                       std::vector<Factoring>* matrices);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_FACTORING_H_
