// What the CUDA backend asks of the CUDA runtime, for one device and its one
// stream.
//
// A seam: tests put in a runtime that lives in host memory, or one that fails
// where they want it to. Every call returns what the runtime said. Driven by
// one thread at a time, which has called Use().
//
//   if (cudaError_t error = runtime.CopyIn(to, from, bytes); error) ...
#ifndef SVDSERVE_ENGINE_DEVICE_CUDA_RUNTIME_H_
#define SVDSERVE_ENGINE_DEVICE_CUDA_RUNTIME_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/types.h"

namespace svdserve {

struct CudaDevice {
  int index = 0;
  std::string name;  // "NVIDIA H200"
  cuda::DeviceLimits limits;
};

// A captured sequence of kernels.
class CudaGraph {
 public:
  virtual ~CudaGraph() = default;
};

class CudaRuntime {
 public:
  virtual ~CudaRuntime() = default;

  virtual const CudaDevice& device() const = 0;
  virtual cudaStream_t stream() const = 0;
  virtual const char* ErrorName(cudaError_t error) const = 0;

  // Makes the device the calling thread's.
  virtual cudaError_t Use() = 0;
  virtual cudaError_t MemoryInfo(size_t* free, size_t* total) = 0;
  virtual cudaError_t Allocate(size_t bytes, void** memory) = 0;
  virtual void Free(void* memory) = 0;
  virtual cudaError_t AllocatePinned(size_t bytes, void** memory) = 0;
  virtual void FreePinned(void* memory) = 0;

  // In the stream; they return before the work is done.
  virtual cudaError_t CopyIn(void* device, const void* host, size_t bytes) = 0;
  virtual cudaError_t CopyOut(void* host, const void* device, size_t bytes) = 0;
  virtual cudaError_t Fill(void* device, int value, size_t bytes) = 0;
  // What a kernel's launcher has returned; passed on.
  virtual cudaError_t Launched(cudaError_t error) { return error; }

  // `launches` puts kernels into the stream; they are kept, not run.
  virtual cudaError_t Capture(std::function<cudaError_t()> launches,
                              std::unique_ptr<CudaGraph>* graph) = 0;
  virtual cudaError_t Run(CudaGraph* graph) = 0;

  // Marks what is in the stream now / waits for what was marked.
  virtual cudaError_t CreateEvent(cudaEvent_t* event) = 0;
  virtual void DestroyEvent(cudaEvent_t event) = 0;
  virtual cudaError_t Record(cudaEvent_t event) = 0;
  virtual cudaError_t Wait(cudaEvent_t event) = 0;
  // Waits for everything in the stream.
  virtual cudaError_t Synchronize() = 0;
};

// The real one. UNAVAILABLE if the device cannot be used.
absl::StatusOr<std::unique_ptr<CudaRuntime>> OpenCudaDevice(int index);

// Whether no later call can succeed in this process.
bool LosesDevice(cudaError_t error);

// "WHAT: cudaErrorX": UNAVAILABLE if the device is lost, RESOURCE_EXHAUSTED if
// memory is short, else INTERNAL; OK for cudaSuccess.
absl::Status CudaStatus(const CudaRuntime& runtime, const char* what,
                        cudaError_t error);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_DEVICE_CUDA_RUNTIME_H_
