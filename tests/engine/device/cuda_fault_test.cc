// What the CUDA backend does when the runtime fails: it says what failed, it
// tells errors that pass from those that lose the device, and a lost device
// runs nothing more.
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/device/cuda_fixture.h"
#include "tests/engine/device/faulty_runtime.h"
#include "tests/engine/device/random_model.h"

namespace svdserve {
namespace {

using ::testing::HasSubstr;

class CudaFaultTest : public ::testing::Test {
 protected:
  CudaFaultTest() {
    std::mt19937 random(3);
    batch_ = BatchOf(RandomInputs(random, {20, 30, 40}));
  }

  std::unique_ptr<CudaRuntime> Runtime() {
    return std::make_unique<FaultyRuntime>(OpenTestDevice(), &faults_);
  }
  void Create() {
    backend_.emplace(model_, BackendOptions{}, Runtime());
    ASSERT_TRUE(backend_->status().ok()) << backend_->status();
    whole_ = *backend_->planner().MakePlan(batch_.Shape());
    chunked_ = backend_->planner().MakePlanWith(
        batch_.Shape(), {.rows = 64, .heads = 4}, {.rows = 64});
  }

  // Launch and Collect: the first error.
  absl::Status Run(const Plan& plan) {
    absl::Status status = (*backend_)->Launch(0, plan, batch_);
    BatchOutput output;
    return status.ok() ? (*backend_)->Collect(0, &output) : status;
  }

  Faults faults_;
  const Model model_ = RandomModel({});
  PackedBatch batch_;
  std::optional<PoisonedCuda> backend_;
  Plan whole_;    // a graph
  Plan chunked_;  // no graph
};

TEST_F(CudaFaultTest, NoMemoryAtStart) {
  for (const int n : {1, 2}) {  // weights, arena
    faults_.Inject(Faults::kAllocate, n, cudaErrorMemoryAllocation);
    PoisonedCuda backend(model_, {}, Runtime());
    EXPECT_EQ(backend.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(backend.status().message()),
                HasSubstr(n == 1 ? "weights" : "arena"));
  }
}

TEST_F(CudaFaultTest, NoPinnedMemoryAtStart) {
  for (const int n : {1, 2, 3, 4, 5}) {
    faults_.Inject(Faults::kAllocatePinned, n, cudaErrorMemoryAllocation);
    PoisonedCuda backend(model_, {}, Runtime());
    EXPECT_EQ(backend.status().code(), absl::StatusCode::kResourceExhausted);
  }
}

TEST_F(CudaFaultTest, NoEventAtStart) {
  faults_.Inject(Faults::kCreateEvent, 2, cudaErrorMemoryAllocation);
  EXPECT_FALSE(PoisonedCuda(model_, {}, Runtime()).status().ok());
}

TEST_F(CudaFaultTest, ALaunchThatFailsFailsItsBatchOnly) {
  ASSERT_NO_FATAL_FAILURE(Create());
  const Rows before = backend_->Run(chunked_, batch_);
  faults_.Inject(Faults::kLaunch, 3, cudaErrorLaunchOutOfResources);
  const absl::Status status = Run(chunked_);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("attention of layer 0"));
  EXPECT_FALSE((*backend_)->lost());
  EXPECT_EQ(backend_->Run(chunked_, batch_), before);
}

TEST_F(CudaFaultTest, ACaptureThatFailsIsTriedAgain) {
  ASSERT_NO_FATAL_FAILURE(Create());
  EXPECT_TRUE(Run(whole_).ok());  // a first time is not captured
  faults_.Inject(Faults::kCapture, 1, cudaErrorMemoryAllocation);
  EXPECT_EQ(Run(whole_).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(Run(whole_).ok());
}

TEST_F(CudaFaultTest, WhateverFailsIsSaidAndPasses) {
  ASSERT_NO_FATAL_FAILURE(Create());
  const Rows before = backend_->Run(whole_, batch_);
  EXPECT_EQ(backend_->Run(whole_, batch_), before);
  for (const Faults::Call call :
       {Faults::kUse, Faults::kCopyIn, Faults::kRunGraph, Faults::kCopyOut,
        Faults::kRecord, Faults::kWait}) {
    faults_.Inject(call, 1, cudaErrorLaunchOutOfResources);
    const absl::Status status = Run(whole_);
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << call;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("cudaErrorLaunchOutOfResources"));
    EXPECT_EQ(backend_->Run(whole_, batch_), before) << call;
  }
  EXPECT_FALSE((*backend_)->lost());
}

TEST_F(CudaFaultTest, ALostDeviceRunsNothingMore) {
  for (const Faults::Call call : {Faults::kLaunch, Faults::kWait}) {
    ASSERT_NO_FATAL_FAILURE(Create());
    faults_.Inject(call, 1, cudaErrorIllegalAddress);
    EXPECT_EQ(Run(chunked_).code(), absl::StatusCode::kUnavailable);
    EXPECT_TRUE((*backend_)->lost());
    const absl::Status later = Run(chunked_);
    EXPECT_EQ(later.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(later.message()), HasSubstr("was lost"));
    backend_.reset();
    faults_.Recover();
  }
}

TEST_F(CudaFaultTest, ADeviceLostInOneSlotFailsTheOther) {
  ASSERT_NO_FATAL_FAILURE(Create());
  ASSERT_TRUE((*backend_)->Launch(0, whole_, batch_).ok());
  ASSERT_TRUE((*backend_)->Launch(1, whole_, batch_).ok());
  faults_.Inject(Faults::kWait, 1, cudaErrorECCUncorrectable);
  BatchOutput output;
  EXPECT_TRUE(absl::IsUnavailable((*backend_)->Collect(0, &output)));
  EXPECT_TRUE(absl::IsUnavailable((*backend_)->Collect(1, &output)));
  EXPECT_EQ((*backend_)->TouchedBytes(), 0);
}

TEST_F(CudaFaultTest, LargerBatchesThanUsualGetMorePinnedMemory) {
  ASSERT_NO_FATAL_FAILURE(Create());
  const PackedBatch usual = batch_;
  const Rows before = backend_->Run(whole_, usual);
  batch_ = BatchOf(std::vector<std::vector<int32_t>>(600, {1}));
  const Plan many = *backend_->planner().MakePlan(batch_.Shape());
  faults_.Inject(Faults::kAllocatePinned, 1, cudaErrorMemoryAllocation);
  EXPECT_EQ(Run(many).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(backend_->Run(many, batch_).size(), 600);
  EXPECT_EQ(backend_->Run(whole_, usual), before);
}

TEST(LosesDeviceTest, TellsWhatPasses) {
  EXPECT_TRUE(LosesDevice(cudaErrorIllegalAddress));
  EXPECT_TRUE(LosesDevice(cudaErrorLaunchFailure));
  EXPECT_TRUE(LosesDevice(cudaErrorECCUncorrectable));
  EXPECT_TRUE(LosesDevice(cudaErrorDevicesUnavailable));
  EXPECT_FALSE(LosesDevice(cudaSuccess));
  EXPECT_FALSE(LosesDevice(cudaErrorMemoryAllocation));
  EXPECT_FALSE(LosesDevice(cudaErrorLaunchOutOfResources));
  EXPECT_FALSE(LosesDevice(cudaErrorInvalidValue));
}

}  // namespace
}  // namespace svdserve
