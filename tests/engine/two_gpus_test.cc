// Two CUDA backends in one engine: they share the work and give the same bits;
// when one loses its device the other goes on. Emulated in
// tests/engine/device/emulated, on a machine with two GPUs with tests/gpu.
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/device/cuda_fixture.h"
#include "tests/engine/device/faulty_runtime.h"
#include "tests/engine/device/random_model.h"
#include "tests/engine/engine_fixture.h"

namespace svdserve {
namespace {

using ::testing::AnyOf;
using ::testing::Each;
using ::testing::HasSubstr;

constexpr int kGpus = 2;
constexpr int kBatchInputs = 4;
constexpr int kSlots = 2;

class TwoGpusTest : public EngineFixture {
 protected:
  void SetUp() override {
    if (kTestDevices < kGpus) GTEST_SKIP() << "there are not two GPUs";
    EngineParts parts;
    for (int i = 0; i < kGpus; ++i) {
      auto backend = CudaBackend::Create(
          model_, {},
          std::make_unique<FaultyRuntime>(OpenTestDevice(i), &faults_[i]));
      ASSERT_TRUE(backend.ok()) << backend.status();
      parts.backends.push_back(*std::move(backend));
    }
    parts.tokenizer = std::make_unique<FakeTokenizer>(model_.shape.vocab);
    parts.config = model_.config;
    parts.shape = model_.shape;
    parts.observer = &observer_;
    options_.max_batch_inputs = kBatchInputs;
    options_.max_batch_tokens = kBatchInputs * model_.shape.max_tokens;
    auto engine = MakeEngine(options_, std::move(parts));
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    for (int i = 0; i < kGpus; ++i) batches_at_start_[i] = BatchesOf(i);
  }

  // Random inputs of 1 to 64 tokens.
  std::vector<std::vector<int32_t>> Inputs(int count) {
    std::vector<int> lengths(count);
    for (int& length : lengths) {
      length = std::uniform_int_distribution<int>(1, 64)(random_);
    }
    return RandomInputs(random_, lengths, model_.shape.vocab);
  }

  // All at once; how each of them ended.
  std::vector<absl::StatusOr<InputResult>> RunAll(
      const std::vector<std::vector<int32_t>>& inputs) {
    std::vector<std::shared_ptr<Ending>> endings;
    for (const auto& ids : inputs) endings.push_back(SubmitIds(ids));
    std::vector<absl::StatusOr<InputResult>> results;
    for (const auto& ending : endings) {
      ending->Await();
      results.push_back(ending->result());
    }
    return results;
  }
  std::vector<absl::StatusCode> CodesOf(int inputs) {
    std::vector<absl::StatusCode> codes;
    for (const auto& result : RunAll(Inputs(inputs))) {
      codes.push_back(result.status().code());
    }
    return codes;
  }

  // Runs inputs until the GPU is out of service; what they failed with.
  std::vector<absl::Status> RunUntilLost(int gpu) {
    std::vector<absl::Status> failures;
    while (engine_->Gauges().devices[gpu].in_service) {
      for (const auto& result : RunAll(Inputs(16))) {
        if (!result.ok()) failures.push_back(result.status());
      }
    }
    return failures;
  }

  int BatchesOf(int gpu) const { return faults_[gpu].calls(Faults::kCopyIn); }
  int NewBatchesOf(int gpu) const {
    return BatchesOf(gpu) - batches_at_start_[gpu];
  }

  std::mt19937 random_{77};
  Faults faults_[kGpus];  // outlive the engine
  const Model model_ = RandomModel({});
  int batches_at_start_[kGpus] = {};

  // Declared last in the fixture, the engine would end after the faults.
  void TearDown() override { engine_.reset(); }
};

TEST_F(TwoGpusTest, TheyShareTheWorkAndGiveTheSameBits) {
  const auto inputs = Inputs(12);
  std::vector<std::vector<float>> alone;
  for (const auto& ids : inputs) {
    const auto result = Run(IdsInput(ids));
    ASSERT_TRUE(result.ok()) << result.status();
    alone.push_back(result->values);
  }
  while (NewBatchesOf(0) < 2 || NewBatchesOf(1) < 2) {
    const auto results = RunAll(inputs);
    for (size_t i = 0; i < inputs.size(); ++i) {
      ASSERT_TRUE(results[i].ok()) << results[i].status();
      EXPECT_EQ(results[i]->values, alone[i]);
    }
  }
  const EngineGauges gauges = engine_->Gauges();
  ASSERT_EQ(gauges.devices.size(), kGpus);
  EXPECT_EQ(gauges.arena_bytes,
            gauges.devices[0].arena_bytes + gauges.devices[1].arena_bytes);
  for (const DeviceGauges& device : gauges.devices) {
    EXPECT_GT(device.weight_bytes, 0);
    EXPECT_GT(device.other_bytes, 0);  // its context, at least
  }
}

TEST_F(TwoGpusTest, OneLostLeavesTheOtherServing) {
  for (const int lost : {0, 1}) {
    SCOPED_TRACE(lost);
    faults_[lost].Inject(Faults::kWait, 1, cudaErrorIllegalAddress);
    const std::vector<absl::Status> failures = RunUntilLost(lost);
    // What was on that GPU then, and nothing else.
    EXPECT_GE(failures.size(), 1);
    EXPECT_LE(failures.size(), kSlots * kBatchInputs);
    for (const absl::Status& failure : failures) {
      EXPECT_EQ(failure.code(), absl::StatusCode::kUnavailable);
      EXPECT_THAT(std::string(failure.message()),
                  HasSubstr(absl::StrCat("the device failed: GPU ", lost)));
    }
    EXPECT_EQ(observer_.inputs(absl::StatusCode::kUnavailable),
              failures.size());

    const int before = BatchesOf(lost);
    EXPECT_THAT(CodesOf(32), Each(absl::StatusCode::kOk));
    EXPECT_EQ(BatchesOf(lost), before);
    const EngineGauges gauges = engine_->Gauges();
    EXPECT_TRUE(gauges.healthy);
    EXPECT_FALSE(gauges.devices[lost].in_service);
    EXPECT_TRUE(gauges.devices[1 - lost].in_service);
    EXPECT_FALSE(gauges.AllDevicesLost());

    engine_.reset();  // another one, with the same GPUs
    faults_[lost].Recover();
    observer_.Reset();
    SetUp();
  }
}

TEST_F(TwoGpusTest, AnErrorThatPassesCostsItsBatchOnly) {
  faults_[0].Inject(Faults::kWait, 1, cudaErrorLaunchOutOfResources);
  int failed = 0;
  while (failed == 0) {
    for (const absl::StatusCode code : CodesOf(16)) {
      if (code == absl::StatusCode::kOk) continue;
      EXPECT_EQ(code, absl::StatusCode::kInternal);
      ++failed;
    }
  }
  EXPECT_LE(failed, kBatchInputs);
  EXPECT_THAT(CodesOf(32), Each(absl::StatusCode::kOk));
  const int before = BatchesOf(0);
  while (BatchesOf(0) == before) CodesOf(16);
  EXPECT_TRUE(engine_->Gauges().devices[0].in_service);
}

TEST_F(TwoGpusTest, WithoutAnyEverythingIsAnsweredUnavailable) {
  faults_[0].Inject(Faults::kWait, 1, cudaErrorECCUncorrectable);
  RunUntilLost(0);
  EXPECT_TRUE(engine_->Gauges().healthy);
  faults_[1].Inject(Faults::kRecord, 1, cudaErrorDevicesUnavailable);
  EXPECT_THAT(CodesOf(64), Each(AnyOf(absl::StatusCode::kOk,
                                      absl::StatusCode::kUnavailable)));
  while (!engine_->Gauges().AllDevicesLost()) std::this_thread::yield();
  EXPECT_FALSE(engine_->Gauges().healthy);
  const absl::Status later = Run(IdsInput({1, 2})).status();
  EXPECT_EQ(later.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(later.message()), HasSubstr("no device is left"));
}

}  // namespace
}  // namespace svdserve
