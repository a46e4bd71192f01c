#include "tools/forward/forward_linear.h"

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace svdserve {
namespace {

using kernels::KernelStatus;
using kernels::PackedMatmul;

// Rows of one piece of work; a multiple of the row tile.
constexpr int kRows = 128;

absl::StatusOr<std::unique_ptr<PackedMatmul>> Pack(
    const kernels::PackedMatmulSpec& spec) {
  std::unique_ptr<PackedMatmul> matmul;
  const KernelStatus status = PackedMatmul::Create(spec, &matmul);
  if (status != KernelStatus::kOk) return KernelError("matmul", status);
  return matmul;
}

absl::StatusOr<FloatMatrix> Multiply(const PackedMatmul& matmul,
                                     const FloatMatrix& x,
                                     kernels::Team& team) {
  FloatMatrix y(x.rows(), matmul.out());
  // Each worker's scratch, in rows of a matrix for their alignment.
  const int scratch_floats =
      static_cast<int>(matmul.scratch_bytes() / sizeof(float)) + 16;
  FloatMatrix scratch(team.size(), (scratch_floats + 15) / 16 * 16);
  std::atomic<KernelStatus> error{KernelStatus::kOk};
  const int pieces = (x.rows() + kRows - 1) / kRows;
  team.ParallelFor(pieces, [&](int worker, int piece) {
    const int first = piece * kRows;
    const int rows = std::min(kRows, x.rows() - first);
    for (int panel = 0; panel < matmul.panels(); ++panel) {
      const KernelStatus status =
          matmul.Run(worker, panel, rows, x.row(first),
                     y.row(first) + matmul.PanelBegin(panel), y.width(),
                     scratch.row(worker));
      if (status != KernelStatus::kOk) error = status;
    }
  });
  if (error != KernelStatus::kOk) return KernelError("matmul", error);
  return y;
}

}  // namespace

absl::Status KernelError(const char* kernel, KernelStatus status) {
  if (status == KernelStatus::kOk) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("kernel ", kernel, ": ", kernels::KernelStatusName(status)));
}

absl::StatusOr<ForwardLinear> ForwardLinear::Create(
    const Linear& linear, kernels::Activation activation,
    const kernels::Team& team) {
  ForwardLinear forward;
  const bool factored = linear.rank > 0;
  if (factored) {
    const std::vector<float> u = linear.u.ToF32();  // [in, rank]
    auto first = Pack({.in = linear.in,
                       .out = linear.rank,
                       .weight = u.data(),
                       .weight_in_stride = linear.rank,
                       .weight_out_stride = 1,
                       .workers = team.size()});
    if (!first.ok()) return first.status();
    forward.first_ = *std::move(first);
  }
  const std::vector<float> weight =
      (factored ? linear.v : linear.weight).ToF32();
  const std::vector<float> bias =
      linear.bias.empty() ? std::vector<float>() : linear.bias.ToF32();
  auto second = Pack({.in = factored ? linear.rank : linear.in,
                      .out = linear.out,
                      .weight = weight.data(),
                      .weight_in_stride = factored ? linear.out : 1,
                      .weight_out_stride = factored ? 1 : linear.in,
                      .bias = bias.empty() ? nullptr : bias.data(),
                      .activation = activation,
                      .workers = team.size()});
  if (!second.ok()) return second.status();
  forward.second_ = *std::move(second);
  return forward;
}

absl::StatusOr<FloatMatrix> ForwardLinear::Run(const FloatMatrix& x,
                                               kernels::Team& team) const {
  if (first_ == nullptr) return Multiply(*second_, x, team);
  absl::StatusOr<FloatMatrix> narrow = Multiply(*first_, x, team);
  if (!narrow.ok()) return narrow;
  return Multiply(*second_, *narrow, team);
}

}  // namespace svdserve
