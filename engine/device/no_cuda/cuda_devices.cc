// In place of the CUDA backend, in builds without it.
#include "absl/status/status.h"
#include "engine/device/backend.h"

namespace svdserve {

absl::StatusOr<int> CountCudaDevices() {
  return absl::UnavailableError("this build has no CUDA backend");
}

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(
    const Model&, const BackendOptions&) {
  return CountCudaDevices().status();
}

}  // namespace svdserve
