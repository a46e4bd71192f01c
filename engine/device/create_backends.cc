#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/device/backend.h"
#include "engine/device/cpu_backend.h"

namespace svdserve {
namespace {

using Backends = std::vector<std::unique_ptr<Backend>>;

// Which GPUs: those that were asked for, if they are there, or all.
absl::StatusOr<std::vector<int>> ChooseDevices(const BackendOptions& options) {
  const absl::StatusOr<int> count = CountCudaDevices();
  if (!count.ok()) return count.status();
  std::vector<int> devices = options.devices;
  if (devices.empty()) {
    devices.resize(*count);
    std::iota(devices.begin(), devices.end(), 0);
  }
  for (const int device : devices) {
    if (device < 0 || device >= *count) {
      return absl::InvalidArgumentError(absl::StrCat(
          "GPU ", device, " was asked for; 0 to ", *count - 1, " are there"));
    }
    if (std::count(devices.begin(), devices.end(), device) > 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("GPU ", device, " was asked for twice"));
    }
  }
  return devices;
}

absl::StatusOr<Backends> CreateOnDevices(const Model& model,
                                         BackendOptions options,
                                         const std::vector<int>& devices) {
  Backends backends;
  for (const int device : devices) {
    options.devices = {device};
    auto backend = CreateCudaBackend(model, options);
    if (!backend.ok()) return backend.status();
    backends.push_back(*std::move(backend));
  }
  return backends;
}

// One scheduler serves all devices, so a batch must fit each of them.
absl::StatusOr<Backends> CreateCudaBackends(const Model& model,
                                            BackendOptions options) {
  const absl::StatusOr<std::vector<int>> devices = ChooseDevices(options);
  if (!devices.ok()) return devices.status();
  absl::StatusOr<Backends> backends = CreateOnDevices(model, options, *devices);
  if (!backends.ok()) return backends.status();
  uint64_t least = backends->front()->info().arena_bytes;
  bool alike = true;
  for (const auto& backend : *backends) {
    if (!(backend->target() == backends->front()->target())) {
      return absl::InvalidArgumentError(
          "the GPUs are of different kinds: serve each kind with a process of "
          "its own (engine.devices)");
    }
    alike &= backend->info().arena_bytes == least;
    least = std::min(least, backend->info().arena_bytes);
  }
  if (alike) return backends;
  backends->clear();
  options.arena_bytes = least;
  return CreateOnDevices(model, options, *devices);
}

absl::StatusOr<Backends> CreateCpu(const Model& model,
                                   const BackendOptions& options,
                                   const std::string& reason) {
  auto backend = CpuBackend::Create(model, options);
  if (!backend.ok()) return backend.status();
  (*backend)->set_reason(reason);
  Backends backends;
  backends.push_back(*std::move(backend));
  return backends;
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<Backend>>> CreateBackends(
    const Model& model, const BackendOptions& options) {
  if (options.device == DeviceChoice::kCpu) {
    return CreateCpu(model, options, "the configuration asks for it");
  }
  absl::StatusOr<Backends> backends = CreateCudaBackends(model, options);
  // A GPU that is there but short of memory is for the operator to see.
  const bool use_cpu = absl::IsUnavailable(backends.status()) ||
                       absl::IsUnimplemented(backends.status());
  if (options.device == DeviceChoice::kCuda && !backends.ok()) {
    return absl::Status(
        backends.status().code(),
        absl::StrCat("a GPU was asked for, but ", backends.status().message()));
  }
  if (!use_cpu) return backends;
  return CreateCpu(model, options, std::string(backends.status().message()));
}

}  // namespace svdserve
