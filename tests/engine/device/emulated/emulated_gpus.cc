#include "tests/engine/device/emulated/emulated_gpus.h"

#include <memory>
#include <utility>

#include "engine/device/backend.h"
#include "engine/device/cuda_backend.h"

namespace svdserve {

std::vector<HostDevice>& EmulatedGpus() {
  static auto* const gpus = new std::vector<HostDevice>;
  return *gpus;
}

Faults& FaultsOf(int index) {
  static auto* const faults = new Faults[kMostEmulatedGpus];
  return faults[index];
}

absl::StatusOr<int> CountCudaDevices() {
  if (EmulatedGpus().empty()) {
    return absl::UnavailableError("there is no emulated GPU");
  }
  return static_cast<int>(EmulatedGpus().size());
}

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(
    const Model& model, const BackendOptions& options) {
  const int index = options.devices.front();
  auto gpu = std::make_unique<HostRuntime>(EmulatedGpus()[index]);
  return CudaBackend::Create(
      model, options,
      std::make_unique<FaultyRuntime>(std::move(gpu), &FaultsOf(index)));
}

}  // namespace svdserve
