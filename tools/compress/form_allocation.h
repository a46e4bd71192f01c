// Which form each matrix of an encoder gets, under one budget for all layers.
//
// Pure: the choice of least predicted loss within the budget, by Lagrange's
// method. Every unit (query and key, value and output, and the two matrices of
// the feed-forward, of each layer) takes the choice that minimises loss +
// λ·parameters, with the smallest λ that fits; what is left of the budget goes
// to the best improvements that still fit.
#ifndef SVDSERVE_TOOLS_COMPRESS_FORM_ALLOCATION_H_
#define SVDSERVE_TOOLS_COMPRESS_FORM_ALLOCATION_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/compress/layer_form.h"
#include "tools/compress/profile.h"

namespace svdserve {

// The forms that a method may choose from.
struct AllowedForms {
  bool attention_factors = true;  // query, key, value, output as two factors
  bool narrow_heads = false;
  // Only what the fused GPU kernels take: query, key, value and both matrices
  // of the feed-forward as factors. One layer without costs the whole batch
  // its low peak of activations.
  bool fused = false;
};

struct EncoderSizes {
  LayerSizes layer;
  int heads = 0;
  int head_dim = 0;
};

struct FormAllocation {
  std::vector<LayerForm> forms;  // [layers]
  int64_t parameters = 0;        // of all matrices; at most the budget
  int64_t most_parameters = 0;   // of the largest forms that are allowed
  double predicted_loss = 0;     // sum of the profile's losses
};

// Ranks are multiples of 16 (8 where 16 would be no smaller than the dense
// matrix), those of the feed-forward at most 320: the fused GPU kernels take no
// more. Widths of heads are multiples of 16. INVALID_ARGUMENT if `ratio` is not
// above 0 and below 1, or too small for the smallest choices.
absl::StatusOr<FormAllocation> AllocateForms(
    const std::vector<LayerProfile>& profiles, const EncoderSizes& sizes,
    const AllowedForms& allowed, double ratio);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_FORM_ALLOCATION_H_
