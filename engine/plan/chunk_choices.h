// Which chunks and ways the planner weighs against each other for one step.
//
// The smallest choice does not depend on the batch but for its longest
// sequence, and grows with it: what the longest input's smallest chunks need is
// enough for every batch.
#ifndef SVDSERVE_ENGINE_PLAN_CHUNK_CHOICES_H_
#define SVDSERVE_ENGINE_PLAN_CHUNK_CHOICES_H_

#include <vector>

#include "engine/model/model_shape.h"
#include "engine/plan/plan.h"

namespace svdserve {

// On CUDA the rows of a feed-forward step's smallest chunks: a tile.
inline constexpr int kCudaLeastRows = 128;

// What the target says of a layer.
LayerFusion FusionOf(const PlanTarget& target, int layer);

// Whether the fused kernels take this layer with sequences this long.
bool FusesAttention(const ModelShape& shape, const PlanTarget& target,
                    int layer, int max_tokens);
bool FusesFeedForward(const ModelShape& shape, const PlanTarget& target,
                      int layer);
bool FusesWholeFeedForward(const ModelShape& shape, const PlanTarget& target,
                           int layer);

std::vector<Chunking> AttentionChoices(const ModelShape& shape,
                                       const PlanTarget& target, int layer,
                                       const BatchShape& batch);
std::vector<Chunking> FeedForwardChoices(const ModelShape& shape,
                                         const PlanTarget& target, int layer,
                                         const BatchShape& batch);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_PLAN_CHUNK_CHOICES_H_
