// How fast chunks of different sizes run: data, with the measurement beside it.
//
// Estimates that predict the processor time of whole batches on one Zen 4 core
// to within 20 % (README.md); `encoder_cpu --sweep` (tests/bench/encoder_cpu)
// gives the data to refine them. Only ratios matter: they decide between chunk
// sizes, never whether a batch fits.
#ifndef SVDSERVE_ENGINE_PLAN_COST_TABLE_H_
#define SVDSERVE_ENGINE_PLAN_COST_TABLE_H_

namespace svdserve {

// Matrix work of one worker that has `rows` rows at hand.
struct MatmulCost {
  int rows;
  double f32_gflops;
  double bf16_gflops;
};

inline constexpr MatmulCost kMatmulCosts[] = {
    {16, 60, 95},   {32, 72, 125},  {64, 80, 150},   {128, 84, 165},
    {256, 84, 170}, {512, 82, 168}, {1024, 78, 160},
};

// Attention proper, one worker.
inline constexpr double kAttentionGflops = 40;
// One kernel call on a tile: dispatch, and weights that are not in the cache.
inline constexpr double kCallSeconds = 0.5e-6;
// One phase that all workers share: fork, join, and the wait for the slowest.
inline constexpr double kSharedPhaseSeconds = 3e-6;
// What a shared phase keeps of the workers' joint speed.
inline constexpr double kSharedEfficiency = 0.85;

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_PLAN_COST_TABLE_H_
