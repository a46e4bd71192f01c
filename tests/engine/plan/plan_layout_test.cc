// Buffers that are alive at the same time never share a byte.
#include <algorithm>
#include <random>
#include <vector>

#include "engine/plan/layout.h"
#include "engine/plan/plan.h"
#include "gtest/gtest.h"
#include "tests/engine/plan/shapes.h"

namespace svdserve {
namespace {

bool Meet(uint64_t begin, uint64_t end, uint64_t other, uint64_t other_end) {
  return begin < other_end && other < end;
}

// Any lane of one against any lane of the other.
bool Overlap(const Buffer& a, const Buffer& b) {
  for (int i = 0; i < a.lanes; ++i) {
    for (int j = 0; j < b.lanes; ++j) {
      const uint64_t from_a = a.offset + i * a.lane_stride;
      const uint64_t from_b = b.offset + j * b.lane_stride;
      if (Meet(from_a, from_a + a.bytes, from_b, from_b + b.bytes)) {
        return true;
      }
    }
  }
  return false;
}

// Roles of a chunk that are alive together, phase by phase.
const std::vector<std::vector<Role>>& AlivePhases() {
  static const auto* phases = new std::vector<std::vector<Role>>{
      {Role::kHidden, Role::kOffsets, Role::kIds, Role::kTypeIds},
      {Role::kHidden, Role::kOffsets, Role::kKernelScratch, Role::kFactors,
       Role::kQkv, Role::kContext},
      {Role::kHidden, Role::kKernelScratch, Role::kContext, Role::kNarrow,
       Role::kUpdate},
      {Role::kHidden, Role::kKernelScratch, Role::kFactors, Role::kInner},
      {Role::kHidden, Role::kKernelScratch, Role::kNarrow, Role::kInner},
      {Role::kHidden, Role::kKernelScratch, Role::kNarrow, Role::kUpdate},
      {Role::kHidden, Role::kOffsets, Role::kPooled, Role::kOutput},
  };
  return *phases;
}

void CheckStep(const Plan& plan, const Step& step, bool dense_out) {
  std::vector<std::vector<Role>> phases = AlivePhases();
  if (dense_out) phases.push_back({Role::kInner, Role::kUpdate});
  for (const std::vector<Role>& phase : phases) {
    for (int i = 0; i < phase.size(); ++i) {
      for (int j = 0; j < i; ++j) {
        const Buffer* a = plan.Find(step, phase[i]);
        const Buffer* b = plan.Find(step, phase[j]);
        if (a == nullptr || b == nullptr) continue;
        ASSERT_FALSE(Overlap(*a, *b))
            << RoleName(phase[i]) << " meets " << RoleName(phase[j]) << "\n"
            << plan.ToString();
      }
    }
  }
}

// Different lanes run at their own pace: whatever they hold must be apart.
void CheckLanes(const Plan& plan, const Step& step) {
  for (int i : step.scratch) {
    for (int j : step.scratch) {
      const Buffer& a = plan.buffers[i];
      const Buffer& b = plan.buffers[j];
      for (int lane = 1; lane < a.lanes; ++lane) {
        const uint64_t from = a.offset + lane * a.lane_stride;
        ASSERT_FALSE(Meet(from, from + a.bytes, b.offset, b.offset + b.bytes));
      }
    }
  }
}

TEST(PlanLayoutTest, LiveBuffersAreApartAlignedAndBelowThePeak) {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    const ModelShape shape = RandomModel(random);
    PlanTarget target = RandomTarget(random);
    target.threads = std::min(target.threads, 4);
    const uint64_t least = Planner(shape, target, 0).MinimumArenaBytes();
    const Planner planner(shape, target, least * Pick(random, 1, 50));
    const auto plan =
        planner.MakePlan(ShapeOfLengths(RandomLengths(random, shape, 20)));
    if (!plan.ok()) continue;
    uint64_t peak = 0;
    for (const Buffer& buffer : plan->buffers) {
      EXPECT_EQ(buffer.offset % kBufferAlignment, 0);
      EXPECT_EQ(buffer.lane_stride % kBufferAlignment, 0);
      peak = std::max(peak, buffer.end());
    }
    EXPECT_EQ(peak, plan->peak_bytes);
    for (const Step& step : plan->steps) {
      const bool dense_out = step.kind == StepKind::kFeedForward &&
                             shape.layers[step.layer].ffn_out == 0;
      CheckStep(*plan, step, dense_out);
      CheckLanes(*plan, step);
    }
  }
}

}  // namespace
}  // namespace svdserve
