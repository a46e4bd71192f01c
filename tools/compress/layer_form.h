// What form each matrix of a compressed layer has.
#ifndef SVDSERVE_TOOLS_COMPRESS_LAYER_FORM_H_
#define SVDSERVE_TOOLS_COMPRESS_LAYER_FORM_H_

#include <cstdint>

#include "tools/compress/rank_allocation.h"

namespace svdserve {

struct LayerForm {
  KindRanks ranks{};  // 0: dense
  // Widths of a head's query and key, and of its value; 0: the dense model's.
  // Matrices of reduced heads are dense.
  int query_dim = 0;
  int value_dim = 0;
  friend bool operator==(const LayerForm&, const LayerForm&) = default;
};

// Sizes of the layer's matrices in this form; `dense` are those of the model.
LayerSizes SizesIn(const LayerForm& form, const LayerSizes& dense, int heads);

// Parameters of the layer's matrices in this form, biases apart.
int64_t ParametersIn(const LayerForm& form, const LayerSizes& dense, int heads);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_LAYER_FORM_H_
