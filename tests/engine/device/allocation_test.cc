// Nothing is allocated between Launch() and the end of Collect(), on any
// thread: every allocation of the process is counted. The one exception is
// what oneDNN allocates within a call of its own: it makes and drops an
// argument table for each execution.
#include <cstdlib>
#include <new>
#include <random>

#include "gtest/gtest.h"
#include "tests/engine/device/allocation_counter.h"
#include "tests/engine/device/random_model.h"

namespace svdserve {
namespace {

class AllocationTest : public ::testing::TestWithParam<ComputeType> {};

TEST(AllocationCounterTest, SeesNewAndMalloc) {
  const long before = Allocations();
  void* const one = ::operator new(10);
  void* volatile other = std::malloc(10);
  const long after = Allocations();
  ::operator delete(one);
  std::free(other);
  EXPECT_EQ(after - before, 2);
}

TEST_P(AllocationTest, RunningAllocatesNothing) {
  const Model model =
      RandomModel({.layers = VariedLayers(), .head_widths = {20}});
  CountApart("libdnnl");
  auto backend = CreateCpuBackend(model, {.compute = GetParam(), .threads = 2});
  if (absl::IsUnimplemented(backend.status())) {
    GTEST_SKIP() << backend.status();
  }
  ASSERT_TRUE(backend.ok()) << backend.status();
  const Planner planner(model.shape, (*backend)->target(),
                        (*backend)->info().arena_bytes);
  std::mt19937 random(41);
  BatchOutput output;
  int batches = 0;
  output.values.reserve(100 * model.shape.output_width());
  // The first batches warm up: oneDNN keeps some memory for each thread.
  for (int sequences : {100, 100, 100, 1, 3, 100}) {
    std::vector<int> lengths(sequences, 1 + sequences % 64);
    const PackedBatch batch = BatchOf(RandomInputs(random, lengths));
    const auto plan = planner.MakePlan(batch.Shape());
    ASSERT_TRUE(plan.ok());
    const long before = Allocations();
    const absl::Status launched = (*backend)->Launch(0, *plan, batch);
    const absl::Status collected = (*backend)->Collect(0, &output);
    const long after = Allocations();
    EXPECT_TRUE(launched.ok() && collected.ok());
    if (++batches > 3) {
      EXPECT_EQ(after - before, 0) << sequences << " sequences";
    }
  }
  RecordProperty("onednn_allocations", std::to_string(AllocationsApart()));
}

INSTANTIATE_TEST_SUITE_P(ComputeTypes, AllocationTest,
                         ::testing::Values(ComputeType::kF32,
                                           ComputeType::kBF16),
                         [](const auto& info) {
                           return info.param == ComputeType::kF32 ? "f32"
                                                                  : "bf16";
                         });

}  // namespace
}  // namespace svdserve
