// The pinned memory of one slot: a batch's inputs as the plan lays them out, so
// that one copy brings them in, and its outputs.
//
// Made for batches of a usual size; a larger one makes it larger, for good.
#ifndef SVDSERVE_ENGINE_DEVICE_CUDA_STAGING_H_
#define SVDSERVE_ENGINE_DEVICE_CUDA_STAGING_H_

#include <cstdint>

#include "absl/status/status.h"
#include "engine/device/backend.h"
#include "engine/device/cuda_memory.h"
#include "engine/device/cuda_runtime.h"
#include "engine/plan/plan.h"

namespace svdserve {

class CudaStaging {
 public:
  // Not while a copy is under way.
  absl::Status Reserve(CudaRuntime* runtime, uint64_t input_bytes,
                       uint64_t output_bytes);

  // Writes the batch; what the bucket has beyond it becomes tokens of id 0 and
  // empty sequences. Reserve() was called for the plan's bytes.
  void WriteInputs(const Plan& plan, const PackedBatch& batch);

  const std::byte* inputs() const { return inputs_.data(); }
  std::byte* outputs() const { return outputs_.data(); }

 private:
  PinnedMemory inputs_;
  PinnedMemory outputs_;
};

// Where a plan's inputs lie in the arena: ids, type ids, offsets and options
// are neighbours.
struct CudaInputRange {
  uint64_t offset = 0;
  uint64_t bytes = 0;
};
CudaInputRange InputRange(const Plan& plan);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_DEVICE_CUDA_STAGING_H_
