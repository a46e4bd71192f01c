// How fast the CUDA kernels run: data, one row an architecture.
//
// sm_90 is MEASURED, on an H200: fitted to kernels_gpu.json by
// tests/bench/fit_cost_table.py (2026-11-24, 310 rows; the committed one is
// newer), where the root mean square of ln(predicted / measured) is 0.15 for
// product + norm, 0.10 for the fused feed-forward, 0.09 for low-rank attention.
// Products are from 2026-11-28: the committed rows and 152 of 192 to 1,536 rows
// (0.13), and sums of two in chunks (0.05). Plain attention is the launcher's
// own model of its tiles (kernels/cuda/hopper/attention_tiles.h). Product +
// norm of a dense layer (sums of 768 and more) is left out: another kernel runs
// it, which has no rival. The feed-forward half-layer of one kernel is from a
// chain of 12 at 16,896 rows, that between attention and feed-forward from its
// clocks at 128, attention of short sequences from chains of up to 1,024 rows.
// The others are ESTIMATES, from published peaks and other kernels. Only ratios
// matter: they decide between ways and chunk sizes, never whether a batch fits.
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

// A tile of queries of one head of one sequence; a multiprocessor works on
// `places` of them at once.
struct CudaAttentionTile {
  int rows;
  int places;
  double tflops;   // scores and weighted sum; all places taken
  int extra_keys;  // keys that a tile's start and end cost
};

// Attention of heads up to this width.
struct CudaAttentionCost {
  int head_dim;
  double lowrank_tflops;  // within low-rank attention
  // The launcher takes the fastest of these; a table may have fewer.
  CudaAttentionTile tiles[3];
};

// Low-rank attention: a block has one head of one sequence.
struct CudaLowRankCost {
  double tflops;         // Q, K and V
  double block_seconds;  // what its start and end cost
};

// Low-rank attention of so few and short sequences that one block has all of a
// head, one a multiprocessor.
struct CudaShortAttentionCost {
  int most_tokens;
  int tile_rows;
  double row_seconds;     // of a row of its tiles,
  double column_seconds;  // and of each of the row's factors
};

// A layer's kernel between attention and the feed-forward's inner product.
struct CudaChainCost {
  int rows;                // of a cluster
  int clusters;            // that run at once
  double cluster_seconds;  // but for its launch
};

struct CudaCosts {
  int sm;
  int multiprocessors;    // of the device that the rates are of
  double launch_seconds;  // from a kernel's end to the next one's start
  double bytes_per_second;
  // The launcher takes the fastest of its tiles; the largest comes first, none
  // has no rows.
  CudaTileCost gemm[3];
  CudaTileCost gemm_norm[2];
  // The norm of an update that is in memory.
  int norm_rows;              // of a block
  double norm_block_seconds;  // but for its launch
  CudaTileCost fused_ffn[2];
  CudaAttentionCost attention[3];
  CudaLowRankCost lowrank;
  // Kernels that sm_90 alone has.
  CudaTileCost ffn_layer = {128, 0, 100, 64};
  CudaShortAttentionCost short_attention = {0, 64, 0, 0};
  CudaChainCost chain = {16, 1, 10e-6};
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
     .attention = {{32, 99, {{128, 1, 110, 90}}},
                   {64, 162, {{128, 1, 180, 90}}},
                   {128, 180, {{128, 1, 200, 90}}}},
     .lowrank = {190, 3e-6}},
    {.sm = 86,  // A10: 125 TFLOP/s at most, 0.6 TB/s
     .multiprocessors = 72,
     .launch_seconds = 3e-6,
     .bytes_per_second = 0.5e12,
     .gemm = {{128, 128, 62, 128}, {64, 64, 42, 96}},
     .gemm_norm = {{64, 0, 54, 192}, {16, 0, 24, 96}},
     .norm_rows = 16,
     .norm_block_seconds = 3e-6,
     .fused_ffn = {{128, 0, 60, 64}, {64, 0, 42, 64}},
     .attention = {{32, 30.6, {{128, 1, 34, 90}}},
                   {64, 45, {{128, 1, 50, 90}}},
                   {128, 48.6, {{128, 1, 54, 90}}}},
     .lowrank = {54, 5e-6}},
    {.sm = 89,  // L40S: 362 TFLOP/s at most, 0.86 TB/s
     .multiprocessors = 142,
     .launch_seconds = 2.5e-6,
     .bytes_per_second = 0.75e12,
     .gemm = {{128, 128, 200, 128}, {64, 64, 130, 96}},
     .gemm_norm = {{64, 0, 170, 192}, {16, 0, 75, 96}},
     .norm_rows = 16,
     .norm_block_seconds = 2e-6,
     .fused_ffn = {{128, 0, 190, 64}, {64, 0, 130, 64}},
     .attention = {{32, 90, {{128, 1, 100, 90}}},
                   {64, 135, {{128, 1, 150, 90}}},
                   {128, 148.5, {{128, 1, 165, 90}}}},
     .lowrank = {170, 3e-6}},
    {.sm = 90,
     .multiprocessors = 132,
     .launch_seconds = 1.9e-6,
     .bytes_per_second = 3.2e12,
     .gemm = {{128, 128, 767, 197}, {128, 80, 1404, 749}, {64, 32, 274, 44}},
     .gemm_norm = {{64, 0, 950, 718}, {16, 0, 1483, 1375}},
     .norm_rows = 16,
     .norm_block_seconds = 1.3e-6,
     .fused_ffn = {{128, 0, 720, 0}, {128, 0, 720, 0}},
     .attention =
         {{32,
           300,
           {{256, 1, 372, 146}, {192, 1, 348, 139}, {64, 3, 331, 112}}},
          {64,
           492,
           {{256, 1, 565, 118}, {192, 1, 526, 150}, {64, 3, 506, 187}}},
          {128,
           559,
           {{192, 1, 776, 156}, {128, 1, 615, 117}, {64, 2, 615, 220}}}},
     .lowrank = {480, 3.5e-6},
     .ffn_layer = {128, 0, 756, 575},
     .short_attention = {128, 64, 12.6e-9, 0.046e-9},
     .chain = {16, 14, 6.3e-6}},
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_PLAN_CUDA_COST_TABLE_H_
