// Runs the steps of a plan on a CUDA device: the encoder itself.
//
// Puts kernels into the runtime's stream and returns; waits for nothing,
// allocates nothing, reads nothing from the device. Steps work on chunks of
// rows, one after the other, in the same buffers.
//
// Not thread-safe.
#ifndef SVDSERVE_ENGINE_DEVICE_CUDA_ENCODER_H_
#define SVDSERVE_ENGINE_DEVICE_CUDA_ENCODER_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/device/cuda_runtime.h"
#include "engine/device/cuda_weights.h"
#include "engine/model/model.h"
#include "engine/plan/plan.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/pool.h"

namespace svdserve {

// What the kernels call it.
cuda::Activation CudaActivation(Activation activation);

// What a plan is run for: a batch as it is, or a whole bucket.
struct CudaBatch {
  int rows = 0;  // of the residual stream
  int sequences = 0;
  int max_tokens = 0;
  // Where chunks may be cut, [sequences + 1]; null: the plan has one chunk a
  // step, and where sequences start is known on the device only.
  const int32_t* offsets = nullptr;
};

class CudaEncoder {
 public:
  // `shape` is CudaShape()'s, `split_sum_rows` PlanTarget's. What is passed in
  // must outlive the encoder.
  CudaEncoder(const ModelShape& shape, Pooling pooling,
              const CudaWeights& weights, int split_sum_rows,
              CudaRuntime* runtime, std::byte* arena)
      : shape_(shape),
        pooling_(pooling),
        weights_(weights),
        split_sum_rows_(split_sum_rows),
        runtime_(*runtime),
        arena_(arena) {}

  // The inputs lie where the plan says. The first error ends the run.
  cudaError_t Run(const Plan& plan, const CudaBatch& batch);
  cudaError_t error() const { return error_; }  // of the last run
  // Of the last run that failed: "attention of layer 3".
  std::string FailedStep() const;

  // Where the plan's outputs are, [sequences, output_width].
  const std::byte* Output(const Plan& plan) const;

 private:
  struct Chunk;
  struct Scratch;

  void RunStep(const Plan& plan, const Step& step);
  void Embed(const Plan& plan, const Step& step);
  void Pool(const Plan& plan, const Step& step);
  void Head(const Plan& plan, const Step& step);
  void Finish(const Plan& plan);

  void AttentionStep(const Plan& plan, const Step& step);
  Chunk NextSequences(const Chunk& last, int rows) const;
  void Attention(const Scratch& scratch, const Step& step, const Chunk& chunk);
  void EndAttention(const Scratch& scratch, const CudaLayer& layer,
                    const Chunk& chunk);
  void EndChained(const Scratch& scratch, const CudaLayer& layer,
                  const Chunk& chunk);
  void AttendFused(const Scratch& scratch, const CudaLayer& layer,
                   const Chunk& chunk);
  cuda::GemmParams ProjectHeads(const Scratch& scratch, const CudaLayer& layer,
                                const Chunk& chunk,
                                const CudaProjection& projection,
                                int first_head, int heads, std::byte* y) const;
  void AttendHeads(const Scratch& scratch, const CudaLayer& layer,
                   const Chunk& chunk, int first_head, int heads);

  void FeedForwardStep(const Plan& plan, const Step& step);
  void FeedForwardWithWholeEnds(const Scratch& scratch, const Step& step);
  void FeedForward(const Scratch& scratch, const Step& step,
                   const Chunk& chunk);

  // y = act(x·W + b); both packed.
  void Apply(const CudaMatrix& matrix, int rows, const void* x, void* y,
             cuda::Activation activation = cuda::Activation::kNone);
  cuda::GemmParams Product(const CudaMatrix& matrix, int rows, const void* x,
                           void* y) const;
  // The feed-forward's y = x·U_2, the sum of which may be split where the step
  // has chunks of few rows.
  void ApplyLong(const Step& step, const CudaMatrix& matrix, int rows,
                 const void* x, void* y);
  // x = LayerNorm(x + y·W + b), over the chunk's rows. `update`: memory, or
  // null.
  void AddAndNormalize(const CudaMatrix& matrix, const CudaNorm& norm,
                       const Chunk& chunk, const void* y, std::byte* update);

  std::byte* At(const Buffer* buffer) const;
  std::byte* HiddenRow(int row) const;
  float Scale() const;
  void Note(cudaError_t error);

  const ModelShape& shape_;
  const Pooling pooling_;
  const CudaWeights& weights_;
  const int split_sum_rows_;
  CudaRuntime& runtime_;
  std::byte* const arena_;

  // Of the running batch.
  CudaBatch batch_;
  std::byte* hidden_ = nullptr;       // [rows, hidden]
  const int32_t* offsets_ = nullptr;  // [sequences + 1], on the device
  cudaError_t error_ = cudaSuccess;
  StepKind failed_kind_ = StepKind::kEmbed;
  int failed_layer_ = -1;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_DEVICE_CUDA_ENCODER_H_
