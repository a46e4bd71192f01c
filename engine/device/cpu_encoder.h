// Runs the steps of a plan on the CPU: the encoder itself.
//
// A step works on chunks of rows. With several lanes every worker takes whole
// chunks and computes them alone, each in its lane's buffers; with one lane all
// workers share each chunk, phase by phase. A row's bits are the same either
// way: kernels fix the order of every sum.
//
// Not thread-safe: one batch at a time. Allocates nothing.
#ifndef SVDSERVE_ENGINE_DEVICE_CPU_ENCODER_H_
#define SVDSERVE_ENGINE_DEVICE_CPU_ENCODER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/device/arena.h"
#include "engine/device/backend.h"
#include "engine/device/cpu_weights.h"
#include "engine/model/model.h"
#include "engine/plan/plan.h"
#include "kernels/pool.h"
#include "kernels/status.h"
#include "kernels/team.h"

namespace svdserve {

class CpuEncoder {
 public:
  // What is passed in must outlive the encoder.
  CpuEncoder(const ModelShape& shape, kernels::PoolKind pooling,
             const CpuWeights& weights, kernels::Team& team, Arena& arena)
      : shape_(shape),
        pooling_(pooling),
        weights_(weights),
        team_(team),
        arena_(arena) {}

  // The batch fits the plan and its ids are valid. Returns the first error of
  // a kernel; the outputs are then unspecified.
  kernels::KernelStatus Run(const Plan& plan, const PackedBatch& batch);

  // Outputs of the last Run(), [sequences, output_width].
  const float* output() const { return output_; }

 private:
  class Lane;
  struct Chunk;
  struct HeadPanels;

  void CopyIn(const Plan& plan, const Step& step, const PackedBatch& batch);
  void Embed(const Plan& plan, const Step& step);
  void Pool(const Plan& plan, const Step& step);
  void Head(const Plan& plan, const Step& step);
  void FinishRow(const OutputOptions& options, float* row) const;

  void AttentionStep(const Plan& plan, const Step& step);
  void Attention(const Lane& lane, const CpuLayer& layer, const Chunk& chunk,
                 int heads_per_group);
  HeadPanels PanelsOf(const Lane& lane, const CpuLayer& layer,
                      const Chunk& chunk, int heads, int projection) const;
  void ProjectHeads(const Lane& lane, const CpuLayer& layer, const Chunk& chunk,
                    int first_head, int heads);
  void AttendHeads(const Lane& lane, const CpuLayer& layer, const Chunk& chunk,
                   int first_head, int heads);
  bool TakeChunk(int rows, Chunk* chunk);

  void FeedForwardStep(const Plan& plan, const Step& step);
  void FeedForward(const Lane& lane, const CpuLayer& layer, const Chunk& chunk);

  // y = x·W in the lane's share of the work.
  void Apply(const Lane& lane, const PackedMatrix& matrix, int rows,
             const std::byte* x, std::byte* y);
  void AddAndNormalize(const Lane& lane, const CpuNorm& norm,
                       const Chunk& chunk);

  std::byte* At(const Buffer* buffer, int lane = 0);
  std::byte* HiddenRow(int row);
  void* Scratch(int worker);
  void Note(kernels::KernelStatus status);

  const ModelShape& shape_;
  const kernels::PoolKind pooling_;
  const CpuWeights& weights_;
  kernels::Team& team_;
  Arena& arena_;

  // Of the running batch.
  std::byte* hidden_ = nullptr;
  std::byte* scratch_ = nullptr;
  uint64_t scratch_stride_ = 0;
  const int32_t* offsets_ = nullptr;  // [sequences + 1]
  int sequences_ = 0;
  float* output_ = nullptr;
  std::atomic<int> next_sequence_{0};
  std::atomic<kernels::KernelStatus> status_{kernels::KernelStatus::kOk};
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_DEVICE_CPU_ENCODER_H_
