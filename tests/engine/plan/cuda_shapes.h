// Targets and encoders for the tests of plans for CUDA.
#ifndef SVDSERVE_TESTS_ENGINE_PLAN_CUDA_SHAPES_H_
#define SVDSERVE_TESTS_ENGINE_PLAN_CUDA_SHAPES_H_

#include <random>

#include "engine/plan/plan.h"
#include "tests/engine/plan/shapes.h"

namespace svdserve {

inline ModelShape Encoder(int hidden, int heads, int layers, LayerShape ranks) {
  ModelShape shape;
  shape.hidden = hidden;
  shape.heads = heads;
  shape.head_dim = hidden / heads;
  shape.intermediate = 4 * hidden;
  shape.vocab = 30522;
  shape.max_positions = 2048;
  shape.max_tokens = 2048;
  shape.layers.assign(layers, ranks);
  return shape;
}

inline ModelShape BertBase(LayerShape ranks) {
  return Encoder(768, 12, 12, ranks);
}
inline LayerShape BertBaseHalf() { return {192, 192, 192, 192, 320, 320}; }

// A Hopper GPU whose fused kernels take all layers of `shape`.
inline PlanTarget Hopper(const ModelShape& shape) {
  PlanTarget target = {.element_bytes = 2,
                       .row_tile = 1,
                       .device = Device::kCuda,
                       .sm = 90,
                       .multiprocessors = 132,
                       .update_rows = 512};
  target.fusion.assign(shape.layers.size(),
                       {.attention_max_tokens = 512, .feed_forward = true});
  return target;
}

// Any GPU; its fused kernels take some layers.
inline PlanTarget RandomGpu(std::mt19937& random, const ModelShape& shape) {
  constexpr int kArchitectures[] = {80, 86, 89, 90};
  PlanTarget target = {.element_bytes = 2,
                       .row_tile = 1,
                       .device = Device::kCuda,
                       .sm = kArchitectures[Pick(random, 0, 3)],
                       .multiprocessors = Pick(random, 1, 144),
                       .update_rows = Pick(random, 0, 2) * 256};
  if (Pick(random, 0, 4) == 0) return target;
  for (const LayerShape& ranks : shape.layers) {
    const bool chains = ranks.attention_output > 0 && ranks.ffn_in > 0;
    target.fusion.push_back(
        {.attention_max_tokens = Pick(random, 0, 3) * Pick(random, 0, 300),
         .feed_forward = Pick(random, 0, 1) == 1,
         .feed_forward_whole = Pick(random, 0, 3) == 0,
         .chain_rows = chains ? Pick(random, 0, 1) * 192 : 0});
  }
  return target;
}

// `sequences` inputs of `tokens` tokens each.
inline BatchShape Uniform(int sequences, int tokens) {
  return {.sequences = sequences,
          .tokens = sequences * tokens,
          .max_tokens = tokens};
}

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_ENGINE_PLAN_CUDA_SHAPES_H_
