// How fast the CUDA kernels run: data, one row an architecture.
//
// ESTIMATES, from published peaks and other kernels. Checked on an H200 for
// sm_90 (tests/bench/results/encoder_gpu.json, "predicted_ms" beside
// "median_ms"): predictions are 0.68 to 1.43 of what 212 batches took, and the
// plan that is chosen is within 3 % of the fastest measured one of no more
// bytes, but for two batches (7 %). tests/bench/fit_cost_table.py derives a row
// from kernels_gpu.json; by hand, two shapes of tests/bench/kernels_gpu give
// the two unknowns of a kernel (cuda_cost_model.cc has the formula):
//   tflops        a long sum in whole waves, such as 132 x 128 rows, K = 3072
//   extra_depth   the same with K = 192: what is missing to tflops
//   launch        a graph of many kernels with one block each, seconds a kernel
// Only ratios matter: they decide between ways and chunk sizes, never whether
// a batch fits.
#ifndef SVDSERVE_ENGINE_PLAN_CUDA_COST_TABLE_H_
#define SVDSERVE_ENGINE_PLAN_CUDA_COST_TABLE_H_

namespace svdserve {

// A kernel whose blocks each compute a tile of a matrix product.
struct CudaTileCost {
  int tile_rows;
  int tile_columns;  // 0: a block has whole rows
  double tflops;     // of the whole device, all multiprocessors busy
  int extra_depth;   // steps of the sum that a block's start and end cost
};

// Attention of heads up to this width.
struct CudaAttentionCost {
  int head_dim;
  double tflops;   // scores and weighted sum
  int extra_keys;  // keys that a block's start and end cost
};

struct CudaCosts {
  int sm;
  int multiprocessors;    // of the device that the rates are of
  double launch_seconds;  // from a kernel's end to the next one's start
  double bytes_per_second;
  // The launcher takes the faster of two tiles; the larger comes first.
  CudaTileCost gemm[2];
  CudaTileCost gemm_norm[2];
  // The norm of an update that is in memory.
  int norm_rows;              // of a block
  double norm_block_seconds;  // but for its launch
  CudaTileCost fused_ffn[2];
  CudaAttentionCost attention[3];
  int attention_rows;     // queries of a block of plain attention
  double lowrank_tflops;  // Q, K and V built within a block
};

inline constexpr CudaCosts kCudaCosts[] = {
    {.sm = 80,  // A100: 312 TFLOP/s at most, 2.0 TB/s
     .multiprocessors = 108,
     .launch_seconds = 2.5e-6,
     .bytes_per_second = 1.6e12,
     .gemm = {{128, 128, 230, 128}, {64, 64, 130, 96}},
     .gemm_norm = {{64, 0, 190, 192}, {16, 0, 80, 96}},
     .norm_rows = 16,
     .norm_block_seconds = 2e-6,
     .fused_ffn = {{128, 0, 220, 64}, {64, 0, 150, 64}},
     .attention = {{32, 110, 90}, {64, 180, 90}, {128, 200, 90}},
     .attention_rows = 128,
     .lowrank_tflops = 190},
    {.sm = 86,  // A10: 125 TFLOP/s at most, 0.6 TB/s
     .multiprocessors = 72,
     .launch_seconds = 3e-6,
     .bytes_per_second = 0.5e12,
     .gemm = {{128, 128, 62, 128}, {64, 64, 42, 96}},
     .gemm_norm = {{64, 0, 54, 192}, {16, 0, 24, 96}},
     .norm_rows = 16,
     .norm_block_seconds = 3e-6,
     .fused_ffn = {{128, 0, 60, 64}, {64, 0, 42, 64}},
     .attention = {{32, 34, 90}, {64, 50, 90}, {128, 54, 90}},
     .attention_rows = 128,
     .lowrank_tflops = 54},
    {.sm = 89,  // L40S: 362 TFLOP/s at most, 0.86 TB/s
     .multiprocessors = 142,
     .launch_seconds = 2.5e-6,
     .bytes_per_second = 0.75e12,
     .gemm = {{128, 128, 200, 128}, {64, 64, 130, 96}},
     .gemm_norm = {{64, 0, 170, 192}, {16, 0, 75, 96}},
     .norm_rows = 16,
     .norm_block_seconds = 2e-6,
     .fused_ffn = {{128, 0, 190, 64}, {64, 0, 130, 64}},
     .attention = {{32, 100, 90}, {64, 150, 90}, {128, 165, 90}},
     .attention_rows = 128,
     .lowrank_tflops = 170},
    {.sm = 90,  // H100, H200: 989 TFLOP/s at most, 3.3 to 4.8 TB/s
     .multiprocessors = 132,
     .launch_seconds = 2e-6,
     .bytes_per_second = 3.0e12,
     .gemm = {{128, 128, 420, 128}, {64, 64, 240, 96}},
     .gemm_norm = {{64, 0, 350, 192}, {16, 0, 150, 96}},
     .norm_rows = 16,
     .norm_block_seconds = 1.5e-6,
     .fused_ffn = {{128, 0, 400, 64}, {64, 0, 280, 64}},
     .attention = {{32, 180, 90}, {64, 310, 90}, {128, 355, 90}},
     .attention_rows = 128,
     .lowrank_tflops = 350},
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_PLAN_CUDA_COST_TABLE_H_
