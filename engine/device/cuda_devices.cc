// The GPUs that there are. The CUDA runtime is linked statically and finds the
// driver when it is first asked, so that the same program starts without one.
#include <cuda_runtime_api.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/device/backend.h"
#include "engine/device/cuda_backend.h"

namespace svdserve {

absl::StatusOr<int> CountCudaDevices() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return count;
  if (error == cudaErrorInsufficientDriver) {
    return absl::UnavailableError("there is no NVIDIA driver, or an old one");
  }
  if (error == cudaErrorNoDevice || error == cudaSuccess) {
    return absl::UnavailableError("there is no NVIDIA GPU");
  }
  return absl::UnavailableError(
      absl::StrCat("GPUs cannot be used: ", cudaGetErrorName(error)));
}

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(
    const Model& model, const BackendOptions& options) {
  const int index = options.devices.empty() ? 0 : options.devices.front();
  absl::StatusOr<std::unique_ptr<CudaRuntime>> runtime = OpenCudaDevice(index);
  if (!runtime.ok()) return runtime.status();
  return CudaBackend::Create(model, options, *std::move(runtime));
}

}  // namespace svdserve
