// Running allocates nothing that is ours. oneDNN's execute() makes a few small
// short-lived objects for itself on every call; the test bounds them, and finds
// everything else.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/attention.h"
#include "kernels/embed.h"
#include "kernels/epilogue.h"
#include "kernels/layer_norm.h"
#include "kernels/normalize.h"
#include "kernels/packed_matmul.h"
#include "kernels/pool.h"
#include "kernels/team.h"
#include "tests/kernels/kernel_testing.h"

namespace {
thread_local int64_t allocations = 0;
}  // namespace

[[gnu::noinline]] void* operator new(size_t bytes) {
  ++allocations;
  void* p = std::malloc(bytes);
  if (p == nullptr) std::abort();
  return p;
}
[[gnu::noinline]] void* operator new(size_t bytes,
                                     const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(bytes);
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept {
  std::free(p);
}

namespace svdserve::kernels {
namespace {

template <typename Fn>
int64_t AllocationsOf(Fn fn) {
  fn();  // what happens once per thread, happens here
  const int64_t before = allocations;
  fn();
  return allocations - before;
}

TEST(Allocation, OurKernelsAllocateNothing) {
  constexpr int kRows = 100, kWidth = 64;
  Storage x(DataType::kF32, RandomNormal(kRows * kWidth, 1));
  Storage y(DataType::kF32, kRows * kWidth);
  Storage scratch(DataType::kF32, AttentionScratchBytes(kWidth, kWidth) / 4);
  const std::vector<float> ones(kWidth, 1.0f);
  const AttentionParams attention{.queries = kRows,
                                  .keys = kRows,
                                  .qk_dim = kWidth,
                                  .v_dim = kWidth,
                                  .q = x.data(),
                                  .k = x.data(),
                                  .v = x.data(),
                                  .out = y.data(),
                                  .q_stride = kWidth,
                                  .k_stride = kWidth,
                                  .v_stride = kWidth,
                                  .out_stride = kWidth};
  EXPECT_EQ(AllocationsOf([&] { Attention(attention, scratch.data()); }), 0);
  const LayerNormParams norm{.rows = kRows,
                             .width = kWidth,
                             .x = x.data(),
                             .y = y.data(),
                             .x_stride = kWidth,
                             .y_stride = kWidth,
                             .gamma = ones.data(),
                             .beta = ones.data()};
  EXPECT_EQ(AllocationsOf([&] { ResidualLayerNorm(norm); }), 0);
  const PoolParams pool{.rows = kRows,
                        .width = kWidth,
                        .x = x.data(),
                        .x_stride = kWidth,
                        .y = y.floats()};
  EXPECT_EQ(AllocationsOf([&] {
              Pool(pool);
              Normalize(y.floats(), kWidth);
            }),
            0);
}

TEST(Allocation, LoopsOfATeamAllocateNothing) {
  Team team(3, "test");
  int64_t sum[3] = {0, 0, 0};
  EXPECT_EQ(AllocationsOf([&] {
              team.ParallelFor(1000, [&](int worker, int index) {
                const int64_t before = allocations;
                sum[worker] += index + allocations - before;
              });
            }),
            0);
  EXPECT_EQ(sum[0] + sum[1] + sum[2], 2 * 499500);
}

TEST(Allocation, AMatmulCallIsBounded) {
  constexpr int kRows = 16, kSize = 64;
  const std::vector<float> weight = RandomNormal(kSize * kSize, 1);
  std::unique_ptr<PackedMatmul> matmul;
  ASSERT_EQ(PackedMatmul::Create({.in = kSize,
                                  .out = kSize,
                                  .weight = weight.data(),
                                  .weight_in_stride = kSize,
                                  .weight_out_stride = 1,
                                  .panel = kSize},
                                 &matmul),
            KernelStatus::kOk);
  Storage x(DataType::kF32, kRows * kSize);
  Storage y(DataType::kF32, kRows * kSize);
  Storage scratch(DataType::kF32, matmul->scratch_bytes() / 4);
  const auto run = [&](int rows) {
    matmul->Run(0, 0, rows, x.data(), y.data(), kSize, scratch.data());
  };
  // This counts oneDNN's too: its code calls the same operator new.
  EXPECT_LE(AllocationsOf([&] { run(16); }), 8);
  EXPECT_EQ(AllocationsOf([&] { run(0); }), 0);
}

}  // namespace
}  // namespace svdserve::kernels
