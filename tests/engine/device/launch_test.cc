// What Launch() and Create() refuse, and with which words.
#include <cmath>
#include <random>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/device/random_model.h"

namespace svdserve {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class LaunchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::mt19937 random(31);
    batch_ = BatchOf(RandomInputs(random, {10, 20, 30}));
    plan_ =
        *Planner(model_.shape, backend_->target(), backend_->info().arena_bytes)
             .MakePlan(batch_.Shape());
  }
  // The message with which the batch is refused.
  std::string Refusal() {
    const absl::Status status = backend_->Launch(0, plan_, batch_);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    BatchOutput output;
    EXPECT_FALSE(backend_->Collect(0, &output).ok());
    return std::string(status.message());
  }

  const Model model_ = RandomModel({});
  PoisonedBackend backend_{model_, {.threads = 2}};
  PackedBatch batch_;
  Plan plan_;
};

TEST_F(LaunchTest, NamesTheSequenceOfABadId) {
  batch_.ids[12] = 100;
  EXPECT_THAT(Refusal(), AllOf(HasSubstr("sequence 1"), HasSubstr("id 100"),
                               HasSubstr("0 to 99")));
  batch_.ids[12] = -1;
  EXPECT_THAT(Refusal(), HasSubstr("id -1"));
}

TEST_F(LaunchTest, NamesTheSequenceOfABadTypeId) {
  batch_.type_ids[59] = 2;
  EXPECT_THAT(Refusal(),
              AllOf(HasSubstr("sequence 2"), HasSubstr("type id 2")));
}

TEST_F(LaunchTest, RefusesBrokenOffsets) {
  batch_.cu_seqlens[1] = 30;
  EXPECT_THAT(Refusal(), HasSubstr("sequence 1 is empty"));
  batch_.cu_seqlens[1] = 1 << 30;
  EXPECT_THAT(Refusal(), HasSubstr("sequence 0"));
  batch_.cu_seqlens[1] = -5;
  EXPECT_THAT(Refusal(), HasSubstr("sequence 0"));
  batch_.cu_seqlens.pop_back();
  EXPECT_THAT(Refusal(), HasSubstr("offsets"));
}

TEST_F(LaunchTest, RefusesTooManyDimensions) {
  batch_.options[2].dimensions = 129;
  EXPECT_THAT(Refusal(),
              AllOf(HasSubstr("sequence 2"), HasSubstr("129 dimensions")));
}

TEST_F(LaunchTest, RefusesABatchThatIsNotThePlans) {
  std::mt19937 random(32);
  batch_ = BatchOf(RandomInputs(random, {64, 64}));
  EXPECT_THAT(Refusal(), HasSubstr("do not fit a plan"));
  plan_.peak_bytes = backend_->info().arena_bytes + 1;
  EXPECT_THAT(Refusal(), HasSubstr("the arena has"));
}

TEST_F(LaunchTest, RefusesAnotherModelsPlan) {
  const Model deeper = RandomModel({.layers = VariedLayers()});
  plan_ = *Planner(deeper.shape, backend_->target(), 64 << 20)
               .MakePlan(batch_.Shape());
  EXPECT_THAT(Refusal(), HasSubstr("another model"));
  const Model wider = RandomModel({.heads = 6});
  plan_ = *Planner(wider.shape, backend_->target(), 64 << 20)
               .MakePlan(batch_.Shape());
  plan_.steps.pop_back();
  EXPECT_THAT(Refusal(), HasSubstr("another model"));
  const Model narrower = RandomModel({.heads = 2});
  plan_ = *Planner(narrower.shape, backend_->target(), 64 << 20)
               .MakePlan(batch_.Shape());
  EXPECT_THAT(Refusal(), HasSubstr("another model"));
}

TEST_F(LaunchTest, WorksAgainAfterARefusal) {
  const auto before = backend_.Run(plan_, batch_);
  batch_.ids[0] = -1;
  Refusal();
  std::mt19937 random(31);
  batch_ = BatchOf(RandomInputs(random, {10, 20, 30}));
  EXPECT_EQ(backend_.Run(plan_, batch_), before);
}

TEST_F(LaunchTest, CutsThenNormalizes) {
  batch_.options[0] = {.normalize = false};
  const auto whole = backend_.Run(plan_, batch_);
  batch_.options[0] = {.normalize = true, .dimensions = 10};
  const auto cut = backend_.Run(plan_, batch_);
  double length = 0;
  for (int i = 0; i < 10; ++i) length += whole[0][i] * whole[0][i];
  for (int i = 0; i < 10; ++i) {
    EXPECT_NEAR(cut[0][i], whole[0][i] / std::sqrt(length), 1e-6);
  }
  for (int i = 10; i < 128; ++i) EXPECT_EQ(cut[0][i], 0);
  EXPECT_EQ(cut[1], whole[1]);
}

TEST(CreateTest, RefusesAnArenaBelowTheMinimumByName) {
  const Model model = RandomModel({});
  const auto backend =
      CreateCpuBackend(model, {.threads = 1, .arena_bytes = 1000});
  EXPECT_EQ(backend.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(backend.status().message()),
              AllOf(HasSubstr("1000 bytes"), HasSubstr("64 tokens needs")));
}

TEST(CreateTest, RefusesSillyThreadCounts) {
  const Model model = RandomModel({});
  EXPECT_FALSE(CreateCpuBackend(model, {.threads = -1}).ok());
  EXPECT_FALSE(CreateCpuBackend(model, {.threads = 1000000}).ok());
}

TEST(CreateTest, SaysWhatItIs) {
  const Model model = RandomModel({});
  const auto backend = CreateCpuBackend(model, {.threads = 1});
  ASSERT_TRUE(backend.ok());
  EXPECT_EQ((*backend)->info().name, "cpu");
  EXPECT_EQ((*backend)->info().dtype, "float32");
  EXPECT_EQ((*backend)->info().mode, "strict");
  EXPECT_GT((*backend)->info().weight_bytes, 0);
  EXPECT_EQ((*backend)->slots(), 1);
  EXPECT_EQ((*backend)->target().threads, 1);
}

TEST(CreateTest, StaysStrictInFastMode) {
  const auto backend =
      CreateCpuBackend(RandomModel({}), {.mode = Mode::kFast, .threads = 1});
  ASSERT_TRUE(backend.ok());
  EXPECT_EQ((*backend)->info().mode, "strict");
}

}  // namespace
}  // namespace svdserve
