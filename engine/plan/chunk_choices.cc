#include "engine/plan/chunk_choices.h"

#include <algorithm>
#include <cstdint>
#include <set>

#include "engine/plan/cuda_cost_model.h"
#include "engine/plan/layout.h"

namespace svdserve {
namespace {

// CPU: rows of a chunk.
constexpr int kRowSteps[] = {16, 32, 48, 64, 96, 128, 192, 256, 384, 512};

// CUDA: a batch is cut into at most so many equal parts, or into chunks of up
// to so many waves, or of 2^n rows or sequences.
constexpr int kMostShares = 8;
constexpr int kMostWaves = 4;

int CeilDiv(int64_t value, int64_t by) { return (value + by - 1) / by; }

std::vector<int> LaneChoices(const PlanTarget& target) {
  if (target.threads == 1) return {1};
  return {1, target.threads};
}

// From `least` up to `most` rows, both rounded up to the row tile.
std::vector<int> CpuRows(const PlanTarget& target, int least, int most) {
  const int first = AlignUp(least, target.row_tile);
  const int last = AlignUp(most, target.row_tile);
  std::vector<int> rows = {first};
  for (int step : kRowSteps) {
    const int aligned = AlignUp(step, target.row_tile);
    if (aligned > rows.back() && aligned <= last) rows.push_back(aligned);
  }
  return rows;
}

// Equal parts of `count`, waves of `wave`, and powers of two; at most `count`.
std::set<int> Parts(int count, int wave) {
  std::set<int> parts;
  for (int shares = 1; shares <= kMostShares; ++shares) {
    parts.insert(CeilDiv(count, shares));
  }
  for (int waves = 1; waves <= kMostWaves; ++waves) {
    parts.insert(std::min(count, waves * wave));
  }
  for (int power = 1; power < count; power *= 2) parts.insert(power);
  return parts;
}

// Whole sequences. Of mixed lengths a chunk holds fewer than its rows could:
// it ends before a sequence that is no longer than max_tokens.
std::set<int> CudaAttentionRows(const ModelShape& shape,
                                const PlanTarget& target,
                                const BatchShape& batch) {
  const int length = CeilDiv(batch.tokens, batch.sequences);
  const int slack = std::max(0, batch.max_tokens - length);
  const int wave = std::max(1, target.multiprocessors / shape.heads);
  std::set<int> rows = {batch.max_tokens, batch.tokens};
  for (int sequences : Parts(batch.sequences, wave)) {
    const int64_t wanted = int64_t{1} * sequences * length + slack;
    if (wanted > batch.max_tokens && wanted < batch.tokens) {
      rows.insert(static_cast<int>(wanted));
    }
  }
  return rows;
}

// Whole tiles, or the whole batch.
std::set<int> CudaFeedForwardRows(const PlanTarget& target,
                                  const BatchShape& batch) {
  const int tiles = CeilDiv(batch.tokens, kCudaLeastRows);
  const int wave = CeilDiv(FusedFeedForwardWaveRows(target), kCudaLeastRows);
  std::set<int> rows = {std::min(batch.tokens, kCudaLeastRows)};
  for (int part : Parts(tiles, wave)) {
    rows.insert(std::min(batch.tokens, part * kCudaLeastRows));
  }
  return rows;
}

// Whether a chunk of so many rows is the whole batch, and so short that memory
// for its update pays. The smallest choice stays without it.
bool MayHaveUpdate(const PlanTarget& target, const BatchShape& batch,
                   int rows) {
  return rows >= batch.tokens && rows <= target.update_rows;
}

// CUDA: of fewer rows the time of what lies between whole ends does not shrink
// with the rows (fused kernels or chunks as they were take less, or less
// memory), and one chunk makes a graph.
constexpr int kLeastMiddleRows = 1024;

// Whether the first and the last product of chunks of so many rows may take all
// rows at once: there are chunks, and both matrices are factored.
bool MayHaveWholeEnds(const LayerShape& ranks, const BatchShape& batch,
                      int rows) {
  return rows < batch.tokens && rows >= kLeastMiddleRows && ranks.ffn_in > 0 &&
         ranks.ffn_out > 0;
}

// Each choice of few rows once more, with memory for the update.
void AddUpdates(const PlanTarget& target, const BatchShape& batch,
                std::vector<Chunking>* choices) {
  const size_t count = choices->size();
  for (size_t i = 0; i < count; ++i) {
    Chunking chunking = (*choices)[i];
    if (!MayHaveUpdate(target, batch, chunking.rows)) continue;
    chunking.update = true;
    choices->push_back(chunking);
  }
}

// Group sizes that divide the heads evenly enough, in whole column panels.
std::vector<int> HeadChoices(const ModelShape& shape,
                             const PlanTarget& target) {
  const int unit = std::min(target.heads_per_panel, shape.heads);
  const int units = (shape.heads + unit - 1) / unit;
  std::vector<int> heads;
  for (int groups = units; groups >= 1; --groups) {
    const int group =
        std::min(shape.heads, (units + groups - 1) / groups * unit);
    if (heads.empty() || group > heads.back()) heads.push_back(group);
  }
  return heads;
}

}  // namespace

LayerFusion FusionOf(const PlanTarget& target, int layer) {
  const bool known = layer < static_cast<int>(target.fusion.size());
  return known ? target.fusion[layer] : LayerFusion();
}

bool FusesAttention(const ModelShape& shape, const PlanTarget& target,
                    int layer, int max_tokens) {
  const LayerShape& ranks = shape.layers[layer];
  return ranks.query > 0 && ranks.key > 0 && ranks.value > 0 &&
         max_tokens <= FusionOf(target, layer).attention_max_tokens;
}

bool FusesFeedForward(const ModelShape& shape, const PlanTarget& target,
                      int layer) {
  const LayerShape& ranks = shape.layers[layer];
  return ranks.ffn_in > 0 && ranks.ffn_out > 0 &&
         FusionOf(target, layer).feed_forward;
}

bool FusesWholeFeedForward(const ModelShape& shape, const PlanTarget& target,
                           int layer) {
  const LayerShape& ranks = shape.layers[layer];
  return ranks.ffn_in > 0 && ranks.ffn_out > 0 &&
         FusionOf(target, layer).feed_forward_whole;
}

std::vector<Chunking> AttentionChoices(const ModelShape& shape,
                                       const PlanTarget& target, int layer,
                                       const BatchShape& batch) {
  std::vector<Chunking> choices;
  const auto add_groups = [&](int lanes, int rows) {
    for (int heads : HeadChoices(shape, target)) {
      choices.push_back({.lanes = lanes, .rows = rows, .heads = heads});
    }
  };
  if (target.device == Device::kCuda) {
    const bool fuses = FusesAttention(shape, target, layer, batch.max_tokens);
    for (int rows : CudaAttentionRows(shape, target, batch)) {
      if (fuses) choices.push_back({.rows = rows, .fused = true});
      add_groups(1, rows);
    }
    AddUpdates(target, batch, &choices);
    return choices;
  }
  for (int lanes : LaneChoices(target)) {
    for (int rows : CpuRows(target, batch.max_tokens, batch.tokens)) {
      add_groups(lanes, rows);
    }
  }
  return choices;
}

std::vector<Chunking> FeedForwardChoices(const ModelShape& shape,
                                         const PlanTarget& target, int layer,
                                         const BatchShape& batch) {
  std::vector<Chunking> choices;
  if (target.device == Device::kCuda) {
    // Smaller chunks would not save a byte.
    if (FusesWholeFeedForward(shape, target, layer)) {
      choices.push_back({.rows = batch.tokens, .whole = true});
    }
    const bool fuses = FusesFeedForward(shape, target, layer);
    for (int rows : CudaFeedForwardRows(target, batch)) {
      if (fuses) choices.push_back({.rows = rows, .fused = true});
      choices.push_back({.rows = rows});
      if (MayHaveWholeEnds(shape.layers[layer], batch, rows)) {
        choices.push_back({.rows = rows, .rows_at_ends = batch.tokens});
      }
    }
    AddUpdates(target, batch, &choices);
    return choices;
  }
  for (int lanes : LaneChoices(target)) {
    for (int rows : CpuRows(target, 1, batch.tokens)) {
      choices.push_back({.lanes = lanes, .rows = rows});
    }
  }
  return choices;
}

}  // namespace svdserve
