// What kernels return. Kernels know neither abseil nor exceptions: a caller
// turns a status into an error with its own context.
#ifndef SVDSERVE_KERNELS_STATUS_H_
#define SVDSERVE_KERNELS_STATUS_H_

namespace svdserve::kernels {

enum class KernelStatus {
  kOk = 0,
  kInvalidArgument,  // a null pointer, a size or a stride that makes no sense
  kUnsupported,      // a shape or type that the kernel does not handle here
  kOutOfMemory,      // while preparing; running allocates nothing
  kInternal,         // the library underneath failed
};

const char* KernelStatusName(KernelStatus status);

}  // namespace svdserve::kernels

#endif  // SVDSERVE_KERNELS_STATUS_H_
