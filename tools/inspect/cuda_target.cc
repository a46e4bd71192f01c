#include "tools/inspect/cuda_target.h"

#include <algorithm>

namespace svdserve {
namespace {

// What the tables of kernels/cuda/lowrank_attention.cu, fused_ffn.cu,
// ffn_layer.cu and hopper/row_chain.cu give with the 227 KiB of shared memory
// of sm_90. They are repeated here because a build without the CUDA toolkit has
// no kernels to ask. Ranks are padded to what the tiles take.
constexpr int kSharedBytes = 227 << 10;
struct AttentionLimit {
  int head_dim;
  int max_tokens;
};
constexpr AttentionLimit kAttentionLimits[] = {
    {32, 1472}, {64, 768}, {128, 384}};
constexpr int kMostInRank = 384;
constexpr int kMostOutRank = 320;
constexpr int kChainRows = 192;

// Of one kernel for the half-layer, ffn_layer.cu.
int MostWholeRank(const ModelShape& shape) {
  if (shape.hidden == 768) return 320;
  if (shape.hidden != 384) return 0;
  return shape.activation == Activation::kGelu ? 256 : 192;
}

bool IsRank(int rank, int most) { return rank > 0 && rank <= most; }

int AttentionMaxTokens(const ModelShape& shape, const LayerShape& layer) {
  if (std::min({layer.query, layer.key, layer.value}) == 0) return 0;
  const int head_dim = shape.query_dim(layer);
  if (head_dim != shape.value_dim(layer)) return 0;
  const auto* limit =
      std::ranges::find(kAttentionLimits, head_dim, &AttentionLimit::head_dim);
  return limit == std::ranges::end(kAttentionLimits) ? 0 : limit->max_tokens;
}

int CeilDiv(int value, int by) { return (value + by - 1) / by; }

// A block's eighth of a product's weights, by 64 of k and eight columns; and 16
// rows of so many columns, which lie in tiles of 8 with a gap between.
int WeightBytes(int in, int out) {
  return CeilDiv(in, 64) * CeilDiv(out, 64) * 1024;
}
int RowBytes(int columns) { return CeilDiv(columns, 64) * 8 * 272; }

int ChainRows(const ModelShape& shape, const LayerShape& layer) {
  const int hidden = shape.hidden;
  const int rank = layer.attention_output;
  const bool has_width = hidden == 384 || hidden == 768 || hidden == 1024;
  if (!has_width || rank == 0 || layer.ffn_in == 0) return 0;
  const int width = shape.heads * shape.value_dim(layer);
  const int first =
      WeightBytes(width, rank) + WeightBytes(rank, hidden) + RowBytes(width);
  const int warps = hidden > 512 ? hidden / 128 : hidden / 64;
  const int rest = 16 * (hidden / 8 + 8) * 4 + warps * 272 + 1024 + 56;
  const int bytes = CeilDiv(std::max(first, RowBytes(hidden)), 1024) * 1024 +
                    WeightBytes(hidden, layer.ffn_in) + RowBytes(rank) + rest;
  return bytes <= kSharedBytes ? kChainRows : 0;
}

}  // namespace

PlanTarget HopperTarget(const ModelShape& shape) {
  PlanTarget target = {.element_bytes = 2,
                       .row_tile = 1,
                       .device = Device::kCuda,
                       .sm = 90,
                       .multiprocessors = 132};
  for (const LayerShape& layer : shape.layers) {
    target.fusion.push_back(
        {.attention_max_tokens = AttentionMaxTokens(shape, layer),
         .feed_forward = IsRank(layer.ffn_in, kMostInRank) &&
                         IsRank(layer.ffn_out, kMostOutRank),
         .feed_forward_whole = IsRank(layer.ffn_in, MostWholeRank(shape)) &&
                               IsRank(layer.ffn_out, MostWholeRank(shape)),
         .chain_rows = ChainRows(shape, layer)});
  }
  return target;
}

}  // namespace svdserve
