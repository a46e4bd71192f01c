#include "engine/device/cuda_arena.h"

#include <algorithm>

namespace svdserve {
namespace {

// As engine/device/arena.cc; bfloat16 values of it are tiny, not NaN.
constexpr std::byte kUntouched{0xA5};
constexpr uint64_t kWindowBytes = 4 << 20;

}  // namespace

absl::StatusOr<CudaArena> CudaArena::Create(CudaRuntime* runtime,
                                            uint64_t bytes) {
  auto memory = DeviceMemory::Allocate(runtime, bytes, "arena");
  if (!memory.ok()) return memory.status();
  auto window = PinnedMemory::Allocate(runtime, std::min(bytes, kWindowBytes),
                                       "pinned memory");
  if (!window.ok()) return window.status();
  CudaArena arena(runtime, *std::move(memory), *std::move(window));
  absl::Status status = arena.Fill(kUntouched);
  if (!status.ok()) return status;
  return arena;
}

uint64_t CudaArena::TouchedBytes() {
  const std::byte* const window = window_.data();
  uint64_t end = bytes();
  while (end > touched_bytes_) {
    const uint64_t begin =
        std::max(touched_bytes_, end - std::min(end, window_.bytes()));
    cudaError_t error =
        runtime_->CopyOut(window_.data(), data() + begin, end - begin);
    if (error == cudaSuccess) error = runtime_->Synchronize();
    if (error != cudaSuccess) return touched_bytes_;
    while (end > begin && window[end - begin - 1] == untouched_) --end;
    if (end > begin) touched_bytes_ = end;
  }
  return touched_bytes_;
}

absl::Status CudaArena::Fill(std::byte pattern) {
  cudaError_t error =
      runtime_->Fill(data(), static_cast<int>(pattern), bytes());
  if (error == cudaSuccess) error = runtime_->Synchronize();
  untouched_ = pattern;
  touched_bytes_ = 0;
  return CudaStatus(*runtime_, "filling the arena", error);
}

}  // namespace svdserve
