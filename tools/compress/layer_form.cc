#include "tools/compress/layer_form.h"

namespace svdserve {

LayerSizes SizesIn(const LayerForm& form, const LayerSizes& dense, int heads) {
  LayerSizes sizes = dense;
  if (form.query_dim > 0) {
    const int64_t width = int64_t{1} * heads * form.query_dim;
    sizes[static_cast<int>(MatrixKind::kQuery)].out = width;
    sizes[static_cast<int>(MatrixKind::kKey)].out = width;
  }
  if (form.value_dim > 0) {
    const int64_t width = int64_t{1} * heads * form.value_dim;
    sizes[static_cast<int>(MatrixKind::kValue)].out = width;
    sizes[static_cast<int>(MatrixKind::kAttentionOutput)].in = width;
  }
  return sizes;
}

int64_t ParametersIn(const LayerForm& form, const LayerSizes& dense,
                     int heads) {
  return LayerParameters(SizesIn(form, dense, heads), form.ranks);
}

}  // namespace svdserve
