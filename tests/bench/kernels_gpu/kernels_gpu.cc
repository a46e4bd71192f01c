// Speed of the CUDA kernels at the shapes of whole models; prints JSON.
//
//   kernels_gpu --models tests/bench/gpu_models.json --shapes 32x512,1x128
//
// Every row is the median over replays of a graph of one launcher's calls on
// random bf16 values. TFLOP/s count the multiplications and additions of the
// formula, GB/s each element read or written once. Names are those of peers.py,
// which measures PyTorch at the same shapes.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/embed.h"
#include "kernels/cuda/ffn_layer.h"
#include "kernels/cuda/fused_ffn.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/gemm_norm.h"
#include "kernels/cuda/kernel_family.h"
#include "kernels/cuda/lowrank_attention.h"
#include "kernels/cuda/lowrank_norm.h"
#include "kernels/cuda/pool.h"
#include "kernels/cuda/row_chain.h"
#include "nlohmann/json.hpp"
#include "tests/bench/kernels_gpu/gpu_timer.h"

namespace svdserve {
namespace {

using cuda::Activation;
using nlohmann::ordered_json;

struct Options {
  std::string models = "tests/bench/gpu_models.json";
  std::vector<std::string> shapes = {"1x128",  "8x128",  "32x128",
                                     "32x512", "64x512", "8x2048"};
  std::vector<std::string> only;  // names; empty: all
  double seconds = 0.02;
};

// Up to so many rows plans may have memory for the update.
constexpr int kUpdateRows = 512;

struct ModelSizes {
  std::string name;
  std::string ranks_name;
  int hidden, heads, intermediate;
  int qkv_rank, out_rank, ffn_rank;
  int head_dim() const { return hidden / heads; }
};

struct Shape {
  int sequences = 0;
  int length = 0;
  int rows() const { return sequences * length; }
};

Shape ParseShape(const std::string& text) {
  Shape shape;
  char end = 0;
  if (std::sscanf(text.c_str(), "%dx%d%c", &shape.sequences, &shape.length,
                  &end) != 2 ||
      shape.sequences < 1 || shape.length < 1) {
    std::cerr << "kernels_gpu: '" << text << "' is no shape; 32x128 is one\n";
    std::exit(1);
  }
  return shape;
}

std::vector<ModelSizes> ReadModels(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    std::cerr << "kernels_gpu: cannot read " << path << "\n";
    std::exit(1);
  }
  const ordered_json all = ordered_json::parse(file);
  std::vector<ModelSizes> models;
  for (const auto& [name, model] : all.items()) {
    for (const auto& [ranks_name, ranks] : model.at("ranks").items()) {
      models.push_back({name, ranks_name, model.at("hidden"), model.at("heads"),
                        model.at("intermediate"), ranks.at("qkv"),
                        ranks.at("out"), ranks.at("ffn")});
    }
  }
  return models;
}

cuda::DeviceLimits ReadLimits(const cudaDeviceProp& device) {
  return {.sm = device.major * 10 + device.minor,
          .multiprocessors = device.multiProcessorCount,
          .shared_bytes = static_cast<int>(device.sharedMemPerBlockOptin)};
}

// Measures launchers one after another and keeps their rows.
class Bench {
 public:
  Bench(const Options& options, const cudaDeviceProp& device)
      : options_(options), limits_(ReadLimits(device)) {}

  const ordered_json& rows() const { return rows_; }

  // Everything that a layer of the model calls, its dense forms included.
  void Layer(const ModelSizes& m, const Shape& s) {
    head_ = {{"model", m.name}, {"ranks", m.ranks_name}, {"shape", Name(s)}};
    const int d = m.hidden, rows = s.rows(), inner = m.intermediate;
    Products(m, rows, "");
    FfnLayer("ffn_layer", rows, m);
    if (cuda::TakesHopperKernels(limits_)) {
      const cuda::ScopedPortableKernels portable;
      Products(m, rows, "_portable");
      LowRankAttention("attention_core_portable", s, m);
      Attention("attention_portable", s, m.heads, m.head_dim(), false);
    }
    if (rows <= kUpdateRows) {
      GemmNorm("out_update_norm", rows, m.out_rank, d, true);
      GemmNorm("ffn_update_norm", rows, m.ffn_rank, d, true);
    }
    LowRankNorm("out_lowrank_norm", rows, m);
    if (rows <= cuda::kRowChainRows) RowChain("row_chain", rows, m);
    LowRankAttention("attention_core", s, m);
    Attention("attention", s, m.heads, m.head_dim(), false);
    if (m.ranks_name != "r50") return;  // the rest has no rank
    Gemm("dense_qkv", rows, d, 3 * d, Activation::kNone);
    Gemm("dense_ffn_in", rows, d, inner, Activation::kGelu);
    GemmNorm("dense_out_norm", rows, d, d);
    GemmNorm("dense_ffn_out_norm", rows, inner, d);
    Embed("embed", s, d);
    Pool("pool_mean", s, d);
  }

  // The shapes at which peers.py measures PyTorch's backends.
  void AttentionBackends() {
    constexpr int kTokens = 16384, kWidth = 768;
    for (bool causal : {false, true}) {
      for (int head_dim : {64, 128}) {
        for (int length : {512, 2048, 8192}) {
          head_ = {{"model", nullptr}};
          const Shape shape = {kTokens / length, length};
          head_["shape"] = Name(shape);
          Attention("attention", shape, kWidth / head_dim, head_dim, causal);
          if (!cuda::TakesHopperKernels(limits_)) continue;
          const cuda::ScopedPortableKernels portable;
          Attention("attention_portable", shape, kWidth / head_dim, head_dim,
                    causal);
        }
      }
    }
  }

  // Heads as compression leaves them: queries and keys of one rank, values of
  // another.
  void ReducedHeads() {
    constexpr int kHeads = 12;
    constexpr std::pair<int, int> kDims[] = {
        {16, 16}, {16, 32}, {32, 32}, {32, 48},  {32, 64},
        {48, 48}, {48, 64}, {96, 96}, {64, 128},
    };
    for (const Shape& shape :
         {Shape{32, 128}, Shape{32, 512}, Shape{8, 2048}}) {
      head_ = {{"model", nullptr}, {"shape", Name(shape)}};
      for (const auto& [qk_dim, v_dim] : kDims) {
        const ordered_json parameters = {
            {"heads", kHeads}, {"qk_dim", qk_dim}, {"v_dim", v_dim}};
        Attention("attention_reduced", shape, kHeads, qk_dim, v_dim, false,
                  parameters);
        if (!cuda::TakesHopperKernels(limits_)) continue;
        const cuda::ScopedPortableKernels portable;
        Attention("attention_reduced_portable", shape, kHeads, qk_dim, v_dim,
                  false, parameters);
      }
    }
  }

 private:
  using MakeCall = std::function<Call()>;

  // What has kernels of both families; names end in `suffix`.
  void Products(const ModelSizes& m, int rows, const std::string& suffix) {
    const int d = m.hidden, inner = m.intermediate;
    Gemm("qkv_factors" + suffix, rows, d, 3 * m.qkv_rank, Activation::kNone);
    Gemm("head_factor" + suffix, rows, m.qkv_rank, d, Activation::kNone);
    Gemm("out_narrow" + suffix, rows, d, m.out_rank, Activation::kNone);
    Gemm("ffn_factors" + suffix, rows, d, m.ffn_rank, Activation::kNone);
    Gemm("ffn_inner" + suffix, rows, m.ffn_rank, inner, Activation::kGelu);
    Gemm("ffn_narrow" + suffix, rows, inner, m.ffn_rank, Activation::kNone);
    GemmNorm("out_expand_norm" + suffix, rows, m.out_rank, d);
    GemmNorm("ffn_expand_norm" + suffix, rows, m.ffn_rank, d);
    FusedFfn("ffn_core" + suffix, rows, m.ffn_rank, inner, m.ffn_rank);
  }

  static std::string Name(const Shape& s) {
    return std::to_string(s.sequences) + "x" + std::to_string(s.length);
  }

  void* BF16(size_t count) { return Keep(values_.BF16(count)); }
  void* Weight(int in, int out) {
    return Keep(weights_.BF16(size_t{1} * in * out));
  }
  float* F32(size_t count) {
    return static_cast<float*>(Keep(values_.F32(count)));
  }
  template <typename T>
  T* Upload(const std::vector<T>& values) {
    auto buffer = std::make_shared<DeviceBuffer>(values.size() * sizeof(T));
    Check(cudaMemcpy(buffer->get(), values.data(), values.size() * sizeof(T),
                     cudaMemcpyHostToDevice),
          "cudaMemcpy");
    return static_cast<T*>(Keep(std::move(buffer)));
  }
  void* Keep(std::shared_ptr<DeviceBuffer> buffer) {
    buffers_.push_back(std::move(buffer));
    return buffers_.back()->get();
  }
  int32_t* Offsets(const Shape& s) {
    std::vector<int32_t> offsets;
    for (int i = 0; i <= s.sequences; ++i) offsets.push_back(i * s.length);
    return Upload(offsets);
  }

  // One row: `bytes` are those that a call must move, `flops` what it computes.
  void Measure(const std::string& name, ordered_json facts, double flops,
               double bytes, const MakeCall& make_call) {
    if (!options_.only.empty() &&
        std::find(options_.only.begin(), options_.only.end(), name) ==
            options_.only.end()) {
      return;
    }
    buffers_.clear();
    std::vector<Call> calls;
    const int sets = SetsFor(static_cast<size_t>(bytes));
    for (int i = 0; i < sets; ++i) calls.push_back(make_call());
    const Timing timing = TimeCalls(calls, options_.seconds);
    ordered_json row = head_;
    row["op"] = name;
    row.update(facts);
    if (timing.error != cudaSuccess) {
      row["error"] = cudaGetErrorString(timing.error);
    } else {
      row["median_ms"] = timing.median_ms;
      row["tflops"] = flops / timing.median_ms * 1e-9;
      row["gb_per_s"] = bytes / timing.median_ms * 1e-6;
      row["replays"] = timing.replays;
    }
    std::cerr << row.dump() << "\n";
    rows_.push_back(std::move(row));
  }

  void Gemm(const std::string& name, int rows, int in, int out,
            Activation activation) {
    const double elements = 1.0 * rows * in + 1.0 * in * out + 1.0 * rows * out;
    Measure(name, {{"rows", rows}, {"in", in}, {"out", out}},
            2.0 * rows * in * out, 2 * elements, [=, this]() -> Call {
              const cuda::GemmParams params = {
                  .rows = rows,
                  .in = in,
                  .out = out,
                  .x = BF16(size_t{1} * rows * in),
                  .x_stride = in,
                  .w = Weight(in, out),
                  .bias = F32(out),
                  .activation = activation,
                  .y = BF16(size_t{1} * rows * out),
                  .y_stride = out};
              return [this, params](cudaStream_t stream) {
                return cuda::Gemm(params, limits_, stream);
              };
            });
  }

  // `update`: with memory for it.
  void GemmNorm(const std::string& name, int rows, int in, int hidden,
                bool update = false) {
    const double elements =
        1.0 * rows * in + 1.0 * in * hidden + 2.0 * rows * hidden;
    Measure(name, {{"rows", rows}, {"in", in}, {"out", hidden}},
            2.0 * rows * in * hidden, 2 * elements, [=, this]() -> Call {
              const cuda::GemmNormParams params = {
                  .rows = rows,
                  .in = in,
                  .hidden = hidden,
                  .y = BF16(size_t{1} * rows * in),
                  .y_stride = in,
                  .w = Weight(in, hidden),
                  .bias = F32(hidden),
                  .gamma = F32(hidden),
                  .beta = F32(hidden),
                  .x = BF16(size_t{1} * rows * hidden),
                  .update = update ? F32(size_t{1} * rows * hidden) : nullptr};
              return [this, params](cudaStream_t stream) {
                return cuda::GemmNorm(params, limits_, stream);
              };
            });
  }

  // Measured where the device and the widths have it.
  void RowChain(const std::string& name, int rows, const ModelSizes& m) {
    const int d = m.hidden;
    const double widths = 2.0 * d * m.out_rank + 1.0 * d * m.ffn_rank;
    if (!cuda::RowChainTakes(
            {.in = d, .rank = m.out_rank, .hidden = d, .out = m.ffn_rank},
            limits_)) {
      return;
    }
    Measure(name, {{"rows", rows}, {"rank", m.out_rank}, {"out", m.ffn_rank}},
            2.0 * rows * widths, 2 * (widths + rows * (3.0 * d + m.ffn_rank)),
            [=, this]() -> Call {
              const cuda::RowChainParams params = {
                  .rows = rows,
                  .in = d,
                  .rank = m.out_rank,
                  .hidden = d,
                  .out = m.ffn_rank,
                  .y = BF16(size_t{1} * rows * d),
                  .narrow = Weight(d, m.out_rank),
                  .w = Weight(m.out_rank, d),
                  .bias = F32(d),
                  .gamma = F32(d),
                  .beta = F32(d),
                  .x = BF16(size_t{1} * rows * d),
                  .next = Weight(d, m.ffn_rank),
                  .z = BF16(size_t{1} * rows * m.ffn_rank)};
              return [this, params](cudaStream_t stream) {
                return cuda::RowChain(params, limits_, stream);
              };
            });
  }

  // out_narrow and out_expand_norm at once.
  void LowRankNorm(const std::string& name, int rows, const ModelSizes& m) {
    const int d = m.hidden;
    if (!cuda::LowRankNormTakes({.in = d, .rank = m.out_rank, .hidden = d},
                                limits_)) {
      return;
    }
    const double widths = 2.0 * d * m.out_rank;
    Measure(name, {{"rows", rows}, {"rank", m.out_rank}, {"hidden", d}},
            2.0 * rows * widths, 2 * (widths + rows * 3.0 * d),
            [=, this]() -> Call {
              const cuda::LowRankNormParams params = {
                  .rows = rows,
                  .in = d,
                  .rank = m.out_rank,
                  .hidden = d,
                  .y = BF16(size_t{1} * rows * d),
                  .narrow = Weight(d, m.out_rank),
                  .w = Weight(m.out_rank, d),
                  .bias = F32(d),
                  .gamma = F32(d),
                  .beta = F32(d),
                  .x = BF16(size_t{1} * rows * d)};
              return [this, params](cudaStream_t stream) {
                return cuda::LowRankNorm(params, limits_, stream);
              };
            });
  }

  void FusedFfn(const std::string& name, int rows, int in_rank,
                int intermediate, int out_rank) {
    const double ranks = in_rank + out_rank;
    Measure(name,
            {{"rows", rows},
             {"in_rank", in_rank},
             {"intermediate", intermediate},
             {"out_rank", out_rank}},
            2.0 * rows * intermediate * ranks,
            2.0 * (rows * ranks + intermediate * ranks), [=, this]() -> Call {
              const cuda::FusedFfnParams params = {
                  .rows = rows,
                  .in_rank = in_rank,
                  .intermediate = intermediate,
                  .out_rank = out_rank,
                  .activation = Activation::kGelu,
                  .p = BF16(size_t{1} * rows * in_rank),
                  .p_stride = in_rank,
                  .v1 = Weight(in_rank, intermediate),
                  .b1 = F32(intermediate),
                  .u2 = Weight(intermediate, out_rank),
                  .z = BF16(size_t{1} * rows * out_rank),
                  .z_stride = out_rank};
              return [this, params](cudaStream_t stream) {
                return cuda::FusedFfn(params, limits_, stream);
              };
            });
  }

  // ffn_factors, ffn_core and ffn_expand_norm at once.
  void FfnLayer(const std::string& name, int rows, const ModelSizes& m) {
    const int d = m.hidden, inner = m.intermediate, rank = m.ffn_rank;
    if (!cuda::FfnLayerTakes(d, rank, rank, Activation::kGelu, limits_)) return;
    const double weights = 2.0 * rank * (d + inner);
    Measure(name,
            {{"rows", rows},
             {"hidden", d},
             {"in_rank", rank},
             {"intermediate", inner},
             {"out_rank", rank}},
            2.0 * rows * weights, 2.0 * (2.0 * rows * d + weights),
            [=, this]() -> Call {
              const cuda::FfnLayerParams params = {
                  .rows = rows,
                  .hidden = d,
                  .in_rank = rank,
                  .intermediate = inner,
                  .out_rank = rank,
                  .activation = Activation::kGelu,
                  .u1 = Weight(d, rank),
                  .v1 = Weight(rank, inner),
                  .b1 = F32(inner),
                  .u2 = Weight(inner, rank),
                  .v2 = Weight(rank, d),
                  .b2 = F32(d),
                  .gamma = F32(d),
                  .beta = F32(d),
                  .x = BF16(size_t{1} * rows * d)};
              return [this, params](cudaStream_t stream) {
                return cuda::FfnLayer(params, limits_, stream);
              };
            });
  }

  void LowRankAttention(const std::string& name, const Shape& s,
                        const ModelSizes& m) {
    const int rank = m.qkv_rank, d = m.hidden;
    const double rows = s.rows();
    Measure(name,
            {{"heads", m.heads}, {"head_dim", m.head_dim()}, {"rank", rank}},
            6.0 * rows * rank * d + 4.0 * rows * s.length * d,
            2.0 * (rows * 3 * rank + 3.0 * rank * d + rows * d),
            [=, this]() -> Call {
              const cuda::LowRankAttentionParams params = {
                  .sequences = s.sequences,
                  .max_tokens = s.length,
                  .heads = m.heads,
                  .head_dim = m.head_dim(),
                  .q_rank = rank,
                  .k_rank = rank,
                  .v_rank = rank,
                  .scale = 1 / std::sqrt(static_cast<float>(m.head_dim())),
                  .cu_seqlens = Offsets(s),
                  .p = BF16(size_t{3} * s.rows() * rank),
                  .p_stride = 3 * rank,
                  .q_column = 0,
                  .k_column = rank,
                  .v_column = 2 * rank,
                  .q_factor = Weight(rank, d),
                  .k_factor = Weight(rank, d),
                  .v_factor = Weight(rank, d),
                  .q_bias = F32(d),
                  .k_bias = F32(d),
                  .v_bias = F32(d),
                  .out = BF16(size_t{1} * s.rows() * d),
                  .out_stride = d};
              return [this, params](cudaStream_t stream) {
                return cuda::LowRankAttention(params, limits_, stream);
              };
            });
  }

  void Attention(const std::string& name, const Shape& s, int heads,
                 int head_dim, bool causal) {
    Attention(name, s, heads, head_dim, head_dim, causal,
              {{"heads", heads}, {"head_dim", head_dim}, {"causal", causal}});
  }

  // `parameters` are the row's.
  void Attention(const std::string& name, const Shape& s, int heads, int qk_dim,
                 int v_dim, bool causal, const ordered_json& parameters) {
    const int qk = heads * qk_dim;
    const int v = heads * v_dim;
    const double rows = s.rows();
    Measure(name, parameters,
            2.0 * rows * s.length * (qk + v) / (causal ? 2 : 1),
            2.0 * 2 * rows * (qk + v), [=, this]() -> Call {
              const size_t qk_elements = size_t{1} * s.rows() * qk;
              const size_t v_elements = size_t{1} * s.rows() * v;
              const cuda::AttentionParams params = {
                  .sequences = s.sequences,
                  .max_tokens = s.length,
                  .heads = heads,
                  .kv_heads = heads,
                  .qk_dim = qk_dim,
                  .v_dim = v_dim,
                  .causal = causal,
                  .scale = 1 / std::sqrt(static_cast<float>(qk_dim)),
                  .cu_seqlens = Offsets(s),
                  .q = BF16(qk_elements),
                  .k = BF16(qk_elements),
                  .v = BF16(v_elements),
                  .out = BF16(v_elements),
                  .q_stride = qk,
                  .k_stride = qk,
                  .v_stride = v,
                  .out_stride = v};
              return [this, params](cudaStream_t stream) {
                return cuda::Attention(params, limits_, stream);
              };
            });
  }

  void Embed(const std::string& name, const Shape& s, int hidden) {
    constexpr int kVocab = 30522;
    const double rows = s.rows();
    Measure(name, {{"rows", s.rows()}, {"hidden", hidden}}, 0,
            2.0 * 3 * rows * hidden, [=, this]() -> Call {
              std::mt19937 random(1);
              std::vector<int32_t> ids(s.rows());
              for (int32_t& id : ids) id = random() % kVocab;
              const cuda::EmbedParams params = {
                  .rows = s.rows(),
                  .sequences = s.sequences,
                  .hidden = hidden,
                  .ids = Upload(ids),
                  .type_ids = Upload(std::vector<uint8_t>(s.rows())),
                  .cu_seqlens = Offsets(s),
                  .word = BF16(size_t{kVocab} * hidden),
                  .position = BF16(size_t{1} * s.length * hidden),
                  .token_type = BF16(size_t{2} * hidden),
                  .gamma = F32(hidden),
                  .beta = F32(hidden),
                  .x = BF16(size_t{1} * s.rows() * hidden)};
              return [params](cudaStream_t stream) {
                return cuda::Embed(params, stream);
              };
            });
  }

  void Pool(const std::string& name, const Shape& s, int hidden) {
    const double rows = s.rows();
    Measure(name, {{"rows", s.rows()}, {"hidden", hidden}}, 0,
            2.0 * rows * hidden + 4.0 * s.sequences * hidden,
            [=, this]() -> Call {
              const cuda::PoolParams params = {
                  .kind = cuda::PoolKind::kMean,
                  .sequences = s.sequences,
                  .hidden = hidden,
                  .cu_seqlens = Offsets(s),
                  .x = BF16(size_t{1} * s.rows() * hidden),
                  .y = F32(size_t{1} * s.sequences * hidden)};
              return [params](cudaStream_t stream) {
                return cuda::Pool(params, stream);
              };
            });
  }

  const Options& options_;
  const cuda::DeviceLimits limits_;
  RandomSource values_{1};
  RandomSource weights_{1 / 16.0f};  // outputs are of the size of inputs
  std::vector<std::shared_ptr<DeviceBuffer>> buffers_;
  ordered_json head_;
  ordered_json rows_ = ordered_json::array();
};

int Run(const Options& options) {
  cudaDeviceProp device;
  Check(cudaGetDeviceProperties(&device, 0), "no device");
  Bench bench(options, device);
  const std::vector<ModelSizes> models = ReadModels(options.models);
  for (const ModelSizes& model : models) {
    for (const std::string& shape : options.shapes) {
      bench.Layer(model, ParseShape(shape));
    }
  }
  bench.AttentionBackends();
  bench.ReducedHeads();
  const ordered_json result = {
      {"benchmark", "kernels_gpu"},
      {"gpu",
       {{"name", device.name},
        {"multiprocessors", device.multiProcessorCount},
        {"memory_bytes", device.totalGlobalMem}}},
      {"dtype", "bfloat16"},
      {"seconds", options.seconds},
      {"results", bench.rows()}};
  std::cout << result.dump(1) << "\n";
  return 0;
}

}  // namespace
}  // namespace svdserve

int main(int argc, char** argv) {
  svdserve::Options options;
  CLI::App app("Measures the CUDA kernels and prints JSON");
  app.add_option("--models", options.models, "JSON file of model sizes");
  app.add_option("--shapes", options.shapes, "BxS, separated by commas")
      ->delimiter(',');
  app.add_option("--only", options.only, "names of rows, separated by commas")
      ->delimiter(',');
  app.add_option("--seconds", options.seconds, "device time of each row")
      ->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  return svdserve::Run(options);
}
