// The whole encoder, slow and obvious: what every backend is held to.
//
// Exact (double) it is the truth; plain (float, or bfloat16 as PyTorch rounds)
// it is the yardstick: a backend's error against the exact output is at most
// twice that of the plain one in the same precision. Immutable after
// construction; thread-safe. It converts the weights once.
//
//   ReferenceEncoder exact(model, Precision::kF64);
//   std::vector<double> row = exact.Run(ids, type_ids, {.normalize = true});
#ifndef SVDSERVE_TESTS_REFERENCE_ENCODER_H_
#define SVDSERVE_TESTS_REFERENCE_ENCODER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/model/model.h"

namespace svdserve {

enum class Precision { kF64, kF32, kBF16 };

// As the backends' OutputOptions: cut to the first `dimensions` (0: all), then
// scaled to unit length. Both after the heads, and never by the model's own
// wish: pass model.config.normalize to get what the model promises.
struct ReferenceOptions {
  bool normalize = false;
  int dimensions = 0;
};

class ReferenceEncoder {
 public:
  ReferenceEncoder(const Model& model, Precision precision);
  ~ReferenceEncoder();

  // One sequence. Ids must be within the model's vocabulary, `type_ids` is as
  // long as `ids` or empty (all zero).
  std::vector<double> Run(const std::vector<int32_t>& ids,
                          const std::vector<uint8_t>& type_ids,
                          const ReferenceOptions& options) const;

  // The states [tokens * hidden] after the embeddings and after each layer:
  // layers + 1 of them.
  std::vector<std::vector<double>> Hidden(
      const std::vector<int32_t>& ids,
      const std::vector<uint8_t>& type_ids) const;

  class Impl;  // one per precision

 private:
  std::unique_ptr<const Impl> impl_;
};

// The root of the mean square of a - b, the measure of all error rules.
double RmsError(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_REFERENCE_ENCODER_H_
