// Models of gpu_models.json, for the GPU benchmarks: sizes and ranks are the
// file's, weights are random.
#ifndef SVDSERVE_TESTS_BENCH_GPU_MODELS_H_
#define SVDSERVE_TESTS_BENCH_GPU_MODELS_H_

#include <vector>

#include "nlohmann/json.hpp"
#include "tests/engine/device/random_model.h"

namespace svdserve {

// `model` is one of the file, `ranks` one of its ranks.
inline LayerShape RanksOf(const nlohmann::ordered_json& ranks) {
  const int qkv = ranks.at("qkv");
  const int ffn = ranks.at("ffn");
  return {qkv, qkv, qkv, ranks.at("out"), ffn, ffn};
}

inline RandomModelOptions SizesOf(const nlohmann::ordered_json& model,
                                  const LayerShape& ranks) {
  const int heads = model.at("heads");
  return {.heads = heads,
          .head_dim = model.at("hidden").get<int>() / heads,
          .intermediate = model.at("intermediate"),
          .max_tokens = 2048,
          .layers = std::vector<LayerShape>(model.at("layers"), ranks)};
}

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_BENCH_GPU_MODELS_H_
