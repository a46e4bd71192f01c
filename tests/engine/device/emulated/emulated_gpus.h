// Emulated GPUs in place of the machine's: a program that links this finds them
// where it would find GPUs (engine/device/cuda_devices.cc).
//
//   EmulatedGpus() = {{.index = 0}, {.index = 1}};
//   auto backends = CreateBackends(model, {});
#ifndef SVDSERVE_TESTS_ENGINE_DEVICE_EMULATED_EMULATED_GPUS_H_
#define SVDSERVE_TESTS_ENGINE_DEVICE_EMULATED_EMULATED_GPUS_H_

#include <vector>

#include "tests/engine/device/cuda_test_device.h"
#include "tests/engine/device/faulty_runtime.h"

namespace svdserve {

inline constexpr int kMostEmulatedGpus = 2;

// What there is; nothing at first. Not while backends are created.
std::vector<HostDevice>& EmulatedGpus();

// What fails on GPU `index`.
Faults& FaultsOf(int index);

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_ENGINE_DEVICE_EMULATED_EMULATED_GPUS_H_
