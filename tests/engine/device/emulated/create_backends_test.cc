// Which GPUs run a model, and what is said of it; create_backends_test has what
// happens without any.
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/device/emulated/emulated_gpus.h"
#include "tests/engine/device/random_model.h"

namespace svdserve {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class CreateCudaBackendsTest : public ::testing::Test {
 protected:
  CreateCudaBackendsTest() { EmulatedGpus() = {{.index = 0}, {.index = 1}}; }
  std::string Refusal(const BackendOptions& options) {
    const auto backends = CreateBackends(model_, options);
    EXPECT_FALSE(backends.ok());
    return std::string(backends.status().message());
  }
  const Model model_ = RandomModel({});
};

TEST_F(CreateCudaBackendsTest, AllThatThereAreAndSaysWhy) {
  for (const DeviceChoice choice : {DeviceChoice::kAuto, DeviceChoice::kCuda}) {
    const auto backends = CreateBackends(model_, {.device = choice});
    ASSERT_TRUE(backends.ok()) << backends.status();
    ASSERT_EQ(backends->size(), 2);
    for (int i = 0; i < 2; ++i) {
      const BackendInfo& info = (*backends)[i]->info();
      EXPECT_EQ(info.name, "cuda");
      EXPECT_EQ(info.dtype, "bfloat16");
      EXPECT_EQ(info.reason,
                "an emulated A100, sm_80, is GPU " + std::to_string(i));
    }
  }
}

TEST_F(CreateCudaBackendsTest, ThoseThatWereAskedFor) {
  const auto backends = CreateBackends(model_, {.devices = {1}});
  ASSERT_TRUE(backends.ok()) << backends.status();
  ASSERT_EQ(backends->size(), 1);
  EXPECT_THAT(backends->front()->info().reason, HasSubstr("is GPU 1"));
  EXPECT_THAT(Refusal({.devices = {0, 7}}),
              AllOf(HasSubstr("GPU 7 was asked for"), HasSubstr("0 to 1")));
  EXPECT_THAT(Refusal({.devices = {1, 1}}), HasSubstr("asked for twice"));
}

TEST_F(CreateCudaBackendsTest, ACpuThatWasAskedFor) {
  const auto backends =
      CreateBackends(model_, {.device = DeviceChoice::kCpu, .threads = 1});
  ASSERT_TRUE(backends.ok()) << backends.status();
  ASSERT_EQ(backends->size(), 1);
  EXPECT_EQ(backends->front()->info().name, "cpu");
}

// A batch must fit whichever of them takes it.
TEST_F(CreateCudaBackendsTest, TheOneWithLeastMemorySizesAllArenas) {
  const auto one = CreateBackends(model_, {.devices = {0}});
  ASSERT_TRUE(one.ok()) << one.status();
  const BackendInfo& info = one->front()->info();
  EmulatedGpus()[1].memory_bytes =
      HostRuntime::kContextBytes + info.weight_bytes + info.arena_bytes / 2;
  const auto both = CreateBackends(model_, {.memory_reserve_bytes = 0});
  ASSERT_TRUE(both.ok()) << both.status();
  EXPECT_EQ((*both)[0]->info().arena_bytes, info.arena_bytes / 2);
  EXPECT_EQ((*both)[1]->info().arena_bytes, info.arena_bytes / 2);
}

TEST_F(CreateCudaBackendsTest, KindsAreNotMixed) {
  EmulatedGpus()[1].sm = 90;
  EXPECT_THAT(Refusal({}), HasSubstr("different kinds"));
}

TEST_F(CreateCudaBackendsTest, WhatTheyCannotRunTheCpuDoes) {
  EmulatedGpus()[0].sm = 75;
  const auto backends = CreateBackends(model_, {.threads = 1});
  ASSERT_TRUE(backends.ok()) << backends.status();
  EXPECT_EQ(backends->front()->info().name, "cpu");
  EXPECT_THAT(backends->front()->info().reason, HasSubstr("sm_75"));
  EXPECT_THAT(Refusal({.device = DeviceChoice::kCuda}),
              AllOf(HasSubstr("a GPU was asked for, but"), HasSubstr("sm_75")));
}

TEST_F(CreateCudaBackendsTest, ShortOfMemoryIsAnErrorNotASlowServer) {
  EmulatedGpus()[1].memory_bytes = HostRuntime::kContextBytes + (8 << 20);
  const auto backends = CreateBackends(model_, {});
  EXPECT_EQ(backends.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(backends.status().message()), HasSubstr("GPU 1"));
}

TEST_F(CreateCudaBackendsTest, AFailureAtStartIsAnError) {
  FaultsOf(1).Inject(Faults::kAllocate, 2, cudaErrorMemoryAllocation);
  EXPECT_THAT(Refusal({}), AllOf(HasSubstr("GPU 1"), HasSubstr("arena")));
}

}  // namespace
}  // namespace svdserve
