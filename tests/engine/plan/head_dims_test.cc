// Plans for heads that are not as wide as hidden / heads.
#include <random>
#include <vector>

#include "engine/plan/plan.h"
#include "gtest/gtest.h"
#include "tests/engine/plan/cuda_shapes.h"

namespace svdserve {
namespace {

constexpr uint64_t kArena = uint64_t{1} << 30;

PlanTarget OneCore() {
  return {.element_bytes = 4, .threads = 1, .row_tile = 16};
}
// Without fused kernels.
PlanTarget PlainHopper() {
  PlanTarget target = Hopper({});
  target.update_rows = 0;
  return target;
}

ModelShape WithHeads(LayerShape layer, int query_dim, int value_dim) {
  layer.query_dim = query_dim;
  layer.value_dim = value_dim;
  return BertBase(layer);
}

Plan PlanOf(const ModelShape& shape, const PlanTarget& target,
            const BatchShape& batch) {
  const auto plan = Planner(shape, target, kArena).MakePlan(batch);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return plan.ok() ? *plan : Plan();
}

// Of the first attention step.
uint64_t BytesOf(const Plan& plan, Role role) {
  return plan.Find(plan.steps[1], role)->bytes;
}

TEST(HeadDimsPlanTest, TheUsualWidthsAreAsIfUnsaid) {
  std::mt19937 random(1);
  for (int round = 0; round < 100; ++round) {
    ModelShape shape = RandomModel(random);
    for (LayerShape& layer : shape.layers) {
      layer.query_dim = layer.value_dim = 0;
    }
    ModelShape said = shape;
    for (LayerShape& layer : said.layers) {
      layer.query_dim = layer.value_dim = shape.head_dim;
    }
    const BatchShape batch = ShapeOfLengths(RandomLengths(random, shape, 20));
    for (const PlanTarget& target :
         {RandomTarget(random), RandomGpu(random, shape)}) {
      const Planner planner(shape, target, kArena);
      const Planner other(said, target, kArena);
      EXPECT_EQ(planner.MinimumArenaBytes(), other.MinimumArenaBytes());
      const auto plan = planner.MakePlan(batch);
      const auto as_said = other.MakePlan(batch);
      ASSERT_EQ(plan.ok(), as_said.ok());
      if (!plan.ok()) continue;
      EXPECT_EQ(*plan, *as_said);
    }
  }
}

TEST(HeadDimsPlanTest, BuffersAreAsWideAsTheHeads) {
  const ModelShape shape = WithHeads(BertBaseHalf(), 32, 48);
  for (const PlanTarget& target : {OneCore(), PlainHopper()}) {
    const Chunking all = {.rows = 512, .heads = 12};
    const Plan plan = Planner(shape, target, kArena)
                          .MakePlanWith(Uniform(4, 128), all, {.rows = 512});
    const uint64_t row = 512 * target.element_bytes;
    EXPECT_EQ(BytesOf(plan, Role::kQkv), row * 12 * (32 + 32 + 48));
    EXPECT_EQ(BytesOf(plan, Role::kContext), row * 12 * 48);
    EXPECT_EQ(BytesOf(plan, Role::kFactors), row * 3 * 192);
    EXPECT_EQ(BytesOf(plan, Role::kNarrow), row * 192);
    const Plan groups =
        Planner(shape, target, kArena)
            .MakePlanWith(Uniform(4, 128), {.rows = 512, .heads = 3},
                          {.rows = 512});
    EXPECT_EQ(BytesOf(groups, Role::kQkv), row * 3 * (32 + 32 + 48));
    EXPECT_EQ(BytesOf(groups, Role::kContext), row * 12 * 48);
  }
}

// As the context of all heads does on CUDA where it is as wide.
TEST(HeadDimsPlanTest, ContextOfOtherWidthTakesNoQueriesPlace) {
  const auto bytes = [](int query_dim, int value_dim) {
    const Plan plan =
        Planner(WithHeads({}, query_dim, value_dim), PlainHopper(), kArena)
            .MakePlanWith(Uniform(4, 128), {.rows = 512, .heads = 12},
                          {.rows = 512});
    const Buffer* qkv = plan.Find(plan.steps[1], Role::kQkv);
    const Buffer* context = plan.Find(plan.steps[1], Role::kContext);
    return std::max(qkv->end(), context->end()) -
           std::min(qkv->offset, context->offset);
  };
  constexpr uint64_t kColumn = 512 * 12 * 2;
  EXPECT_EQ(bytes(48, 48), kColumn * 3 * 48);
  EXPECT_EQ(bytes(48, 64), kColumn * (48 + 48 + 64 + 64));
  EXPECT_EQ(bytes(64, 48), kColumn * (64 + 64 + 48 + 48));
}

TEST(HeadDimsPlanTest, NarrowerHeadsTakeLessTime) {
  for (const PlanTarget& target : {OneCore(), PlainHopper()}) {
    for (const LayerShape& ranks : {LayerShape(), BertBaseHalf()}) {
      const BatchShape batch = Uniform(8, 512);
      const auto seconds = [&](int query_dim, int value_dim) {
        return PlanOf(WithHeads(ranks, query_dim, value_dim), target, batch)
            .predicted_seconds;
      };
      EXPECT_LT(seconds(32, 64), seconds(64, 64));
      EXPECT_LT(seconds(64, 32), seconds(64, 64));
      EXPECT_LT(seconds(32, 48), seconds(32, 64));
      EXPECT_LT(seconds(32, 32), seconds(32, 48));
    }
  }
}

// Layers that differ in their heads alone are planned each for itself.
TEST(HeadDimsPlanTest, LayersMayDiffer) {
  ModelShape shape = BertBase(BertBaseHalf());
  shape.layers[5].query_dim = 16;
  shape.layers[5].value_dim = 128;
  const PlanTarget target = PlainHopper();
  const Plan plan =
      Planner(shape, target, kArena)
          .MakePlanWith(Uniform(4, 128), {.rows = 512, .heads = 12},
                        {.rows = 512});
  const auto qkv = [&](int layer) {
    return plan.Find(plan.steps[1 + 2 * layer], Role::kQkv)->bytes;
  };
  constexpr uint64_t kColumn = 512 * 12 * 2;
  EXPECT_EQ(qkv(4), kColumn * 3 * 64);
  EXPECT_EQ(qkv(5), kColumn * (16 + 16 + 128));
  EXPECT_EQ(qkv(6), qkv(4));
}

}  // namespace
}  // namespace svdserve
