#include "engine/plan/cost_model.h"

#include <algorithm>
#include <iterator>

#include "engine/plan/cost_table.h"
#include "engine/plan/cuda_cost_model.h"

namespace svdserve {
namespace {

// What one chunk does.
struct ChunkWork {
  double matmul_flops = 0;
  double attention_flops = 0;
  int calls = 0;
  int phases = 0;
};

double Rate(const MatmulCost& cost, const PlanTarget& target) {
  return target.element_bytes == 2 ? cost.bf16_gflops : cost.f32_gflops;
}

// Linear between the table's rows, constant outside.
double MatmulGflops(const PlanTarget& target, double rows) {
  constexpr int kCount = std::size(kMatmulCosts);
  int above = 0;
  while (above < kCount && kMatmulCosts[above].rows < rows) ++above;
  if (above == 0) return Rate(kMatmulCosts[0], target);
  if (above == kCount) return Rate(kMatmulCosts[kCount - 1], target);
  const MatmulCost& low = kMatmulCosts[above - 1];
  const MatmulCost& high = kMatmulCosts[above];
  const double part = (rows - low.rows) / (high.rows - low.rows);
  return Rate(low, target) + part * (Rate(high, target) - Rate(low, target));
}

// Multiplications and additions of one row through [in, out] of this rank.
double MatrixFlops(double in, double out, int rank) {
  return rank == 0 ? 2 * in * out : 2 * rank * (in + out);
}

double Seconds(const PlanTarget& target, const Chunking& chunking,
               int64_t chunks, double rows, const ChunkWork& work) {
  const double alone = work.matmul_flops / (MatmulGflops(target, rows) * 1e9) +
                       work.attention_flops / (kAttentionGflops * 1e9) +
                       work.calls * kCallSeconds;
  if (chunking.lanes > 1 || target.threads == 1) {
    const int64_t rounds = (chunks + chunking.lanes - 1) / chunking.lanes;
    return rounds * alone;
  }
  return chunks * (alone / (target.threads * kSharedEfficiency) +
                   work.phases * kSharedPhaseSeconds);
}

}  // namespace

double AttentionSeconds(const ModelShape& model, const PlanTarget& target,
                        const LayerShape& layer, const BatchShape& batch,
                        const Chunking& chunking) {
  if (target.device == Device::kCuda) {
    return CudaAttentionSeconds(model, target, layer, batch, chunking);
  }
  const double length = static_cast<double>(batch.tokens) / batch.sequences;
  const int64_t per_chunk =
      std::max<int64_t>(1, static_cast<int64_t>(chunking.rows / length));
  const int64_t chunks = (batch.sequences + per_chunk - 1) / per_chunk;
  const double rows = static_cast<double>(batch.tokens) / chunks;
  const double query_width = model.heads * model.query_dim(layer);
  const double value_width = model.heads * model.value_dim(layer);
  const int groups = (model.heads + chunking.heads - 1) / chunking.heads;

  ChunkWork work;
  work.matmul_flops =
      rows * (MatrixFlops(model.hidden, query_width, layer.query) +
              MatrixFlops(model.hidden, query_width, layer.key) +
              MatrixFlops(model.hidden, value_width, layer.value) +
              MatrixFlops(value_width, model.hidden, layer.attention_output));
  work.attention_flops =
      rows * 2 * batch.max_tokens * (query_width + value_width);
  work.calls = 3 * groups + 3;
  work.phases = 2 * groups + 4;
  return Seconds(target, chunking, chunks, rows, work);
}

double FeedForwardSeconds(const ModelShape& model, const PlanTarget& target,
                          const LayerShape& layer, const BatchShape& batch,
                          const Chunking& chunking) {
  if (target.device == Device::kCuda) {
    return CudaFeedForwardSeconds(model, target, layer, batch, chunking);
  }
  const int64_t chunks = (batch.tokens + chunking.rows - 1) / chunking.rows;
  const double rows = std::min(chunking.rows, batch.tokens);
  ChunkWork work;
  work.matmul_flops =
      rows * (MatrixFlops(model.hidden, model.intermediate, layer.ffn_in) +
              MatrixFlops(model.intermediate, model.hidden, layer.ffn_out));
  work.calls = 5;
  work.phases = 5;
  return Seconds(target, chunking, chunks, rows, work);
}

}  // namespace svdserve
