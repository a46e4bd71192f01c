// A CudaRuntime that fails where a test wants it to, and counts what is asked
// of it; otherwise it is the one that it wraps.
//
//   Faults faults;
//   FaultyRuntime runtime(OpenTestDevice(), &faults);
//   faults.Inject(Faults::kLaunch, 3, cudaErrorIllegalAddress);
//   EXPECT_EQ(faults.calls(Faults::kAllocate), 2);
#ifndef SVDSERVE_TESTS_ENGINE_DEVICE_FAULTY_RUNTIME_H_
#define SVDSERVE_TESTS_ENGINE_DEVICE_FAULTY_RUNTIME_H_

#include <array>
#include <memory>
#include <mutex>
#include <utility>

#include "engine/device/cuda_runtime.h"

namespace svdserve {

// Thread-safe.
class Faults {
 public:
  enum Call {
    kUse,
    kAllocate,
    kAllocatePinned,
    kCopyIn,
    kCopyOut,
    kLaunch,
    kCapture,
    kRunGraph,
    kCreateEvent,
    kRecord,
    kWait,
    kSynchronize,
    kCalls
  };

  // The n-th call from now on fails, n from 1; with LosesDevice(error) all
  // calls after it fail too.
  void Inject(Call call, int n, cudaError_t error) {
    const std::lock_guard lock(mutex_);
    call_ = call;
    left_ = n;
    error_ = error;
  }

  // A lost device is there again: another one.
  void Recover() {
    const std::lock_guard lock(mutex_);
    lost_ = cudaSuccess;
  }

  // So far, failed ones too.
  int calls(Call call) const {
    const std::lock_guard lock(mutex_);
    return calls_[call];
  }

  // Counts a call, and says what it fails with.
  cudaError_t Check(Call call) {
    const std::lock_guard lock(mutex_);
    ++calls_[call];
    if (lost_ != cudaSuccess) return lost_;
    if (call != call_ || --left_ != 0) return cudaSuccess;
    if (LosesDevice(error_)) lost_ = error_;
    return error_;
  }

 private:
  mutable std::mutex mutex_;
  std::array<int, kCalls> calls_ = {};
  Call call_ = kCalls;
  int left_ = 0;
  cudaError_t error_ = cudaSuccess;
  cudaError_t lost_ = cudaSuccess;
};

class FaultyRuntime : public CudaRuntime {
 public:
  // `faults` must outlive the runtime.
  FaultyRuntime(std::unique_ptr<CudaRuntime> real, Faults* faults)
      : real_(std::move(real)), faults_(*faults) {}

  const CudaDevice& device() const override { return real_->device(); }
  cudaStream_t stream() const override { return real_->stream(); }
  const char* ErrorName(cudaError_t error) const override {
    return real_->ErrorName(error);
  }
  cudaError_t Use() override {
    return Try(Faults::kUse, [&] { return real_->Use(); });
  }
  cudaError_t MemoryInfo(size_t* free, size_t* total) override {
    return real_->MemoryInfo(free, total);
  }
  cudaError_t Allocate(size_t bytes, void** memory) override {
    return Try(Faults::kAllocate,
               [&] { return real_->Allocate(bytes, memory); });
  }
  void Free(void* memory) override { real_->Free(memory); }
  cudaError_t AllocatePinned(size_t bytes, void** memory) override {
    return Try(Faults::kAllocatePinned,
               [&] { return real_->AllocatePinned(bytes, memory); });
  }
  void FreePinned(void* memory) override { real_->FreePinned(memory); }
  cudaError_t CopyIn(void* device, const void* host, size_t bytes) override {
    return Try(Faults::kCopyIn,
               [&] { return real_->CopyIn(device, host, bytes); });
  }
  cudaError_t CopyOut(void* host, const void* device, size_t bytes) override {
    return Try(Faults::kCopyOut,
               [&] { return real_->CopyOut(host, device, bytes); });
  }
  cudaError_t Fill(void* device, int value, size_t bytes) override {
    return real_->Fill(device, value, bytes);
  }
  cudaError_t Launched(cudaError_t error) override {
    return Try(Faults::kLaunch, [&] { return real_->Launched(error); });
  }
  cudaError_t Capture(std::function<cudaError_t()> launches,
                      std::unique_ptr<CudaGraph>* graph) override {
    return Try(Faults::kCapture,
               [&] { return real_->Capture(std::move(launches), graph); });
  }
  cudaError_t Run(CudaGraph* graph) override {
    return Try(Faults::kRunGraph, [&] { return real_->Run(graph); });
  }
  cudaError_t CreateEvent(cudaEvent_t* event) override {
    return Try(Faults::kCreateEvent, [&] { return real_->CreateEvent(event); });
  }
  void DestroyEvent(cudaEvent_t event) override { real_->DestroyEvent(event); }
  cudaError_t Record(cudaEvent_t event) override {
    return Try(Faults::kRecord, [&] { return real_->Record(event); });
  }
  cudaError_t Wait(cudaEvent_t event) override {
    return Try(Faults::kWait, [&] { return real_->Wait(event); });
  }
  cudaError_t Synchronize() override {
    return Try(Faults::kSynchronize, [&] { return real_->Synchronize(); });
  }

 private:
  template <typename Fn>
  cudaError_t Try(Faults::Call call, Fn&& fn) {
    const cudaError_t error = faults_.Check(call);
    return error != cudaSuccess ? error : fn();
  }

  const std::unique_ptr<CudaRuntime> real_;
  Faults& faults_;
};

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_ENGINE_DEVICE_FAULTY_RUNTIME_H_
