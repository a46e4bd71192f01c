// A GPU behind the Backend interface: two slots, one stream, one arena.
//
// Launch() puts into the stream: one copy of the inputs, the plan's kernels (a
// captured graph for small batches of a shape that comes often), one copy of
// the outputs and an event; Collect() waits for that event. A batch is packed,
// planned and launched while the one before it runs.
//
// Driven by one thread; lost() and OtherDeviceBytes() are for any. After an
// error that leaves the device unusable every launch fails with UNAVAILABLE;
// after any other the batch has failed and the next one may succeed.
//
//   auto backend = CudaBackend::Create(model, options, *std::move(runtime));
#ifndef SVDSERVE_ENGINE_DEVICE_CUDA_BACKEND_H_
#define SVDSERVE_ENGINE_DEVICE_CUDA_BACKEND_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/device/backend.h"
#include "engine/device/batch_check.h"
#include "engine/device/cuda_arena.h"
#include "engine/device/cuda_encoder.h"
#include "engine/device/cuda_graphs.h"
#include "engine/device/cuda_runtime.h"
#include "engine/device/cuda_staging.h"
#include "engine/device/cuda_weights.h"
#include "engine/model/model.h"
#include "engine/plan/plan.h"

namespace svdserve {

class CudaBackend final : public Backend {
 public:
  // UNIMPLEMENTED if the kernels do not take the model or the device,
  // RESOURCE_EXHAUSTED if memory is short.
  static absl::StatusOr<std::unique_ptr<CudaBackend>> Create(
      const Model& model, const BackendOptions& options,
      std::unique_ptr<CudaRuntime> runtime);
  ~CudaBackend() override;

  const BackendInfo& info() const override { return info_; }
  PlanTarget target() const override { return target_; }
  int slots() const override { return kSlots; }
  absl::Status Launch(int slot, const Plan& plan,
                      const PackedBatch& batch) override;
  absl::Status Collect(int slot, BatchOutput* output) override;
  uint64_t TouchedBytes() override;
  bool lost() const override { return lost_.load(std::memory_order_relaxed); }
  uint64_t OtherDeviceBytes() const override {
    return other_bytes_.load(std::memory_order_relaxed);
  }

  // For tests.
  CudaArena& arena() { return arena_; }
  const CudaGraphs& graphs() const { return graphs_; }

 private:
  static constexpr int kSlots = 2;
  struct Slot {
    CudaStaging staging;
    cudaEvent_t done = nullptr;
    int sequences = 0;  // 0: nothing to collect
  };

  CudaBackend(const Model& model, std::unique_ptr<CudaRuntime> runtime,
              CudaWeights weights, CudaArena arena, PlanTarget target);
  absl::Status PrepareSlots();
  bool IsMine(const Plan& plan) const;
  absl::Status Validate(const Plan& plan, const PackedBatch& batch) const;
  absl::Status Enqueue(Slot* slot, const Plan& plan, const PackedBatch& batch);
  absl::Status RunPlan(const Plan& plan, const PackedBatch& batch);
  bool Idle() const;  // no batch is under way
  absl::Status RunKernels(const Plan& plan, const PackedBatch& batch);
  absl::Status CaptureGraph(const Plan& plan, CudaGraph** graph);
  // CudaStatus(), and remembers whether the device is lost.
  absl::Status Note(const char* what, cudaError_t error);
  void MeasureMemory();

  const ModelShape shape_;  // CudaShape()'s
  const BatchLimits limits_;
  const PlanTarget target_;
  // Memory goes back to the runtime, so it comes first.
  const std::unique_ptr<CudaRuntime> runtime_;
  const CudaWeights weights_;
  CudaArena arena_;
  CudaEncoder encoder_;
  CudaGraphs graphs_;
  BackendInfo info_;
  Slot slots_[kSlots];
  std::atomic<bool> lost_{false};
  std::atomic<uint64_t> other_bytes_{0};
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_DEVICE_CUDA_BACKEND_H_
