#include "tests/kernels/cuda/emulator/fiber.h"

#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#define SVDSERVE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SVDSERVE_ASAN 1
#endif
#endif

#ifdef SVDSERVE_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

// Saves what a called function must keep, and continues where `load` was saved.
extern "C" void SvdserveSwitchStack(void** save, void* load);
asm(R"(
  .text
  .globl SvdserveSwitchStack
  .type SvdserveSwitchStack, @function
SvdserveSwitchStack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  retq
  .size SvdserveSwitchStack, .-SvdserveSwitchStack
)");

namespace svdserve::cuda::emulator {
namespace {

constexpr int kSavedRegisters = 6;

// Whom the running fiber was switched to from.
Fiber* previous = nullptr;

#ifdef SVDSERVE_ASAN
void Leaving(Fiber& from, const Fiber& to, bool ends) {
  __sanitizer_start_switch_fiber(ends ? nullptr : &from.fake_stack, to.stack,
                                 to.stack_bytes);
}
// The stack of the one left is learnt here: the main thread's is not ours.
void Arrived(void* fake_stack) {
  __sanitizer_finish_switch_fiber(fake_stack, &previous->stack,
                                  &previous->stack_bytes);
}
#else
void Leaving(Fiber& /*from*/, const Fiber& /*to*/, bool /*ends*/) {}
void Arrived(void* /*fake_stack*/) {}
#endif

}  // namespace

void PrepareFiber(Fiber& fiber, void (*entry)()) {
  // Lines of equal depth in different stacks fall into different cache sets.
  constexpr uintptr_t kLine = 64;
  const uintptr_t number =
      reinterpret_cast<uintptr_t>(fiber.stack) / fiber.stack_bytes;
  std::byte* top = static_cast<std::byte*>(const_cast<void*>(fiber.stack)) +
                   fiber.stack_bytes - number * 9 % 64 * kLine;
  // As if entry() had been called: its return address ends a backtrace.
  void** frame = reinterpret_cast<void**>(top) - 1;
  *frame-- = nullptr;
  *frame = reinterpret_cast<void*>(entry);
  for (int i = 0; i < kSavedRegisters; ++i) *--frame = nullptr;
  fiber.stack_pointer = frame;
  fiber.fake_stack = nullptr;
}

void SwitchFiber(Fiber& from, Fiber& to, bool ends) {
  previous = &from;
  Leaving(from, to, ends);
  SvdserveSwitchStack(&from.stack_pointer, to.stack_pointer);
  Arrived(from.fake_stack);
}

void FiberStarted() { Arrived(nullptr); }

}  // namespace svdserve::cuda::emulator
