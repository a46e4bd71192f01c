#include "engine/plan/cuda_cost_model.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <limits>

#include "engine/plan/cuda_cost_table.h"

namespace svdserve {
namespace {

constexpr double kElementBytes = 2;
// Of a split sum, side by side: kernels/cuda/hopper/split_gemm.cu.
constexpr int kSumParts = 4;

int64_t CeilDiv(int64_t value, int64_t by) { return (value + by - 1) / by; }

// The row of this architecture, or of the newest one before it.
const CudaCosts& CostsOf(const PlanTarget& target) {
  const CudaCosts* found = std::begin(kCudaCosts);
  for (const CudaCosts& costs : kCudaCosts) {
    if (costs.sm <= target.sm) found = &costs;
  }
  return *found;
}

// Seconds of the kernels of one step, on one device.
class Kernels {
 public:
  explicit Kernels(const PlanTarget& target)
      : costs_(CostsOf(target)),
        multiprocessors_(std::max(1, target.multiprocessors)),
        split_sum_rows_(target.split_sum_rows) {}

  double Gemm(int64_t rows, int in, int out) const {
    return Launch(Fastest(costs_.gemm, rows, in, out),
                  rows * (in + out) + int64_t{1} * in * out);
  }

  // A product whose sum is split in chunks of few rows.
  double LongGemm(int64_t rows, int in, int out, int chunk_rows) const {
    return Gemm(rows, chunk_rows <= split_sum_rows_ ? in / kSumParts : in, out);
  }

  double GemmNorm(int64_t rows, int in, int hidden) const {
    return Launch(Fastest(costs_.gemm_norm, rows, in, hidden),
                  rows * (in + 2 * hidden) + int64_t{1} * in * hidden);
  }

  // The same with memory for y·Wᵀ, by two kernels.
  double GemmThenNorm(int64_t rows, int in, int hidden) const {
    const double norm = Launch(
        Waves(CeilDiv(rows, costs_.norm_rows), costs_.norm_block_seconds),
        4 * rows * hidden);
    return Gemm(rows, in, hidden) + norm;
  }

  // Both products together are one sum over the intermediate width.
  double FusedFfn(int64_t rows, const LayerShape& layer,
                  int intermediate) const {
    const int width = layer.ffn_in + layer.ffn_out;
    return Launch(Fastest(costs_.fused_ffn, rows, intermediate, width),
                  (rows + intermediate) * width);
  }

  // Four products of one block's rows; those of the half-layer's ends are a
  // longer sum.
  double FfnLayer(int64_t rows, const LayerShape& layer, int hidden,
                  int intermediate) const {
    const int width = layer.ffn_in + layer.ffn_out;
    return Launch(Tiles(costs_.ffn_layer, rows, hidden + intermediate, width),
                  2 * rows * hidden + (hidden + intermediate) * width);
  }

  double Attention(int64_t sequences, int length, int heads, int query_dim,
                   int value_dim) const {
    const int dims = query_dim + value_dim;
    const CudaAttentionCost& cost =
        AttentionCost(std::max(query_dim, value_dim));
    double seconds = std::numeric_limits<double>::infinity();
    for (const CudaAttentionTile& tile : cost.tiles) {
      if (tile.rows == 0) continue;
      const int64_t tiles = sequences * heads * CeilDiv(length, tile.rows);
      const double flops =
          2.0 * tile.places * tile.rows * (length + tile.extra_keys) * dims;
      seconds = std::min(
          seconds, Rounds(tiles, tile.places) * (flops / Rate(tile.tflops)));
    }
    return Launch(seconds, 2 * sequences * length * heads * dims);
  }

  // A block has one head of one sequence: its Q, K and V, then attention.
  double LowRankAttention(int64_t sequences, int length, int longest, int heads,
                          int head_dim, const LayerShape& layer) const {
    const int depth = layer.query + layer.key + layer.value;
    if (IsShort(sequences * heads, longest, head_dim, depth)) {
      const CudaShortAttentionCost& cost = costs_.short_attention;
      return costs_.launch_seconds +
             ShortRows(longest) *
                 (cost.row_seconds + depth * cost.column_seconds);
    }
    const CudaAttentionCost& cost = AttentionCost(head_dim);
    const double build = 2.0 * length * depth * head_dim;
    const double core = 4.0 * length * length * head_dim;
    const CudaLowRankCost& lowrank = costs_.lowrank;
    const double block = build / Rate(lowrank.tflops) +
                         core / Rate(cost.lowrank_tflops) +
                         lowrank.block_seconds;
    return Launch(Waves(sequences * heads, block),
                  sequences * length * (depth + heads * head_dim));
  }

  // One kernel for the end of attention and the feed-forward's factors.
  double Chain(int64_t rows) const {
    const int64_t clusters = CeilDiv(rows, costs_.chain.rows);
    return costs_.launch_seconds + CeilDiv(clusters, costs_.chain.clusters) *
                                       costs_.chain.cluster_seconds;
  }

 private:
  // Whether a block each has a multiprocessor, and all of its head's rows and
  // factors fit there.
  bool IsShort(int64_t blocks, int length, int head_dim, int depth) const {
    constexpr double kSharedBytes = 227 << 10;
    return length <= costs_.short_attention.most_tokens &&
           blocks <= multiprocessors_ &&
           (ShortRows(length) + head_dim) * depth * kElementBytes <=
               kSharedBytes;
  }
  // In whole tiles.
  int64_t ShortRows(int length) const {
    const int tile_rows = costs_.short_attention.tile_rows;
    return CeilDiv(length, tile_rows) * tile_rows;
  }
  // FLOP/s of one multiprocessor.
  double Rate(double tflops) const {
    return tflops * 1e12 / costs_.multiprocessors;
  }
  double Waves(int64_t blocks, double block_seconds) const {
    return CeilDiv(blocks, multiprocessors_) * block_seconds;
  }
  // A multiprocessor takes as many tiles at once as it has places. The last
  // round, with fewer, is shorter, but the work of one alone takes 0.3 of a
  // round besides its share of it (measured on sm_90, as its tiles are).
  double Rounds(int64_t tiles, int places) const {
    const int64_t most = CeilDiv(tiles, multiprocessors_);
    const int64_t full = most / places;
    const int64_t rest = most % places;
    return full + (rest > 0 ? 0.3 + 0.7 * rest / places : 0);
  }
  double Tiles(const CudaTileCost& tile, int64_t rows, int in, int out) const {
    const int columns = tile.tile_columns > 0 ? tile.tile_columns : out;
    const double flops =
        2.0 * tile.tile_rows * columns * (in + tile.extra_depth);
    return Waves(CeilDiv(rows, tile.tile_rows) * CeilDiv(out, columns),
                 flops / Rate(tile.tflops));
  }
  template <size_t kCount>
  double Fastest(const CudaTileCost (&tiles)[kCount], int64_t rows, int in,
                 int out) const {
    double fastest = std::numeric_limits<double>::infinity();
    for (const CudaTileCost& tile : tiles) {
      if (tile.tile_rows == 0) continue;
      fastest = std::min(fastest, Tiles(tile, rows, in, out));
    }
    return fastest;
  }
  // `values` are read or written in memory.
  double Launch(double seconds, int64_t values) const {
    const double bandwidth =
        costs_.bytes_per_second * multiprocessors_ / costs_.multiprocessors;
    return costs_.launch_seconds +
           std::max(seconds, values * kElementBytes / bandwidth);
  }
  const CudaAttentionCost& AttentionCost(int head_dim) const {
    for (const CudaAttentionCost& cost : costs_.attention) {
      if (head_dim <= cost.head_dim) return cost;
    }
    return *(std::end(costs_.attention) - 1);
  }

  const CudaCosts& costs_;
  const int multiprocessors_;
  const int split_sum_rows_;
};

// x·W, whole or by its second factor; the first was taken elsewhere.
double Projection(const Kernels& kernels, int64_t rows, int in, int out,
                  int rank) {
  return kernels.Gemm(rows, rank == 0 ? in : rank, out);
}

// The end of a half-layer: x = LayerNorm(x + y·W + b).
double Update(const Kernels& kernels, int64_t rows, int in, int hidden,
              int rank, const Chunking& chunking) {
  const double narrow = rank > 0 ? kernels.Gemm(rows, in, rank) : 0;
  const int depth = rank > 0 ? rank : in;
  return narrow + (chunking.update ? kernels.GemmThenNorm(rows, depth, hidden)
                                   : kernels.GemmNorm(rows, depth, hidden));
}

// Q, K and V of some heads. Of few rows those that are as wide are one launch;
// of many it does not show.
double ProjectHeads(const ModelShape& model, const Kernels& kernels,
                    const LayerShape& layer, int64_t rows, int heads) {
  const auto depth = [&](int rank) { return rank > 0 ? rank : model.hidden; };
  const int query = heads * model.query_dim(layer);
  const int value = heads * model.value_dim(layer);
  const int depths = depth(layer.query) + depth(layer.key);
  const int value_depth = depth(layer.value);
  if (query == value) {
    return kernels.Gemm(rows, (depths + value_depth) / 3, 3 * query);
  }
  return kernels.Gemm(rows, depths / 2, 2 * query) +
         kernels.Gemm(rows, value_depth, value);
}

double UnfusedCore(const ModelShape& model, const Kernels& kernels,
                   const LayerShape& layer, int64_t sequences, int length,
                   int heads_per_group) {
  double seconds = 0;
  for (int head = 0; head < model.heads; head += heads_per_group) {
    const int heads = std::min(heads_per_group, model.heads - head);
    seconds += ProjectHeads(model, kernels, layer, sequences * length, heads);
    seconds +=
        kernels.Attention(sequences, length, heads, model.query_dim(layer),
                          model.value_dim(layer));
  }
  return seconds;
}

double AttentionChunk(const ModelShape& model, const Kernels& kernels,
                      const LayerShape& layer, int64_t sequences, int length,
                      int longest, const Chunking& chunking) {
  if (sequences == 0) return 0;
  const int64_t rows = sequences * length;
  const int joint = layer.query + layer.key + layer.value;
  double seconds = joint > 0 ? kernels.Gemm(rows, model.hidden, joint) : 0;
  seconds += chunking.fused ? kernels.LowRankAttention(
                                  sequences, length, longest, model.heads,
                                  model.query_dim(layer), layer)
                            : UnfusedCore(model, kernels, layer, sequences,
                                          length, chunking.heads);
  if (chunking.chained) return seconds + kernels.Chain(rows);
  return seconds + Update(kernels, rows, model.heads * model.value_dim(layer),
                          model.hidden, layer.attention_output, chunking);
}

double FeedForwardChunk(const ModelShape& model, const Kernels& kernels,
                        const LayerShape& layer, int64_t rows,
                        const Chunking& chunking) {
  if (rows == 0) return 0;
  if (chunking.whole) {
    return kernels.FfnLayer(rows, layer, model.hidden, model.intermediate);
  }
  double seconds = layer.ffn_in > 0 && !chunking.chained
                       ? kernels.Gemm(rows, model.hidden, layer.ffn_in)
                       : 0;
  if (chunking.fused) {
    return seconds + kernels.FusedFfn(rows, layer, model.intermediate) +
           Update(kernels, rows, layer.ffn_out, model.hidden, 0, chunking);
  }
  seconds +=
      Projection(kernels, rows, model.hidden, model.intermediate, layer.ffn_in);
  int depth = model.intermediate;
  if (layer.ffn_out > 0) {
    seconds += kernels.LongGemm(rows, depth, layer.ffn_out, chunking.rows);
    depth = layer.ffn_out;
  }
  return seconds + Update(kernels, rows, depth, model.hidden, 0, chunking);
}

// Of factored matrices, what lies between the first product and the last one.
double FeedForwardMiddle(const ModelShape& model, const Kernels& kernels,
                         const LayerShape& layer, int64_t rows,
                         int chunk_rows) {
  if (rows == 0) return 0;
  return kernels.Gemm(rows, layer.ffn_in, model.intermediate) +
         kernels.LongGemm(rows, model.intermediate, layer.ffn_out, chunk_rows);
}

}  // namespace

// As if all sequences had the mean length, but for what the longest rules out.
double CudaAttentionSeconds(const ModelShape& model, const PlanTarget& target,
                            const LayerShape& layer, const BatchShape& batch,
                            const Chunking& chunking) {
  const Kernels kernels(target);
  const int length = CeilDiv(batch.tokens, batch.sequences);
  const int64_t per_chunk =
      chunking.rows >= batch.tokens
          ? batch.sequences
          : std::clamp(chunking.rows / length, 1, batch.sequences);
  const int64_t chunks = batch.sequences / per_chunk;
  const auto seconds = [&](int64_t sequences) {
    return AttentionChunk(model, kernels, layer, sequences, length,
                          batch.max_tokens, chunking);
  };
  return chunks * seconds(per_chunk) + seconds(batch.sequences % per_chunk);
}

double CudaFeedForwardSeconds(const ModelShape& model, const PlanTarget& target,
                              const LayerShape& layer, const BatchShape& batch,
                              const Chunking& chunking) {
  const Kernels kernels(target);
  const int64_t per_chunk = std::min(chunking.rows, batch.tokens);
  const int64_t chunks = batch.tokens / per_chunk;
  const auto seconds = [&](int64_t rows) {
    return chunking.rows_at_ends > 0
               ? FeedForwardMiddle(model, kernels, layer, rows, chunking.rows)
               : FeedForwardChunk(model, kernels, layer, rows, chunking);
  };
  const double ends =
      chunking.rows_at_ends > 0
          ? kernels.Gemm(batch.tokens, model.hidden, layer.ffn_in) +
                kernels.GemmNorm(batch.tokens, layer.ffn_out, model.hidden)
          : 0;
  return ends + chunks * seconds(per_chunk) + seconds(batch.tokens % per_chunk);
}

int FusedFeedForwardWaveRows(const PlanTarget& target) {
  return std::max(1, target.multiprocessors) *
         CostsOf(target).fused_ffn[0].tile_rows;
}

}  // namespace svdserve
