// Same input, same bits: whatever it is batched with, in whatever order, in
// chunks of any size, on any number of threads.
#include <algorithm>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "tests/engine/device/random_model.h"

namespace svdserve {
namespace {

using Rows = std::vector<std::vector<float>>;

const std::vector<int> kLengths = {1, 16, 17, 64, 3, 33, 48, 15, 2, 31, 64, 5};

class InvarianceTest
    : public ::testing::TestWithParam<std::tuple<ComputeType, bool>> {
 protected:
  void SetUp() override {
    if (absl::IsUnimplemented(backend_.status())) {
      GTEST_SKIP() << backend_.status();
    }
    ASSERT_TRUE(backend_.status().ok()) << backend_.status();
    std::mt19937 random(11);
    inputs_ = RandomInputs(random, kLengths);
  }

  Planner PlannerFor(PoisonedBackend& backend) {
    return Planner(model_.shape, backend->target(),
                   backend->info().arena_bytes);
  }
  // All inputs in one batch, as the planner likes it.
  Rows RunAll(PoisonedBackend& backend) {
    return backend.Run(PlannerFor(backend), BatchOf(inputs_));
  }

  const ComputeType compute_ = std::get<0>(GetParam());
  const bool other_heads_ = std::get<1>(GetParam());
  const Model model_ =
      RandomModel({.layers = other_heads_ ? VariedHeads() : VariedLayers(),
                   .head_widths = {48}});
  PoisonedBackend backend_{model_, {.compute = compute_, .threads = 2}};
  std::vector<std::vector<int32_t>> inputs_;
};

TEST_P(InvarianceTest, AloneAndInABatch) {
  const Rows together = RunAll(backend_);
  for (int i = 0; i < inputs_.size(); ++i) {
    const Rows alone =
        backend_.Run(PlannerFor(backend_), BatchOf({inputs_[i]}));
    EXPECT_EQ(alone[0], together[i]) << "length " << kLengths[i];
  }
}

TEST_P(InvarianceTest, InAnotherOrderWithOtherCompanions) {
  const Rows together = RunAll(backend_);
  std::mt19937 random(12);
  std::vector<int> order(inputs_.size());
  for (int round = 0; round < 5; ++round) {
    for (int i = 0; i < order.size(); ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), random);
    order.resize(1 + round * 2);
    std::vector<std::vector<int32_t>> shuffled;
    for (int index : order) shuffled.push_back(inputs_[index]);
    const Rows rows = backend_.Run(PlannerFor(backend_), BatchOf(shuffled));
    for (int i = 0; i < order.size(); ++i) {
      EXPECT_EQ(rows[i], together[order[i]]);
    }
    order.resize(inputs_.size());
  }
}

TEST_P(InvarianceTest, InChunksOfEverySize) {
  const Rows together = RunAll(backend_);
  const PackedBatch batch = BatchOf(inputs_);
  const Planner planner = PlannerFor(backend_);
  for (int lanes : {1, 2}) {
    for (int rows : {64, 80, 512}) {
      for (int heads : {backend_->target().heads_per_panel, 4}) {
        for (int ffn_rows : {16, 48, 112}) {
          const Plan plan = planner.MakePlanWith(
              batch.Shape(), {.lanes = lanes, .rows = rows, .heads = heads},
              {.lanes = 3 - lanes, .rows = ffn_rows});
          ASSERT_LE(plan.peak_bytes, backend_->info().arena_bytes);
          ASSERT_EQ(backend_.Run(plan, batch), together) << plan.ToString();
        }
      }
    }
  }
}

TEST_P(InvarianceTest, InTheSmallestArena) {
  const Rows together = RunAll(backend_);
  const uint64_t least = PlannerFor(backend_).MinimumArenaBytes();
  PoisonedBackend small(
      model_, {.compute = compute_, .threads = 2, .arena_bytes = least});
  ASSERT_TRUE(small.status().ok()) << small.status();
  for (int i = 0; i < inputs_.size(); ++i) {
    const Rows rows = small.Run(PlannerFor(small), BatchOf({inputs_[i]}));
    EXPECT_EQ(rows[0], together[i]);
  }
}

TEST_P(InvarianceTest, OnAnyNumberOfThreads) {
  const Rows together = RunAll(backend_);
  for (int threads : {1, 3}) {
    PoisonedBackend other(model_, {.compute = compute_, .threads = threads});
    ASSERT_TRUE(other.status().ok()) << other.status();
    EXPECT_EQ(RunAll(other), together) << threads << " threads";
    EXPECT_EQ(other.Run(PlannerFor(other), BatchOf({inputs_[3]}))[0],
              together[3]);
  }
}

INSTANTIATE_TEST_SUITE_P(
    ComputeTypes, InvarianceTest,
    ::testing::Combine(::testing::Values(ComputeType::kF32, ComputeType::kBF16),
                       ::testing::Bool()),
    [](const auto& info) {
      const bool f32 = std::get<0>(info.param) == ComputeType::kF32;
      return std::string(f32 ? "f32" : "bf16") +
             (std::get<1>(info.param) ? "_other_heads" : "");
    });

}  // namespace
}  // namespace svdserve
