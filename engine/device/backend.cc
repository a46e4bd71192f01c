#include "engine/device/backend.h"

#include <algorithm>

namespace svdserve {

BatchShape PackedBatch::Shape() const {
  BatchShape shape = {.sequences = sequences(), .tokens = tokens()};
  for (int i = 0; i + 1 < cu_seqlens.size(); ++i) {
    shape.max_tokens =
        std::max(shape.max_tokens, cu_seqlens[i + 1] - cu_seqlens[i]);
  }
  return shape;
}

}  // namespace svdserve
