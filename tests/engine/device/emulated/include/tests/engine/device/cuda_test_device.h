// In place of tests/engine/device/cuda_test_device.h: GPUs made of host memory.
// Launches and copies are done when they return; a graph is a closure that is
// called again.
#ifndef SVDSERVE_TESTS_ENGINE_DEVICE_EMULATED_CUDA_TEST_DEVICE_H_
#define SVDSERVE_TESTS_ENGINE_DEVICE_EMULATED_CUDA_TEST_DEVICE_H_

#include <cstdlib>
#include <cstring>
#include <memory>
#include <unordered_map>
#include <utility>

#include "engine/device/cuda_runtime.h"

namespace svdserve {

inline constexpr int kTestDevices = 2;

struct HostDevice {
  int index = 0;
  int sm = 80;
  size_t memory_bytes = size_t{8} << 30;
};

class HostRuntime : public CudaRuntime {
 public:
  // What a process takes of a device's memory at once, and for each graph.
  static constexpr size_t kContextBytes = size_t{300} << 20;
  static constexpr size_t kGraphBytes = size_t{1} << 20;

  explicit HostRuntime(const HostDevice& device)
      : memory_bytes_(device.memory_bytes) {
    device_.index = device.index;
    device_.limits.sm = device.sm;
  }

  const CudaDevice& device() const override { return device_; }
  cudaStream_t stream() const override { return nullptr; }
  const char* ErrorName(cudaError_t error) const override {
    switch (error) {
      case cudaErrorMemoryAllocation:
        return "cudaErrorMemoryAllocation";
      case cudaErrorIllegalAddress:
        return "cudaErrorIllegalAddress";
      case cudaErrorLaunchOutOfResources:
        return "cudaErrorLaunchOutOfResources";
      default:
        return "an error";
    }
  }

  cudaError_t Use() override { return cudaSuccess; }
  cudaError_t MemoryInfo(size_t* free, size_t* total) override {
    *total = memory_bytes_;
    *free = memory_bytes_ - kContextBytes - graphs_ * kGraphBytes - allocated_;
    return cudaSuccess;
  }
  cudaError_t Allocate(size_t bytes, void** memory) override {
    const cudaError_t error = AllocatePinned(bytes, memory);
    if (error != cudaSuccess) return error;
    allocated_ += bytes;
    sizes_[*memory] = bytes;
    return cudaSuccess;
  }
  void Free(void* memory) override {
    allocated_ -= sizes_[memory];
    sizes_.erase(memory);
    std::free(memory);
  }
  cudaError_t AllocatePinned(size_t bytes, void** memory) override {
    if (posix_memalign(memory, 256, bytes) != 0) {
      return cudaErrorMemoryAllocation;
    }
    std::memset(*memory, 0xff, bytes);  // NaN
    return cudaSuccess;
  }
  void FreePinned(void* memory) override { std::free(memory); }

  cudaError_t CopyIn(void* device, const void* host, size_t bytes) override {
    std::memcpy(device, host, bytes);
    return cudaSuccess;
  }
  cudaError_t CopyOut(void* host, const void* device, size_t bytes) override {
    std::memcpy(host, device, bytes);
    return cudaSuccess;
  }
  cudaError_t Fill(void* device, int value, size_t bytes) override {
    std::memset(device, value, bytes);
    return cudaSuccess;
  }

  cudaError_t Capture(std::function<cudaError_t()> launches,
                      std::unique_ptr<CudaGraph>* graph) override {
    *graph = std::make_unique<Closure>(std::move(launches), &graphs_);
    return cudaSuccess;
  }
  cudaError_t Run(CudaGraph* graph) override {
    return static_cast<Closure*>(graph)->launches();
  }

  cudaError_t CreateEvent(cudaEvent_t* event) override {
    *event = reinterpret_cast<cudaEvent_t>(this);
    return cudaSuccess;
  }
  void DestroyEvent(cudaEvent_t) override {}
  cudaError_t Record(cudaEvent_t) override { return cudaSuccess; }
  cudaError_t Wait(cudaEvent_t) override { return cudaSuccess; }
  cudaError_t Synchronize() override { return cudaSuccess; }

 private:
  struct Closure : CudaGraph {
    Closure(std::function<cudaError_t()> kept, size_t* graphs)
        : launches(std::move(kept)), alive(*graphs) {
      ++alive;
    }
    ~Closure() override { --alive; }
    std::function<cudaError_t()> launches;
    size_t& alive;
  };
  // Few multiprocessors, since small grids are what is tested here.
  CudaDevice device_ = {
      .name = "an emulated A100",
      .limits = {.multiprocessors = 4, .shared_bytes = 163 << 10}};
  const size_t memory_bytes_;
  size_t allocated_ = 0;
  size_t graphs_ = 0;
  std::unordered_map<void*, size_t> sizes_;  // of what is allocated
};

inline std::unique_ptr<CudaRuntime> OpenTestDevice(int index = 0) {
  return std::make_unique<HostRuntime>(HostDevice{.index = index});
}

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_ENGINE_DEVICE_EMULATED_CUDA_TEST_DEVICE_H_
