#include "engine/device/cuda_staging.h"

#include <algorithm>
#include <utility>

#include "kernels/cuda/pool.h"

namespace svdserve {
namespace {

absl::Status Grow(CudaRuntime* runtime, uint64_t bytes, PinnedMemory* memory) {
  if (bytes <= memory->bytes()) return absl::OkStatus();
  *memory = {};  // first: there may not be room for both
  auto larger = PinnedMemory::Allocate(runtime, bytes, "pinned memory");
  if (!larger.ok()) return larger.status();
  *memory = *std::move(larger);
  return absl::OkStatus();
}

// The values, then `pad` up to the buffer's end.
template <typename T>
void Write(const std::vector<T>& values, T pad, std::byte* to, uint64_t bytes) {
  T* const out = reinterpret_cast<T*>(to);
  T* const end = std::copy(values.begin(), values.end(), out);
  std::fill(end, out + bytes / sizeof(T), pad);
}

}  // namespace

CudaInputRange InputRange(const Plan& plan) {
  const Buffer* first = plan.Find(plan.steps.front(), Role::kIds);
  const Buffer* last = plan.Find(plan.steps.back(), Role::kOptions);
  return {first->offset, last->end() - first->offset};
}

absl::Status CudaStaging::Reserve(CudaRuntime* runtime, uint64_t input_bytes,
                                  uint64_t output_bytes) {
  absl::Status status = Grow(runtime, input_bytes, &inputs_);
  if (status.ok()) status = Grow(runtime, output_bytes, &outputs_);
  return status;
}

void CudaStaging::WriteInputs(const Plan& plan, const PackedBatch& batch) {
  const Step& embed = plan.steps.front();
  const uint64_t start = InputRange(plan).offset;
  const auto write = [&](const Step& step, Role role, const auto& values,
                         auto pad) {
    const Buffer* buffer = plan.Find(step, role);
    Write(values, pad, inputs_.data() + (buffer->offset - start),
          buffer->bytes);
  };
  write(embed, Role::kIds, batch.ids, int32_t{0});
  write(embed, Role::kTypeIds, batch.type_ids, uint8_t{0});
  write(embed, Role::kOffsets, batch.cu_seqlens, int32_t{batch.tokens()});

  const Buffer* buffer = plan.Find(plan.steps.back(), Role::kOptions);
  auto* const options =
      reinterpret_cast<int32_t*>(inputs_.data() + (buffer->offset - start));
  const int rows = static_cast<int>(buffer->bytes / sizeof(int32_t));
  for (int i = 0; i < rows; ++i) {
    const OutputOptions row = i < batch.sequences()
                                  ? batch.options[i]
                                  : OutputOptions{.normalize = false};
    options[i] = cuda::RowOption(row.dimensions, row.normalize);
  }
}

}  // namespace svdserve
