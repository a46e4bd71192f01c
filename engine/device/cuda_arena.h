// The one block of device memory that a CUDA backend's batches live in: one
// allocation at construction, filled with a pattern; never grows.
//
//   auto arena = CudaArena::Create(&runtime, bytes);
#ifndef SVDSERVE_ENGINE_DEVICE_CUDA_ARENA_H_
#define SVDSERVE_ENGINE_DEVICE_CUDA_ARENA_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/device/cuda_memory.h"
#include "engine/device/cuda_runtime.h"

namespace svdserve {

class CudaArena {
 public:
  static absl::StatusOr<CudaArena> Create(CudaRuntime* runtime, uint64_t bytes);

  std::byte* data() const { return memory_.data(); }
  uint64_t bytes() const { return memory_.bytes(); }

  // The end of the highest byte that no longer holds the pattern. Copies what
  // lies above the last result to the host, from the end down, until it finds
  // one; keeps the last result if a copy fails.
  uint64_t TouchedBytes();

  // Fills everything with `pattern`; for tests, too.
  absl::Status Fill(std::byte pattern);

 private:
  CudaArena(CudaRuntime* runtime, DeviceMemory memory, PinnedMemory window)
      : runtime_(runtime),
        memory_(std::move(memory)),
        window_(std::move(window)) {}

  CudaRuntime* runtime_;
  DeviceMemory memory_;
  PinnedMemory window_;  // what TouchedBytes() looks at
  std::byte untouched_{};
  uint64_t touched_bytes_ = 0;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_DEVICE_CUDA_ARENA_H_
