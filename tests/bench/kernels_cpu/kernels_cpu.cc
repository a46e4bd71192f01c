// Speed of the CPU kernels on one thread, at the shapes of MiniLM, dense and at
// half of its parameters. GFLOP/s count multiplications and additions of the
// formula; GB/s count each element read or written once.
//
//   kernels_cpu --benchmark_filter=matmul --benchmark_format=json
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/embed.h"
#include "kernels/epilogue.h"
#include "kernels/layer_norm.h"
#include "kernels/packed_matmul.h"
#include "kernels/pool.h"
#include "kernels/team.h"

namespace svdserve::kernels {
namespace {

using benchmark::Counter;

// Aligned elements of either type, normally distributed.
class Buffer {
 public:
  Buffer(DataType type, size_t count) {
    const size_t bytes = (count * BytesOf(type) / kAlignment + 1) * kAlignment;
    data_.reset(std::aligned_alloc(kAlignment, bytes));
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < count; ++i) {
      const float value = normal(generator);
      if (type == DataType::kF32) {
        floats()[i] = value;
      } else {
        static_cast<uint16_t*>(data())[i] = Bf16FromFloat(value);
      }
    }
  }
  void* data() { return data_.get(); }
  float* floats() { return static_cast<float*>(data_.get()); }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> data_;
};

DataType TypeOf(int64_t bytes) {
  return bytes == 4 ? DataType::kF32 : DataType::kBF16;
}

void Rate(benchmark::State& state, const char* name, double per_iteration) {
  state.counters[name] =
      Counter(per_iteration * 1e-9, Counter::kIsIterationInvariantRate);
}

// {in, out, rows, element bytes, activation}
void BM_Matmul(benchmark::State& state) {
  const int in = state.range(0), out = state.range(1), rows = state.range(2);
  const DataType type = TypeOf(state.range(3));
  Buffer weight(DataType::kF32, size_t{1} * in * out);
  Buffer bias(DataType::kF32, out);
  std::unique_ptr<PackedMatmul> matmul;
  const KernelStatus status =
      PackedMatmul::Create({.in = in,
                            .out = out,
                            .type = type,
                            .out_type = type,
                            .weight = weight.floats(),
                            .weight_in_stride = out,
                            .weight_out_stride = 1,
                            .bias = bias.floats(),
                            .activation = Activation(state.range(4))},
                           &matmul);
  if (status != KernelStatus::kOk) {
    state.SkipWithError(KernelStatusName(status));
    return;
  }
  Buffer x(type, rows * in), y(type, rows * out);
  Buffer scratch(DataType::kF32, matmul->scratch_bytes() / sizeof(float));
  for (auto _ : state) {
    for (int panel = 0; panel < matmul->panels(); ++panel) {
      char* columns = static_cast<char*>(y.data()) +
                      matmul->PanelBegin(panel) * BytesOf(type);
      matmul->Run(0, panel, rows, x.data(), columns, out, scratch.data());
    }
  }
  Rate(state, "GFLOP/s", 2.0 * rows * in * out);
}

void MatmulShapes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"in", "out", "rows", "bytes", "activation"});
  const int shapes[][3] = {{384, 384, 0}, {384, 288, 0},  {96, 384, 0},
                           {384, 160, 0}, {160, 1536, 1}, {1536, 160, 0},
                           {160, 384, 0}, {384, 1536, 1}, {1536, 384, 0},
                           {160, 1536, 0}};
  for (int bytes : {4, 2}) {
    for (const auto& [in, out, activation] : shapes) {
      for (int rows : {16, 64, 256}) {
        benchmark->Args({in, out, rows, bytes, activation});
      }
    }
  }
}
BENCHMARK(BM_Matmul)->Apply(MatmulShapes);

// {length, head_dim, element bytes}: twelve heads of one sequence
void BM_Attention(benchmark::State& state) {
  const int length = state.range(0), dim = state.range(1);
  const DataType type = TypeOf(state.range(2));
  constexpr int kHeads = 12;
  const int stride = kHeads * dim;
  Buffer q(type, length * stride), k(type, length * stride),
      v(type, length * stride), out(type, length * stride);
  Buffer scratch(DataType::kF32,
                 AttentionScratchBytes(dim, dim) / sizeof(float));
  for (auto _ : state) {
    for (int head = 0; head < kHeads; ++head) {
      const auto at = [&](Buffer& buffer) {
        return static_cast<char*>(buffer.data()) + head * dim * BytesOf(type);
      };
      Attention({.queries = length,
                 .keys = length,
                 .qk_dim = dim,
                 .v_dim = dim,
                 .type = type,
                 .q = at(q),
                 .k = at(k),
                 .v = at(v),
                 .out = at(out),
                 .q_stride = stride,
                 .k_stride = stride,
                 .v_stride = stride,
                 .out_stride = stride,
                 .scale = 1.0f / std::sqrt(static_cast<float>(dim))},
                scratch.data());
    }
  }
  Rate(state, "GFLOP/s", 4.0 * kHeads * length * length * dim);
}
BENCHMARK(BM_Attention)
    ->ArgNames({"length", "head_dim", "bytes"})
    ->ArgsProduct({{16, 64, 128, 256, 512}, {32, 64}, {4, 2}});

// {width, element bytes}: 64 rows with a residual
void BM_LayerNorm(benchmark::State& state) {
  const int width = state.range(0);
  const DataType type = TypeOf(state.range(1));
  constexpr int kRows = 64;
  Buffer x(type, kRows * width), residual(type, kRows * width);
  Buffer gamma(DataType::kF32, width), beta(DataType::kF32, width);
  for (auto _ : state) {
    ResidualLayerNorm({.rows = kRows,
                       .width = width,
                       .x_type = type,
                       .residual_type = type,
                       .y_type = type,
                       .x = x.data(),
                       .residual = residual.data(),
                       .y = x.data(),
                       .x_stride = width,
                       .residual_stride = width,
                       .y_stride = width,
                       .gamma = gamma.floats(),
                       .beta = beta.floats()});
  }
  Rate(state, "GB/s", 3.0 * kRows * width * BytesOf(type));
}
BENCHMARK(BM_LayerNorm)
    ->ArgNames({"width", "bytes"})
    ->ArgsProduct({{384, 768}, {4, 2}});

// {width, element bytes}: 128 tokens of a vocabulary of 30,522
void BM_Embed(benchmark::State& state) {
  const int width = state.range(0);
  const DataType type = TypeOf(state.range(1));
  constexpr int kTokens = 128, kVocab = 30522;
  Buffer word(type, size_t{kVocab} * width), position(type, 512 * width),
      token_type(type, 2 * width), y(type, kTokens * width);
  Buffer gamma(DataType::kF32, width), beta(DataType::kF32, width);
  std::vector<int32_t> ids;
  std::mt19937 generator(1);
  for (int i = 0; i < kTokens; ++i) ids.push_back(generator() % kVocab);
  const std::vector<uint8_t> types(kTokens, 0);
  for (auto _ : state) {
    Embed({.tokens = kTokens,
           .width = width,
           .ids = ids.data(),
           .types = types.data(),
           .table_type = type,
           .word = word.data(),
           .position = position.data(),
           .type = token_type.data(),
           .vocab = kVocab,
           .max_positions = 512,
           .type_vocab = 2,
           .gamma = gamma.floats(),
           .beta = beta.floats(),
           .y_type = type,
           .y = y.data(),
           .y_stride = width});
  }
  Rate(state, "GB/s", 3.0 * kTokens * width * BytesOf(type));
}
BENCHMARK(BM_Embed)->ArgNames({"width", "bytes"})->ArgsProduct({{384}, {4, 2}});

// {element bytes}: the mean of 128 rows of 384
void BM_PoolMean(benchmark::State& state) {
  const DataType type = TypeOf(state.range(0));
  constexpr int kRows = 128, kWidth = 384;
  Buffer x(type, kRows * kWidth), y(DataType::kF32, kWidth);
  for (auto _ : state) {
    Pool({.rows = kRows,
          .width = kWidth,
          .type = type,
          .x = x.data(),
          .x_stride = kWidth,
          .y = y.floats()});
  }
  Rate(state, "GB/s", 1.0 * kRows * kWidth * BytesOf(type));
}
BENCHMARK(BM_PoolMean)->ArgName("bytes")->Arg(4)->Arg(2);

// {activation}: 64 rows of 192, as after a panel
void BM_Epilogue(benchmark::State& state) {
  constexpr int kRows = 64, kColumns = 192;
  Buffer c(DataType::kF32, kRows * kColumns), bias(DataType::kF32, kColumns),
      y(DataType::kF32, kRows * kColumns);
  for (auto _ : state) {
    Epilogue({.rows = kRows,
              .columns = kColumns,
              .c = c.floats(),
              .c_stride = kColumns,
              .bias = bias.floats(),
              .activation = Activation(state.range(0)),
              .y = y.data(),
              .y_stride = kColumns});
  }
  Rate(state, "Gelements/s", kRows * kColumns);
}
BENCHMARK(BM_Epilogue)->ArgName("activation")->DenseRange(0, 4);

// {threads}: a loop of that many empty indices
void BM_TeamLoop(benchmark::State& state) {
  Team team(state.range(0), "bench");
  for (auto _ : state) {
    team.ParallelFor(team.size(),
                     [](int, int index) { benchmark::DoNotOptimize(index); });
  }
}
BENCHMARK(BM_TeamLoop)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();

}  // namespace
}  // namespace svdserve::kernels

BENCHMARK_MAIN();
