// Where a plan for CUDA puts things: what lives at the same time never shares
// a byte, and the inputs lie together.
#include <algorithm>
#include <random>
#include <vector>

#include "engine/plan/cuda_shape.h"
#include "engine/plan/layout.h"
#include "engine/plan/plan.h"
#include "gtest/gtest.h"
#include "tests/engine/plan/cuda_shapes.h"

namespace svdserve {
namespace {

// A planned batch of a random model on a random GPU, in any arena that holds
// it.
class CudaLayoutTest : public ::testing::Test {
 protected:
  void PlanOne() {
    do {
      shape_ = RandomModel(random_);
      const PlanTarget target = RandomGpu(random_, shape_);
      const uint64_t least = Planner(shape_, target, 0).MinimumArenaBytes();
      const Planner planner(shape_, target, least * Pick(random_, 1, 50));
      const auto plan =
          planner.MakePlan(ShapeOfLengths(RandomLengths(random_, shape_, 20)));
      planned_ = plan.ok();
      update_rows_ = target.update_rows;
      if (planned_) plan_ = *plan;
    } while (!planned_);
  }

  void ExpectApart(const Step& step, const std::vector<Role>& alive) {
    for (size_t i = 0; i < alive.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        const Buffer* a = plan_.Find(step, alive[i]);
        const Buffer* b = plan_.Find(step, alive[j]);
        if (a == nullptr || b == nullptr) continue;
        EXPECT_TRUE(a->end() <= b->offset || b->end() <= a->offset)
            << RoleName(alive[i]) << " meets " << RoleName(alive[j]) << "\n"
            << plan_.ToString();
      }
    }
  }

  // A group's heads are computed beside the context of the others; of all heads
  // the context takes the place of Q exactly, if it is as wide.
  void ExpectContextApart(const Step& step) {
    ExpectApart(step, {Role::kFactors, Role::kContext});
    const LayerShape& layer = shape_.layers[step.layer];
    if (step.heads_per_group != shape_.heads ||
        shape_.query_dim(layer) != shape_.value_dim(layer)) {
      ExpectApart(step, {Role::kQkv, Role::kContext});
      return;
    }
    const Buffer* qkv = plan_.Find(step, Role::kQkv);
    const Buffer* context = plan_.Find(step, Role::kContext);
    EXPECT_EQ(context->offset, qkv->offset);
    EXPECT_EQ(3 * context->bytes, qkv->bytes);
  }

  // The update's last factor, or `wide` where the matrix is dense, is read
  // while it is written.
  void ExpectUpdateApart(const Step& step, Role wide) {
    const Buffer* narrow = plan_.Find(step, Role::kNarrow);
    ExpectApart(step,
                {Role::kHidden, narrow ? Role::kNarrow : wide, Role::kUpdate});
  }

  std::mt19937 random_{7};
  ModelShape shape_;
  Plan plan_;
  bool planned_ = false;
  int update_rows_ = 0;
};

TEST_F(CudaLayoutTest, WhatAKernelReadsAndWritesIsApart) {
  for (int round = 0; round < 100; ++round) {
    PlanOne();
    for (const Step& step : plan_.steps) {
      switch (step.kind) {
        case StepKind::kAttention:
          ExpectApart(step, {Role::kHidden, Role::kFactors});
          ExpectApart(step, {Role::kHidden, Role::kFactors, Role::kQkv});
          ExpectContextApart(step);
          ExpectApart(step, {Role::kContext, Role::kNarrow});
          ExpectApart(step, {Role::kNarrow, Role::kHidden});
          ExpectUpdateApart(step, Role::kContext);
          ExpectApart(step,
                      {Role::kHidden, Role::kContext, Role::kNextFactors});
          break;
        case StepKind::kFeedForward:
          ExpectApart(step, {Role::kHidden, Role::kFactors, Role::kInner});
          ExpectApart(step, {Role::kInner, Role::kNarrow});
          ExpectApart(step, {Role::kNarrow, Role::kHidden});
          if (step.way == Way::kFactoredFused) {
            ExpectApart(step, {Role::kFactors, Role::kNarrow});
          }
          ExpectUpdateApart(step, Role::kInner);
          break;
        default:
          ExpectApart(step, {Role::kHidden, Role::kPooled, Role::kOutput});
      }
    }
  }
}

// Of few rows in one chunk, from where the attention leaves them to where the
// feed-forward has its own.
TEST_F(CudaLayoutTest, ChainedStepsShareTheFactors) {
  int chained = 0;
  for (int round = 0; round < 200; ++round) {
    PlanOne();
    for (size_t i = 1; i < plan_.steps.size(); ++i) {
      const Step& step = plan_.steps[i];
      const Step& before = plan_.steps[i - 1];
      if (step.kind != StepKind::kFeedForward) continue;
      ASSERT_EQ(step.chained, before.chained);
      const Buffer* next = plan_.Find(before, Role::kNextFactors);
      ASSERT_EQ(next != nullptr, step.chained);
      if (next == nullptr) continue;
      ++chained;
      EXPECT_LE(plan_.shape.tokens, 192);
      EXPECT_GE(before.rows_per_chunk, plan_.shape.tokens);
      EXPECT_GE(step.rows_per_chunk, plan_.shape.tokens);
      const Buffer* factors = plan_.Find(step, Role::kFactors);
      ASSERT_NE(factors, nullptr);
      EXPECT_EQ(next->offset, factors->offset);
      EXPECT_LE(uint64_t{2} * plan_.shape.tokens *
                    CudaShape(shape_).layers[step.layer].ffn_in,
                std::min(next->bytes, factors->bytes));
    }
  }
  EXPECT_GT(chained, 10);
}

TEST_F(CudaLayoutTest, EveryBufferIsAlignedAndTheLastOneEndsAtThePeak) {
  for (int round = 0; round < 50; ++round) {
    PlanOne();
    uint64_t peak = 0;
    for (const Buffer& buffer : plan_.buffers) {
      EXPECT_EQ(buffer.offset % kBufferAlignment, 0);
      EXPECT_EQ(buffer.lanes, 1);
      EXPECT_NE(buffer.role, Role::kKernelScratch);
      peak = std::max(peak, buffer.end());
    }
    EXPECT_EQ(peak, plan_.peak_bytes);
  }
}

TEST_F(CudaLayoutTest, OnlyFewRowsInOneChunkHaveAnUpdate) {
  int with = 0;
  for (int round = 0; round < 200; ++round) {
    PlanOne();
    for (const Step& step : plan_.steps) {
      const Buffer* update = plan_.Find(step, Role::kUpdate);
      if (update == nullptr) continue;
      ++with;
      EXPECT_GE(step.rows_per_chunk, plan_.shape.tokens);
      EXPECT_LE(step.rows_per_chunk, update_rows_);
      EXPECT_EQ(update->bytes,
                uint64_t{4} * step.rows_per_chunk * shape_.hidden);
    }
  }
  EXPECT_GT(with, 25);
}

TEST_F(CudaLayoutTest, OneCopyBringsTheInputsInBehindEverythingElse) {
  for (int round = 0; round < 100; ++round) {
    PlanOne();
    const Step& embed = plan_.steps.front();
    const Buffer* inputs[] = {plan_.Find(embed, Role::kIds),
                              plan_.Find(embed, Role::kTypeIds),
                              plan_.Find(embed, Role::kOffsets),
                              plan_.Find(plan_.steps.back(), Role::kOptions)};
    const uint64_t tokens = plan_.shape.tokens;
    const uint64_t sequences = plan_.shape.sequences;
    const uint64_t bytes[] = {4 * tokens, tokens, 4 * (sequences + 1),
                              4 * sequences};
    uint64_t end = plan_.Find(embed, Role::kHidden)->end();
    for (int i = 0; i < 4; ++i) {
      ASSERT_NE(inputs[i], nullptr);
      EXPECT_EQ(inputs[i]->bytes, bytes[i]);
      EXPECT_EQ(inputs[i]->offset, AlignUp(end, kBufferAlignment));
      end = inputs[i]->end();
    }
    EXPECT_EQ(end, plan_.peak_bytes);
    for (const Buffer& buffer : plan_.buffers) {
      EXPECT_TRUE(buffer.offset >= inputs[0]->offset ||
                  buffer.end() <= inputs[0]->offset);
    }
  }
}

TEST_F(CudaLayoutTest, TheResidualStreamHasNoPadding) {
  for (int round = 0; round < 100; ++round) {
    PlanOne();
    EXPECT_EQ(plan_.Find(plan_.steps.front(), Role::kHidden)->bytes,
              uint64_t{2} * plan_.shape.tokens * shape_.hidden);
  }
}

}  // namespace
}  // namespace svdserve
