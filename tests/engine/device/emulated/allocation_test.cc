// Nothing is allocated on the host between Launch() and the end of Collect(),
// once a bucket has come twice: every allocation of the process is counted. The
// emulator's own buffers have grown by then. What is asked of the device,
// cuda_backend_test counts.
#include <random>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/engine/device/allocation_counter.h"
#include "tests/engine/device/cuda_fixture.h"
#include "tests/engine/device/random_model.h"

namespace svdserve {
namespace {

class CudaAllocationTest : public ::testing::TestWithParam<ComputeType> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(backend_.status().ok()) << backend_.status();
    output_.values.reserve(100 * model_.shape.output_width());
  }

  PackedBatch RandomBatch(int sequences, int length) {
    return BatchOf(RandomInputs(random_, std::vector<int>(sequences, length)));
  }

  // What a batch allocates in all.
  long Run(int slot, const Plan& plan, const PackedBatch& batch) {
    const long before = Allocations();
    const absl::Status launched = backend_->Launch(slot, plan, batch);
    const absl::Status collected = backend_->Collect(slot, &output_);
    const long after = Allocations();
    EXPECT_TRUE(launched.ok() && collected.ok());
    return after - before;
  }

  std::mt19937 random_{41};
  const Model model_ =
      RandomModel({.layers = VariedLayers(), .head_widths = {20}});
  PoisonedCuda backend_{model_, {.compute = GetParam()}};
  BatchOutput output_;
};

TEST_P(CudaAllocationTest, ABatchOfAWarmBucketAllocatesNothing) {
  std::vector<std::pair<Plan, PackedBatch>> batches;
  for (const auto& [sequences, length] :
       {std::pair(1, 1), {1, 64}, {3, 20}, {100, 5}}) {
    const PackedBatch batch = RandomBatch(sequences, length);
    auto plan = backend_.planner().MakePlan(batch.Shape());
    ASSERT_TRUE(plan.ok()) << plan.status();
    batches.emplace_back(*std::move(plan), batch);
  }
  for (const bool fused : {false, true}) {  // chunks: no graph
    const PackedBatch batch = RandomBatch(3, 40);
    batches.emplace_back(
        backend_.planner().MakePlanWith(
            batch.Shape(), {.rows = 50, .heads = 3, .fused = fused},
            {.rows = 50, .fused = fused}),
        batch);
  }
  for (int i = 0; i < 3; ++i) {
    for (const auto& [plan, batch] : batches) Run(i % 2, plan, batch);
  }
  EXPECT_GE(backend_->graphs().captured(), 3);
  for (int slot : {0, 1, 0}) {
    for (const auto& [plan, batch] : batches) {
      EXPECT_EQ(Run(slot, plan, batch), 0) << plan.ToString();
    }
  }
}

// As the one above would see it.
TEST_P(CudaAllocationTest, ACaptureIsSeen) {
  const PackedBatch batch = RandomBatch(2, 10);
  const auto plan = backend_.planner().MakePlan(batch.Shape());
  ASSERT_TRUE(plan.ok()) << plan.status();
  Run(0, *plan, batch);
  EXPECT_GT(Run(0, *plan, batch), 0);
  EXPECT_EQ(backend_->graphs().captured(), 1);
}

INSTANTIATE_TEST_SUITE_P(Types, CudaAllocationTest,
                         ::testing::Values(ComputeType::kBF16,
                                           ComputeType::kF16),
                         [](const auto& info) {
                           return info.param == ComputeType::kBF16 ? "bf16"
                                                                   : "f16";
                         });

}  // namespace
}  // namespace svdserve
