#include "engine/plan/bucket.h"

#include <algorithm>

namespace svdserve {
namespace {

int RoundUp(int value, int step) { return (value + step - 1) / step * step; }

}  // namespace

BatchShape BucketOf(const BatchShape& shape) {
  BatchShape bucket;
  if (shape.tokens <= 256) {
    bucket.tokens = RoundUp(shape.tokens, 16);
  } else if (shape.tokens <= 1024) {
    bucket.tokens = RoundUp(shape.tokens, 64);
  } else {
    bucket.tokens = RoundUp(shape.tokens, kMaxTokenSlack + 1);
  }
  if (shape.sequences <= 4) {
    bucket.sequences = shape.sequences;
  } else if (shape.sequences <= 32) {
    bucket.sequences = RoundUp(shape.sequences, 4);
  } else {
    bucket.sequences = RoundUp(shape.sequences, kMaxSequenceSlack + 1);
  }
  bucket.max_tokens = std::min(RoundUp(shape.max_tokens, 32), bucket.tokens);
  return bucket;
}

}  // namespace svdserve
