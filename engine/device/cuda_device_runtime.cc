// The CUDA runtime behind CudaRuntime.
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/device/cuda_runtime.h"

namespace svdserve {
namespace {

class DeviceGraph : public CudaGraph {
 public:
  explicit DeviceGraph(cudaGraphExec_t exec) : exec_(exec) {}
  ~DeviceGraph() override { static_cast<void>(cudaGraphExecDestroy(exec_)); }
  cudaGraphExec_t exec() const { return exec_; }

 private:
  const cudaGraphExec_t exec_;
};

class DeviceRuntime : public CudaRuntime {
 public:
  explicit DeviceRuntime(int index) { device_.index = index; }
  ~DeviceRuntime() override {
    if (stream_ != nullptr && DeviceRuntime::Use() == cudaSuccess) {
      static_cast<void>(cudaStreamDestroy(stream_));
    }
  }

  // Makes the context and the stream.
  cudaError_t Open() {
    cudaError_t error = Use();
    if (error == cudaSuccess) error = ReadLimits();
    if (error != cudaSuccess) return error;
    return cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking);
  }

  const CudaDevice& device() const override { return device_; }
  cudaStream_t stream() const override { return stream_; }
  const char* ErrorName(cudaError_t error) const override {
    return cudaGetErrorName(error);
  }

  cudaError_t Use() override { return cudaSetDevice(device_.index); }
  cudaError_t MemoryInfo(size_t* free, size_t* total) override {
    return cudaMemGetInfo(free, total);
  }
  cudaError_t Allocate(size_t bytes, void** memory) override {
    return Forget(cudaMalloc(memory, bytes));
  }
  void Free(void* memory) override { static_cast<void>(cudaFree(memory)); }
  cudaError_t AllocatePinned(size_t bytes, void** memory) override {
    return Forget(cudaMallocHost(memory, bytes));
  }
  void FreePinned(void* memory) override {
    static_cast<void>(cudaFreeHost(memory));
  }

  cudaError_t CopyIn(void* device, const void* host, size_t bytes) override {
    return cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice,
                           stream_);
  }
  cudaError_t CopyOut(void* host, const void* device, size_t bytes) override {
    return cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost,
                           stream_);
  }
  cudaError_t Fill(void* device, int value, size_t bytes) override {
    return cudaMemsetAsync(device, value, bytes, stream_);
  }
  cudaError_t Launched(cudaError_t error) override { return Forget(error); }

  cudaError_t Capture(std::function<cudaError_t()> launches,
                      std::unique_ptr<CudaGraph>* graph) override {
    // Relaxed: a kernel's first launch loads its code, which the other modes
    // may refuse.
    cudaError_t error =
        cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed);
    if (error != cudaSuccess) return Forget(error);
    const cudaError_t launched = launches();
    cudaGraph_t captured = nullptr;
    error = cudaStreamEndCapture(stream_, &captured);
    if (launched != cudaSuccess) error = launched;
    cudaGraphExec_t exec = nullptr;
    if (error == cudaSuccess) error = cudaGraphInstantiate(&exec, captured, 0);
    if (captured != nullptr) static_cast<void>(cudaGraphDestroy(captured));
    if (error != cudaSuccess) return Forget(error);
    *graph = std::make_unique<DeviceGraph>(exec);
    return cudaSuccess;
  }
  cudaError_t Run(CudaGraph* graph) override {
    return Forget(
        cudaGraphLaunch(static_cast<DeviceGraph*>(graph)->exec(), stream_));
  }

  cudaError_t CreateEvent(cudaEvent_t* event) override {
    return cudaEventCreateWithFlags(event, cudaEventDisableTiming);
  }
  void DestroyEvent(cudaEvent_t event) override {
    static_cast<void>(cudaEventDestroy(event));
  }
  cudaError_t Record(cudaEvent_t event) override {
    return cudaEventRecord(event, stream_);
  }
  cudaError_t Wait(cudaEvent_t event) override {
    return Forget(cudaEventSynchronize(event));
  }
  cudaError_t Synchronize() override {
    return Forget(cudaStreamSynchronize(stream_));
  }

 private:
  cudaError_t ReadLimits() {
    cudaDeviceProp properties;
    cudaError_t error = cudaGetDeviceProperties(&properties, device_.index);
    if (error != cudaSuccess) return error;
    device_.name = properties.name;
    device_.limits = {
        .sm = properties.major * 10 + properties.minor,
        .multiprocessors = properties.multiProcessorCount,
        .shared_bytes = static_cast<int>(properties.sharedMemPerBlockOptin)};
    return cudaSuccess;
  }
  // An error that is reported must not be reported again by the next launch.
  static cudaError_t Forget(cudaError_t error) {
    if (error != cudaSuccess) static_cast<void>(cudaGetLastError());
    return error;
  }

  CudaDevice device_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CudaRuntime>> OpenCudaDevice(int index) {
  auto runtime = std::make_unique<DeviceRuntime>(index);
  const cudaError_t error = runtime->Open();
  if (error != cudaSuccess) {
    return absl::UnavailableError(absl::StrCat(
        "GPU ", index, ": cannot be used: ", cudaGetErrorName(error)));
  }
  return runtime;
}

}  // namespace svdserve
