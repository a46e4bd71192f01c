// In place of tests/engine/device/cuda_test_device.h: an A100 made of host
// memory. Launches and copies are done when they return; a graph is a closure
// that is called again.
#ifndef SVDSERVE_TESTS_ENGINE_DEVICE_EMULATED_CUDA_TEST_DEVICE_H_
#define SVDSERVE_TESTS_ENGINE_DEVICE_EMULATED_CUDA_TEST_DEVICE_H_

#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "engine/device/cuda_runtime.h"

namespace svdserve {

class HostRuntime : public CudaRuntime {
 public:
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
    *free = *total = size_t{8} << 30;
    return cudaSuccess;
  }
  cudaError_t Allocate(size_t bytes, void** memory) override {
    if (posix_memalign(memory, 256, bytes) != 0) {
      return cudaErrorMemoryAllocation;
    }
    std::memset(*memory, 0xff, bytes);  // NaN
    return cudaSuccess;
  }
  void Free(void* memory) override { std::free(memory); }
  cudaError_t AllocatePinned(size_t bytes, void** memory) override {
    return Allocate(bytes, memory);
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
    *graph = std::make_unique<Closure>(std::move(launches));
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
    explicit Closure(std::function<cudaError_t()> kept)
        : launches(std::move(kept)) {}
    std::function<cudaError_t()> launches;
  };
  // Few multiprocessors, since small grids are what is tested here.
  const CudaDevice device_ = {
      .name = "an emulated A100",
      .limits = {.sm = 80, .multiprocessors = 4, .shared_bytes = 163 << 10}};
};

inline std::unique_ptr<CudaRuntime> OpenTestDevice() {
  return std::make_unique<HostRuntime>();
}

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_ENGINE_DEVICE_EMULATED_CUDA_TEST_DEVICE_H_
