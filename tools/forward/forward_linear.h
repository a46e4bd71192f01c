// y = activation(x·W + b) of a whole batch, dense or factored.
//
// Immutable after Create() but for scratch memory: one Run() at a time, on the
// team that it was made for or one that is no larger.
#ifndef SVDSERVE_TOOLS_FORWARD_FORWARD_LINEAR_H_
#define SVDSERVE_TOOLS_FORWARD_FORWARD_LINEAR_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/model.h"
#include "kernels/epilogue.h"
#include "kernels/packed_matmul.h"
#include "kernels/status.h"
#include "kernels/team.h"
#include "tools/forward/float_matrix.h"

namespace svdserve {

// OK, or INTERNAL with the kernel's name.
absl::Status KernelError(const char* kernel, kernels::KernelStatus status);

class ForwardLinear {
 public:
  // Packs the weights, which may be dropped afterwards.
  static absl::StatusOr<ForwardLinear> Create(const Linear& linear,
                                              kernels::Activation activation,
                                              const kernels::Team& team);

  // x [tokens, in] -> [tokens, out]. A row's bits depend on that row alone.
  absl::StatusOr<FloatMatrix> Run(const FloatMatrix& x,
                                  kernels::Team& team) const;

 private:
  std::unique_ptr<kernels::PackedMatmul> first_;   // U; null if dense
  std::unique_ptr<kernels::PackedMatmul> second_;  // V or W
};

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_FORWARD_FORWARD_LINEAR_H_
