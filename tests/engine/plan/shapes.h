// Model shapes for the planner's tests.
#ifndef SVDSERVE_TESTS_ENGINE_PLAN_SHAPES_H_
#define SVDSERVE_TESTS_ENGINE_PLAN_SHAPES_H_

#include <algorithm>
#include <random>
#include <vector>

#include "engine/model/model_shape.h"
#include "engine/plan/plan.h"

namespace svdserve {

// all-MiniLM-L6-v2; every layer with these ranks.
inline ModelShape MiniLm(LayerShape ranks) {
  ModelShape shape;
  shape.hidden = 384;
  shape.heads = 12;
  shape.head_dim = 32;
  shape.intermediate = 1536;
  shape.vocab = 30522;
  shape.max_positions = 512;
  shape.max_tokens = 256;
  shape.layers.assign(6, ranks);
  return shape;
}

inline LayerShape HalfRanks() { return {96, 96, 96, 96, 160, 160}; }

inline int Pick(std::mt19937& random, int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(random);
}

// Any shape that a model may have: dense, factored and mixed layers, some with
// heads of other widths.
inline ModelShape RandomModel(std::mt19937& random) {
  ModelShape shape;
  shape.head_dim = Pick(random, 0, 1) == 0 ? 32 : 64;
  shape.heads = Pick(random, 1, 16);
  shape.hidden = shape.heads * shape.head_dim;
  shape.intermediate = Pick(random, 1, 4096);
  shape.vocab = 1000;
  shape.max_positions = 1024;
  shape.max_tokens = Pick(random, 2, 1024);
  const auto rank = [&] {
    return Pick(random, 0, 2) == 0 ? 0 : Pick(random, 1, shape.hidden);
  };
  const int layers = Pick(random, 1, 4);
  for (int i = 0; i < layers; ++i) {
    shape.layers.push_back({rank(), rank(), rank(), rank(), rank(), rank()});
  }
  if (Pick(random, 0, 1) == 1) {
    for (LayerShape& layer : shape.layers) {
      layer.query_dim = 16 * Pick(random, 0, 8);
      layer.value_dim = 16 * Pick(random, 0, 8);
    }
  }
  const int heads = Pick(random, 0, 2);
  for (int i = 0; i < heads; ++i) {
    shape.head_widths.push_back(Pick(random, 1, 1000));
  }
  return shape;
}

inline PlanTarget RandomTarget(std::mt19937& random) {
  return {.element_bytes = Pick(random, 1, 2) * 2,
          .threads = Pick(random, 0, 3) == 0 ? 64 : Pick(random, 1, 4),
          .row_tile = 16 * Pick(random, 1, 4),
          .heads_per_panel = Pick(random, 1, 4),
          .kernel_scratch_bytes = static_cast<uint64_t>(
              Pick(random, 0, 1) * Pick(random, 1, 100000))};
}

// Up to `most` sequences of the lengths that the model takes.
inline std::vector<int> RandomLengths(std::mt19937& random,
                                      const ModelShape& shape, int most) {
  std::vector<int> lengths(Pick(random, 1, most));
  const int longest = Pick(random, 1, shape.max_tokens);
  for (int& length : lengths) length = Pick(random, 1, longest);
  return lengths;
}

inline BatchShape ShapeOfLengths(const std::vector<int>& lengths) {
  BatchShape shape;
  shape.sequences = static_cast<int>(lengths.size());
  for (int length : lengths) {
    shape.tokens += length;
    shape.max_tokens = std::max(shape.max_tokens, length);
  }
  return shape;
}

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_ENGINE_PLAN_SHAPES_H_
