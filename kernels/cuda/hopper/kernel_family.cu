#include <array>

#include "kernels/cuda/kernel_family.h"

namespace svdserve::cuda {
namespace {

// Compiled as all kernels of this folder: where this loads, they do.
__global__ void Probe() {}

bool LoadsImage() {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, Probe);
  if (error == cudaSuccess) return true;
  cudaGetLastError();  // reported to nobody else
  return false;
}

enum Answer : signed char { kUnknown, kYes, kNo };

// By device.
std::array<std::atomic<Answer>, 64> answers;

}  // namespace

bool TakesHopperKernels(const DeviceLimits& limits) {
  int device = 0;
  if (limits.sm != 90 || ScopedPortableKernels::Lives() ||
      cudaGetDevice(&device) != cudaSuccess ||
      device >= static_cast<int>(answers.size())) {
    return false;
  }
  std::atomic<Answer>& answer = answers[device];
  if (answer == kUnknown) answer = LoadsImage() ? kYes : kNo;
  return answer == kYes;
}

}  // namespace svdserve::cuda
