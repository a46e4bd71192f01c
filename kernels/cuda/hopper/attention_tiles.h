// The tiles of attention.cu and which of them is fast: plain host code, so that
// tests need no GPU. All tiles give the same bits.
#ifndef SVDSERVE_KERNELS_CUDA_HOPPER_ATTENTION_TILES_H_
#define SVDSERVE_KERNELS_CUDA_HOPPER_ATTENTION_TILES_H_

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "kernels/cuda/attention.h"

namespace svdserve::cuda::hopper {

// One instance of the kernel.
struct AttentionTile {
  int rows;    // queries: 64 of each warpgroup that attends
  int places;  // tiles that a multiprocessor works on at once
  // Microseconds, all places taken: of a tile's begin and end, of 64 keys.
  double begin;
  double block;
};

inline constexpr int kAttentionTiles = 3;

// From the largest to the smallest.
struct AttentionTiles {
  int qk_dim;  // heads up to so wide
  int v_dim;
  AttentionTile tiles[kAttentionTiles];
};

// The committed list of instances, the narrowest first. Times are of an H200,
// bf16, fitted to 20 shapes of 128 to 8192 tokens, those of unequal and of 96
// to one of 512 (README.md).
inline constexpr AttentionTiles kAttentionTilesOfHeads[] = {
    {32, 32, {{256, 1, 1.7, 0.745}, {192, 1, 1.3, 0.597}, {64, 3, 1.1, 0.628}}},
    {32, 64, {{256, 1, 1.8, 0.915}, {192, 1, 1.85, 0.72}, {64, 3, 2.4, 0.735}}},
    {64, 64, {{256, 1, 1.8, 0.98}, {192, 1, 1.85, 0.79}, {64, 3, 2.4, 0.82}}},
    {96, 96, {{192, 1, 2.6, 0.896}, {128, 1, 1.65, 0.737}, {64, 2, 3.1, 0.9}}},
    {64,
     128,
     {{192, 1, 2.6, 0.868}, {128, 1, 1.65, 0.745}, {64, 2, 3.1, 0.65}}},
    {128, 128, {{192, 1, 2.6, 1.07}, {128, 1, 1.65, 0.9}, {64, 2, 3.1, 0.9}}},
};

// The first that heads of these widths fit into; what they leave empty is
// filled with zeros. nullptr: none.
constexpr const AttentionTiles* FindAttentionTiles(int qk_dim, int v_dim) {
  for (const AttentionTiles& tiles : kAttentionTilesOfHeads) {
    if (qk_dim <= tiles.qk_dim && v_dim <= tiles.v_dim) return &tiles;
  }
  return nullptr;
}

inline int64_t CountAttentionTiles(const AttentionParams& params,
                                   const AttentionTile& tile) {
  return int64_t{1} * ((params.max_tokens + tile.rows - 1) / tile.rows) *
         params.heads * params.sequences;
}

// Whether many tiles lie beyond the ends of short sequences.
inline bool IsRagged(const AttentionParams& params) {
  const int64_t most = int64_t{1} * params.sequences * params.max_tokens;
  return params.rows > 0 && params.rows * int64_t{4} < most * 3;
}

// Microseconds of equally long sequences. A multiprocessor takes its tiles in
// rounds of as many as it has places; the last round, with fewer, is shorter,
// but the work of one alone takes 0.3 of a full round besides its share of it.
// Causal tiles see half of the keys on average, come by length, the longest
// first, and so fill the last round.
inline double PredictAttention(const AttentionParams& params,
                               const AttentionTile& tile,
                               const DeviceLimits& limits) {
  const auto round = [&](double keys) {
    return tile.begin + tile.block * keys / kAttentionKeys;
  };
  const int64_t items = CountAttentionTiles(params, tile);
  const int64_t multiprocessors = std::max(1, limits.multiprocessors);
  if (params.causal) {
    const double rounds = 1.0 * items / (multiprocessors * tile.places);
    return std::max(round(params.max_tokens),
                    rounds * round(0.5 * (params.max_tokens + tile.rows)));
  }
  const int64_t most = (items + multiprocessors - 1) / multiprocessors;
  const int64_t rest = most % tile.places;
  const double last = rest == 0 ? 0 : 0.3 + 0.7 * rest / tile.places;
  const int64_t full = most / tile.places;
  return (full + last) * round(params.max_tokens);
}

// The index of the tile that the launcher takes. Of ragged batches only a bound
// of the number of tiles is known: small ones unless there are many and long.
inline int ChooseAttentionTile(const AttentionTiles& shape,
                               const AttentionParams& params,
                               const DeviceLimits& limits) {
  constexpr int kLarge = 0;
  constexpr int kSmall = kAttentionTiles - 1;
  if (IsRagged(params)) {
    const bool fills_device =
        CountAttentionTiles(params, shape.tiles[kLarge]) >=
        2 * limits.multiprocessors;
    return fills_device && params.max_tokens > 512 ? kLarge : kSmall;
  }
  const AttentionTile* fastest =
      std::min_element(std::begin(shape.tiles), std::end(shape.tiles),
                       [&](const AttentionTile& a, const AttentionTile& b) {
                         return PredictAttention(params, a, limits) <
                                PredictAttention(params, b, limits);
                       });
  return static_cast<int>(fastest - std::begin(shape.tiles));
}

}  // namespace svdserve::cuda::hopper

#endif  // SVDSERVE_KERNELS_CUDA_HOPPER_ATTENTION_TILES_H_
