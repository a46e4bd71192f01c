#include "tools/inspect/cuda_target.h"

#include <algorithm>

namespace svdserve {
namespace {

// What the tables of kernels/cuda/lowrank_attention.cu, fused_ffn.cu and
// ffn_layer.cu give with the 227 KiB of shared memory of sm_90. They are
// repeated here because a build without the CUDA toolkit has no kernels to ask.
// Ranks are padded to what the tiles take.
struct AttentionLimit {
  int head_dim;
  int max_tokens;
};
constexpr AttentionLimit kAttentionLimits[] = {
    {32, 1472}, {64, 768}, {128, 384}};
constexpr int kMostInRank = 384;
constexpr int kMostOutRank = 320;

// Of one kernel for the half-layer, ffn_layer.cu.
int MostWholeRank(const ModelShape& shape) {
  if (shape.hidden == 768) return 320;
  if (shape.hidden != 384) return 0;
  return shape.activation == Activation::kGelu ? 256 : 192;
}

bool IsRank(int rank, int most) { return rank > 0 && rank <= most; }

int AttentionMaxTokens(const ModelShape& shape, const LayerRanks& ranks) {
  if (std::min({ranks.query, ranks.key, ranks.value}) == 0) return 0;
  const auto* limit = std::ranges::find(kAttentionLimits, shape.head_dim,
                                        &AttentionLimit::head_dim);
  return limit == std::ranges::end(kAttentionLimits) ? 0 : limit->max_tokens;
}

}  // namespace

PlanTarget HopperTarget(const ModelShape& shape) {
  PlanTarget target = {.element_bytes = 2,
                       .row_tile = 1,
                       .device = Device::kCuda,
                       .sm = 90,
                       .multiprocessors = 132};
  for (const LayerRanks& ranks : shape.layers) {
    target.fusion.push_back(
        {.attention_max_tokens = AttentionMaxTokens(shape, ranks),
         .feed_forward = IsRank(ranks.ffn_in, kMostInRank) &&
                         IsRank(ranks.ffn_out, kMostOutRank),
         .feed_forward_whole = IsRank(ranks.ffn_in, MostWholeRank(shape)) &&
                               IsRank(ranks.ffn_out, MostWholeRank(shape))});
  }
  return target;
}

}  // namespace svdserve
