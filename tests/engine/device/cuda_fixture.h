// A CUDA backend for tests, with a garbage-filled arena: no test may rely on
// zeros.
//
//   PoisonedCuda backend(model, {.compute = ComputeType::kF16});
//   const auto rows = backend.Run(planner, batch);
#ifndef SVDSERVE_TESTS_ENGINE_DEVICE_CUDA_FIXTURE_H_
#define SVDSERVE_TESTS_ENGINE_DEVICE_CUDA_FIXTURE_H_

#include <memory>
#include <utility>
#include <vector>

#include "engine/device/cuda_backend.h"
#include "gtest/gtest.h"
#include "tests/engine/device/cuda_test_device.h"

namespace svdserve {

using Rows = std::vector<std::vector<float>>;

inline Rows RowsOf(const BatchOutput& output) {
  Rows rows;
  for (size_t at = 0; at < output.values.size(); at += output.width) {
    const auto row = output.values.begin() + at;
    rows.emplace_back(row, row + output.width);
  }
  return rows;
}

class PoisonedCuda {
 public:
  explicit PoisonedCuda(const Model& model, BackendOptions options = {},
                        std::unique_ptr<CudaRuntime> runtime = OpenTestDevice())
      : shape_(model.shape), runtime_(runtime.get()) {
    auto backend = CudaBackend::Create(model, options, std::move(runtime));
    status_ = backend.status();
    if (backend.ok()) backend_ = *std::move(backend);
  }

  const absl::Status& status() const { return status_; }
  CudaBackend* operator->() { return backend_.get(); }
  Planner planner() const { return planner(backend_->info().arena_bytes); }
  Planner planner(uint64_t arena_bytes) const {
    return Planner(shape_, backend_->target(), arena_bytes);
  }

  void Poison(std::byte pattern) {
    const absl::Status filled = backend_->arena().Fill(pattern);
    ASSERT_TRUE(filled.ok()) << filled;
  }
  Rows Run(const Plan& plan, const PackedBatch& batch) {
    Poison(std::byte{0xff});  // NaN in every float format
    const absl::Status launched = backend_->Launch(0, plan, batch);
    EXPECT_TRUE(launched.ok()) << launched;
    return Collect(0);
  }
  Rows Run(const PackedBatch& batch) {
    const auto plan = planner().MakePlan(batch.Shape());
    EXPECT_TRUE(plan.ok()) << plan.status();
    return Run(*plan, batch);
  }
  Rows Collect(int slot) {
    BatchOutput output;
    const absl::Status collected = backend_->Collect(slot, &output);
    EXPECT_TRUE(collected.ok()) << collected;
    return RowsOf(output);
  }
  // The arena's bytes.
  std::vector<std::byte> Read() {
    std::vector<std::byte> bytes(backend_->arena().bytes());
    EXPECT_EQ(
        runtime_->CopyOut(bytes.data(), backend_->arena().data(), bytes.size()),
        cudaSuccess);
    EXPECT_EQ(runtime_->Synchronize(), cudaSuccess);
    return bytes;
  }

 private:
  const ModelShape shape_;
  CudaRuntime* const runtime_;
  absl::Status status_;
  std::unique_ptr<CudaBackend> backend_;
};

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_ENGINE_DEVICE_CUDA_FIXTURE_H_
