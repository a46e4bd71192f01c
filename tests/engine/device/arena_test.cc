// The plan's peak is the truth: a poisoned arena shows what a batch touched.
#include <algorithm>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "tests/engine/device/random_model.h"

namespace svdserve {
namespace {

constexpr std::byte kPoison{0xa5};

// A range of the arena holds other bytes than the poison.
bool Touched(CpuBackend& backend, uint64_t begin, uint64_t end) {
  const std::byte* data = backend.arena().data();
  return std::any_of(data + begin, data + end,
                     [](std::byte value) { return value != kPoison; });
}

void RunPoisoned(CpuBackend& backend, const Plan& plan,
                 const PackedBatch& batch) {
  backend.arena().Fill(kPoison);
  ASSERT_TRUE(backend.Launch(0, plan, batch).ok());
  BatchOutput output;
  ASSERT_TRUE(backend.Collect(0, &output).ok());
}

// Nothing at or past the peak, and every buffer below it is used: none was
// planned for show. Which lane runs is up to the threads, but one does.
void ExpectTouchesWhatWasPlanned(CpuBackend& backend, const Plan& plan) {
  EXPECT_FALSE(Touched(backend, plan.peak_bytes, backend.arena().bytes()))
      << plan.ToString();
  uint64_t last = 0;
  uint64_t highest_offset = 0;
  for (const Buffer& buffer : plan.buffers) {
    last = std::max(last, buffer.end());
    highest_offset = std::max(highest_offset, buffer.offset);
    bool touched = false;
    for (int lane = 0; lane < buffer.lanes; ++lane) {
      const uint64_t begin = buffer.offset + lane * buffer.lane_stride;
      touched |= Touched(backend, begin, begin + buffer.bytes);
    }
    EXPECT_TRUE(touched) << RoleName(buffer.role) << "\n" << plan.ToString();
  }
  EXPECT_EQ(last, plan.peak_bytes);
  EXPECT_LE(backend.TouchedBytes(), plan.peak_bytes);
  EXPECT_GT(backend.TouchedBytes(), highest_offset);
}

class ArenaTest
    : public ::testing::TestWithParam<std::tuple<ComputeType, bool>> {
 protected:
  PackedBatch RandomBatch(int most) {
    const auto pick = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(random_);
    };
    std::vector<int> lengths(pick(1, most));
    for (int& length : lengths) length = pick(1, 64);
    return BatchOf(RandomInputs(random_, lengths));
  }

  std::mt19937 random_{21};
  const ComputeType compute_ = std::get<0>(GetParam());
  const std::vector<LayerShape> layers_ =
      std::get<1>(GetParam()) ? VariedHeads() : VariedLayers();
};

TEST_P(ArenaTest, TouchesWhatWasPlannedForManyShapesAndBudgets) {
  const Model model = RandomModel({.layers = layers_, .head_widths = {20, 7}});
  for (int threads : {1, 2, 3}) {
    PoisonedBackend backend(model, {.compute = compute_, .threads = threads});
    if (absl::IsUnimplemented(backend.status())) {
      GTEST_SKIP() << backend.status();
    }
    ASSERT_TRUE(backend.status().ok());
    const PlanTarget target = backend->target();
    const uint64_t least = Planner(model.shape, target, 0).MinimumArenaBytes();
    for (int percent : {100, 120, 150, 200, 300, 800}) {
      const Planner planner(model.shape, target, least * percent / 100);
      int planned = 0;
      while (planned < 6) {
        const PackedBatch batch = RandomBatch(planned == 0 ? 1 : 12);
        const auto plan = planner.MakePlan(batch.Shape());
        if (!plan.ok()) continue;
        ++planned;
        ASSERT_NO_FATAL_FAILURE(RunPoisoned(*backend, *plan, batch));
        ExpectTouchesWhatWasPlanned(*backend, *plan);
      }
    }
  }
}

TEST_P(ArenaTest, TouchesWhatWasPlannedForOtherChunkSizes) {
  const Model model = RandomModel({.layers = layers_});
  PoisonedBackend backend(model, {.compute = compute_, .threads = 2});
  if (absl::IsUnimplemented(backend.status())) {
    GTEST_SKIP() << backend.status();
  }
  ASSERT_TRUE(backend.status().ok());
  const Planner planner(model.shape, backend->target(),
                        backend->info().arena_bytes);
  for (int lanes : {1, 2}) {
    for (int rows : {64, 128, 256}) {
      const PackedBatch batch = RandomBatch(30);
      const Plan plan = planner.MakePlanWith(
          batch.Shape(), {.lanes = lanes, .rows = rows, .heads = 4},
          {.lanes = lanes, .rows = rows / 2});
      ASSERT_NO_FATAL_FAILURE(RunPoisoned(*backend, plan, batch));
      ExpectTouchesWhatWasPlanned(*backend, plan);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    ComputeTypes, ArenaTest,
    ::testing::Combine(::testing::Values(ComputeType::kF32, ComputeType::kBF16),
                       ::testing::Bool()),
    [](const auto& info) {
      const bool f32 = std::get<0>(info.param) == ComputeType::kF32;
      return std::string(f32 ? "f32" : "bf16") +
             (std::get<1>(info.param) ? "_other_heads" : "");
    });

}  // namespace
}  // namespace svdserve
