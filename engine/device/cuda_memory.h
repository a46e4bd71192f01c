// Owners of memory on the device and of pinned memory on the host.
//
// The runtime must outlive them; they are given back on the thread that drives
// it.
//
//   auto memory = DeviceMemory::Allocate(&runtime, bytes, "weights");
#ifndef SVDSERVE_ENGINE_DEVICE_CUDA_MEMORY_H_
#define SVDSERVE_ENGINE_DEVICE_CUDA_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "engine/device/cuda_runtime.h"

namespace svdserve {

enum class CudaMemoryKind { kDevice, kPinned };

template <CudaMemoryKind kKind>
class CudaMemory {
 public:
  CudaMemory() = default;

  // `what` is for the message.
  static absl::StatusOr<CudaMemory> Allocate(CudaRuntime* runtime,
                                             uint64_t bytes, const char* what) {
    void* memory = nullptr;
    const cudaError_t error = kKind == CudaMemoryKind::kDevice
                                  ? runtime->Allocate(bytes, &memory)
                                  : runtime->AllocatePinned(bytes, &memory);
    if (error != cudaSuccess) {
      return CudaStatus(*runtime,
                        absl::StrCat(bytes, " bytes of ", what).c_str(), error);
    }
    CudaMemory owner;
    owner.bytes_ = bytes;
    owner.memory_ = {static_cast<std::byte*>(memory), Free{runtime}};
    return owner;
  }

  std::byte* data() const { return memory_.get(); }
  uint64_t bytes() const { return bytes_; }

 private:
  struct Free {
    CudaRuntime* runtime = nullptr;
    void operator()(std::byte* memory) const {
      if (kKind == CudaMemoryKind::kDevice) {
        runtime->Free(memory);
      } else {
        runtime->FreePinned(memory);
      }
    }
  };
  uint64_t bytes_ = 0;
  std::unique_ptr<std::byte, Free> memory_;
};

using DeviceMemory = CudaMemory<CudaMemoryKind::kDevice>;
using PinnedMemory = CudaMemory<CudaMemoryKind::kPinned>;

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_DEVICE_CUDA_MEMORY_H_
