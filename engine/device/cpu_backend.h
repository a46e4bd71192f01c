// The CPU behind the Backend interface: one slot, computed in Launch().
//
// Owns weights, arena and worker threads. Driven by one thread.
#ifndef SVDSERVE_ENGINE_DEVICE_CPU_BACKEND_H_
#define SVDSERVE_ENGINE_DEVICE_CPU_BACKEND_H_

#include <memory>
#include <string>
#include <utility>

#include "engine/device/arena.h"
#include "engine/device/backend.h"
#include "engine/device/cpu_encoder.h"
#include "engine/device/cpu_weights.h"
#include "engine/model/model.h"
#include "kernels/team.h"

namespace svdserve {

class CpuBackend final : public Backend {
 public:
  static absl::StatusOr<std::unique_ptr<CpuBackend>> Create(
      const Model& model, const BackendOptions& options);

  const BackendInfo& info() const override { return info_; }
  PlanTarget target() const override { return target_; }
  int slots() const override { return 1; }
  absl::Status Launch(int slot, const Plan& plan,
                      const PackedBatch& batch) override;
  absl::Status Collect(int slot, BatchOutput* output) override;
  uint64_t TouchedBytes() override { return arena_.TouchedBytes(); }

  // Why the CPU computes; before it does.
  void set_reason(std::string reason) { info_.reason = std::move(reason); }

  // For tests that look at what a batch touched.
  Arena& arena() { return arena_; }

 private:
  CpuBackend(const Model& model, CpuWeights weights, const PlanTarget& target,
             uint64_t arena_bytes);
  // Whether the plan was made for this model and target().
  bool IsMine(const Plan& plan) const;
  absl::Status Validate(const Plan& plan, const PackedBatch& batch) const;

  const ModelShape shape_;
  const PlanTarget target_;
  const CpuWeights weights_;
  Arena arena_;
  kernels::Team team_;
  CpuEncoder encoder_;
  BackendInfo info_;
  int launched_sequences_ = 0;  // 0: nothing to collect
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_DEVICE_CPU_BACKEND_H_
