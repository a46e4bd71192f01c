// Small random models in memory, batches for them, and a backend that runs
// them.
#ifndef SVDSERVE_TESTS_ENGINE_DEVICE_RANDOM_MODEL_H_
#define SVDSERVE_TESTS_ENGINE_DEVICE_RANDOM_MODEL_H_

#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "engine/device/cpu_backend.h"
#include "engine/model/model.h"
#include "engine/plan/plan.h"
#include "gtest/gtest.h"

namespace svdserve {

inline Tensor RandomTensor(std::mt19937& random, std::vector<int64_t> shape,
                           float scale) {
  int64_t size = 1;
  for (int64_t extent : shape) size *= extent;
  std::vector<float> values(size);
  std::normal_distribution<float> normal(0, scale);
  for (float& value : values) value = normal(random);
  return Tensor::FromF32(std::move(shape), values);
}

inline Linear RandomLinear(std::mt19937& random, int in, int out, int rank) {
  Linear linear;
  linear.in = in;
  linear.out = out;
  linear.rank = rank;
  const float scale = 1 / std::sqrt(static_cast<float>(in));
  if (rank == 0) {
    linear.weight = RandomTensor(random, {out, in}, scale);
  } else {
    linear.u = RandomTensor(random, {in, rank}, scale);
    linear.v = RandomTensor(random, {rank, out},
                            1 / std::sqrt(static_cast<float>(rank)));
  }
  linear.bias = RandomTensor(random, {out}, 0.1f);
  return linear;
}

inline LayerNorm RandomNorm(std::mt19937& random, int width) {
  return {RandomTensor(random, {width}, 1), RandomTensor(random, {width}, 1)};
}

struct RandomModelOptions {
  int heads = 4;
  int head_dim = 32;
  int intermediate = 200;
  int max_tokens = 64;
  std::vector<LayerShape> layers = {{24, 24, 24, 24, 40, 40}, {}};
  std::vector<int> head_widths = {};
};

inline Model RandomModel(const RandomModelOptions& options, uint32_t seed = 1) {
  std::mt19937 random(seed);
  Model model;
  ModelShape& shape = model.shape;
  shape.heads = options.heads;
  shape.head_dim = options.head_dim;
  shape.hidden = shape.heads * shape.head_dim;
  shape.intermediate = options.intermediate;
  shape.vocab = 100;
  shape.max_positions = options.max_tokens;
  shape.max_tokens = options.max_tokens;
  shape.layers = options.layers;
  shape.head_widths = options.head_widths;
  const int d = shape.hidden;
  model.config.max_tokens = options.max_tokens;
  model.embeddings = {
      .word = RandomTensor(random, {shape.vocab, d}, 1),
      .position = RandomTensor(random, {shape.max_positions, d}, 1),
      .token_type = RandomTensor(random, {2, d}, 1),
      .norm = RandomNorm(random, d)};
  for (const LayerShape& layer : shape.layers) {
    const int qk = shape.heads * shape.query_dim(layer);
    const int v = shape.heads * shape.value_dim(layer);
    model.layers.push_back(
        {.query = RandomLinear(random, d, qk, layer.query),
         .key = RandomLinear(random, d, qk, layer.key),
         .value = RandomLinear(random, d, v, layer.value),
         .attention_output = RandomLinear(random, v, d, layer.attention_output),
         .attention_norm = RandomNorm(random, d),
         .ffn_in = RandomLinear(random, d, shape.intermediate, layer.ffn_in),
         .ffn_out = RandomLinear(random, shape.intermediate, d, layer.ffn_out),
         .ffn_norm = RandomNorm(random, d)});
  }
  int in = d;
  for (int width : shape.head_widths) {
    model.head.push_back(
        {RandomLinear(random, in, width, 0), HeadActivation::kTanh});
    in = width;
  }
  return model;
}

// Factored, dense and mixed layers.
inline std::vector<LayerShape> VariedLayers() {
  return {{24, 24, 24, 24, 40, 40},
          {},
          {17, 0, 33, 0, 31, 0},
          {0, 20, 0, 25, 0, 29}};
}

// Such layers with heads of other widths than head_dim (32): queries and keys
// narrower or wider than values, all narrower, values alone wider.
inline std::vector<LayerShape> VariedHeads() {
  return {{24, 24, 24, 24, 40, 40, 16, 48},
          {.query_dim = 64, .value_dim = 16},
          {24, 16, 33, 0, 31, 0, 16, 16},
          {0, 20, 0, 25, 0, 29, 0, 64}};
}

inline std::vector<int32_t> RandomIds(std::mt19937& random, int length,
                                      int vocab) {
  std::vector<int32_t> ids(length);
  for (int32_t& id : ids) {
    id = std::uniform_int_distribution<int>(0, vocab - 1)(random);
  }
  return ids;
}

inline void AddSequence(PackedBatch* batch, const std::vector<int32_t>& ids,
                        const std::vector<uint8_t>& type_ids,
                        OutputOptions options = {}) {
  if (batch->cu_seqlens.empty()) batch->cu_seqlens.push_back(0);
  batch->ids.insert(batch->ids.end(), ids.begin(), ids.end());
  if (type_ids.empty()) {
    batch->type_ids.resize(batch->ids.size(), 0);
  } else {
    batch->type_ids.insert(batch->type_ids.end(), type_ids.begin(),
                           type_ids.end());
  }
  batch->cu_seqlens.push_back(batch->tokens());
  batch->options.push_back(options);
}

inline PackedBatch BatchOf(const std::vector<std::vector<int32_t>>& inputs) {
  PackedBatch batch;
  for (const std::vector<int32_t>& ids : inputs) AddSequence(&batch, ids, {});
  return batch;
}

inline std::vector<std::vector<int32_t>> RandomInputs(
    std::mt19937& random, const std::vector<int>& lengths, int vocab = 100) {
  std::vector<std::vector<int32_t>> inputs;
  for (int length : lengths) {
    inputs.push_back(RandomIds(random, length, vocab));
  }
  return inputs;
}

// A backend with a garbage-filled arena: no test may rely on zeros.
class PoisonedBackend {
 public:
  explicit PoisonedBackend(const Model& model, BackendOptions options = {}) {
    auto backend = CpuBackend::Create(model, options);
    status_ = backend.status();
    if (backend.ok()) backend_ = *std::move(backend);
  }

  const absl::Status& status() const { return status_; }
  CpuBackend& operator*() { return *backend_; }
  CpuBackend* operator->() { return backend_.get(); }

  // One row an input. 0xff is NaN in every float format.
  std::vector<std::vector<float>> Run(const Plan& plan,
                                      const PackedBatch& batch) {
    backend_->arena().Fill(std::byte{0xff});
    const absl::Status launched = backend_->Launch(0, plan, batch);
    EXPECT_TRUE(launched.ok()) << launched;
    BatchOutput output;
    const absl::Status collected = backend_->Collect(0, &output);
    EXPECT_TRUE(collected.ok()) << collected;
    std::vector<std::vector<float>> rows;
    for (int i = 0; i < batch.sequences() && collected.ok(); ++i) {
      const auto row = output.values.begin() + i * output.width;
      rows.emplace_back(row, row + output.width);
    }
    return rows;
  }

  std::vector<std::vector<float>> Run(const Planner& planner,
                                      const PackedBatch& batch) {
    const auto plan = planner.MakePlan(batch.Shape());
    EXPECT_TRUE(plan.ok()) << plan.status();
    return Run(*plan, batch);
  }

 private:
  absl::Status status_;
  std::unique_ptr<CpuBackend> backend_;
};

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_ENGINE_DEVICE_RANDOM_MODEL_H_
