#include "kernels/status.h"

namespace svdserve::kernels {

const char* KernelStatusName(KernelStatus status) {
  switch (status) {
    case KernelStatus::kOk:
      return "ok";
    case KernelStatus::kInvalidArgument:
      return "invalid argument";
    case KernelStatus::kUnsupported:
      return "unsupported";
    case KernelStatus::kOutOfMemory:
      return "out of memory";
    case KernelStatus::kInternal:
      return "internal error";
  }
  return "unknown";
}

}  // namespace svdserve::kernels
