// Contexts that hand the processor to one another without system calls, x86-64.
// AddressSanitizer is told of each switch.
#ifndef SVDSERVE_TESTS_KERNELS_CUDA_EMULATOR_FIBER_H_
#define SVDSERVE_TESTS_KERNELS_CUDA_EMULATOR_FIBER_H_

#include <cstddef>

namespace svdserve::cuda::emulator {

struct Fiber {
  void* stack_pointer = nullptr;
  const void* stack = nullptr;  // lowest address
  size_t stack_bytes = 0;
  void* fake_stack = nullptr;  // AddressSanitizer's
};

// `fiber` will run entry(), which never returns, when it is first switched to.
void PrepareFiber(Fiber& fiber, void (*entry)());

// Leaves `from`, whose code runs, for `to`; returns when something switches
// back. `ends`: nothing ever will.
void SwitchFiber(Fiber& from, Fiber& to, bool ends = false);

// The first call of an entry function.
void FiberStarted();

}  // namespace svdserve::cuda::emulator

#endif  // SVDSERVE_TESTS_KERNELS_CUDA_EMULATOR_FIBER_H_
