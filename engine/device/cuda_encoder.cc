#include "engine/device/cuda_encoder.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/embed.h"
#include "kernels/cuda/ffn_layer.h"
#include "kernels/cuda/fused_ffn.h"
#include "kernels/cuda/gemm_norm.h"
#include "kernels/cuda/lowrank_attention.h"
#include "kernels/cuda/lowrank_norm.h"
#include "kernels/cuda/row_chain.h"

namespace svdserve {

cuda::Activation CudaActivation(Activation activation) {
  switch (activation) {
    case Activation::kGelu:
      return cuda::Activation::kGelu;
    case Activation::kGeluTanh:
      return cuda::Activation::kGeluTanh;
    case Activation::kRelu:
      return cuda::Activation::kRelu;
  }
  return cuda::Activation::kNone;
}

namespace {

constexpr int kElement = cuda::kElementBytes;

cuda::PoolKind PoolKindOf(Pooling pooling) {
  switch (pooling) {
    case Pooling::kMean:
      return cuda::PoolKind::kMean;
    case Pooling::kCls:
      return cuda::PoolKind::kFirst;
    case Pooling::kMax:
      return cuda::PoolKind::kMax;
  }
  return cuda::PoolKind::kMean;
}

template <typename T>
T* As(std::byte* memory) {
  return reinterpret_cast<T*>(memory);
}

}  // namespace

// Neighbouring rows of the residual stream.
struct CudaEncoder::Chunk {
  int first_row = 0;
  int rows = 0;
  int first_sequence = 0;  // attention: whole sequences
  int sequences = 0;
  std::byte* x = nullptr;  // [rows, hidden] in the residual stream
};

// Buffers of a step; null: it has none of this role.
struct CudaEncoder::Scratch {
  Scratch(const CudaEncoder& encoder, const Plan& plan, const Step& step)
      : factors(encoder.At(plan.Find(step, Role::kFactors))),
        qkv(encoder.At(plan.Find(step, Role::kQkv))),
        context(encoder.At(plan.Find(step, Role::kContext))),
        next_factors(encoder.At(plan.Find(step, Role::kNextFactors))),
        narrow(encoder.At(plan.Find(step, Role::kNarrow))),
        inner(encoder.At(plan.Find(step, Role::kInner))),
        update(encoder.At(plan.Find(step, Role::kUpdate))) {}

  std::byte* factors;       // [rows, ranks]
  std::byte* qkv;           // Q, K and V, each [rows, heads of a group * dim]
  std::byte* context;       // [rows, heads * value_dim]
  std::byte* next_factors;  // [rows, rank]
  std::byte* narrow;        // [rows, rank]
  std::byte* inner;         // [rows, intermediate]
  std::byte* update;        // [rows, hidden] float
};

// ---- The batch ----

cudaError_t CudaEncoder::Run(const Plan& plan, const CudaBatch& batch) {
  batch_ = batch;
  error_ = cudaSuccess;
  for (const Step& step : plan.steps) {
    RunStep(plan, step);
    if (error_ == cudaSuccess) continue;
    failed_kind_ = step.kind;
    failed_layer_ = step.layer;
    return error_;
  }
  Finish(plan);
  return error_;
}

std::string CudaEncoder::FailedStep() const {
  switch (failed_kind_) {
    case StepKind::kEmbed:
      return "embeddings";
    case StepKind::kAttention:
      return absl::StrCat("attention of layer ", failed_layer_);
    case StepKind::kFeedForward:
      return absl::StrCat("feed-forward of layer ", failed_layer_);
    case StepKind::kPool:
      return "pooling";
    case StepKind::kHead:
      return absl::StrCat("head ", failed_layer_);
  }
  return "?";
}

void CudaEncoder::RunStep(const Plan& plan, const Step& step) {
  switch (step.kind) {
    case StepKind::kEmbed:
      return Embed(plan, step);
    case StepKind::kAttention:
      return AttentionStep(plan, step);
    case StepKind::kFeedForward:
      return FeedForwardStep(plan, step);
    case StepKind::kPool:
      return Pool(plan, step);
    case StepKind::kHead:
      return Head(plan, step);
  }
}

void CudaEncoder::Embed(const Plan& plan, const Step& step) {
  offsets_ = As<int32_t>(At(plan.Find(step, Role::kOffsets)));
  hidden_ = At(plan.Find(step, Role::kHidden));
  Note(
      cuda::Embed({.type = weights_.type,
                   .rows = batch_.rows,
                   .sequences = batch_.sequences,
                   .hidden = shape_.hidden,
                   .ids = As<int32_t>(At(plan.Find(step, Role::kIds))),
                   .type_ids = As<uint8_t>(At(plan.Find(step, Role::kTypeIds))),
                   .cu_seqlens = offsets_,
                   .word = weights_.word,
                   .position = weights_.position,
                   .token_type = weights_.token_type,
                   .gamma = weights_.embedding_norm.gamma,
                   .beta = weights_.embedding_norm.beta,
                   .eps = weights_.norm_eps,
                   .x = hidden_},
                  runtime_.stream()));
}

// ---- x = LayerNorm(x + Attention(x)·W_o) ----

void CudaEncoder::AttentionStep(const Plan& plan, const Step& step) {
  const Scratch scratch(*this, plan, step);
  if (batch_.offsets == nullptr) {
    Attention(
        scratch, step,
        {.rows = batch_.rows, .sequences = batch_.sequences, .x = hidden_});
    return;
  }
  Chunk chunk;
  while (true) {
    chunk = NextSequences(chunk, step.rows_per_chunk);
    if (chunk.sequences == 0) return;
    Attention(scratch, step, chunk);
  }
}

// The whole sequences after `last` that fit into `rows`.
CudaEncoder::Chunk CudaEncoder::NextSequences(const Chunk& last,
                                              int rows) const {
  const int32_t* const offsets = batch_.offsets;
  const int first = last.first_sequence + last.sequences;
  int end = first;
  while (end < batch_.sequences &&
         (end == first || offsets[end + 1] - offsets[first] <= rows)) {
    ++end;
  }
  return {.first_row = offsets[first],
          .rows = offsets[end] - offsets[first],
          .first_sequence = first,
          .sequences = end - first,
          .x = HiddenRow(offsets[first])};
}

void CudaEncoder::Attention(const Scratch& scratch, const Step& step,
                            const Chunk& chunk) {
  const CudaLayer& layer = weights_.layers[step.layer];
  // P = x·[U_q U_k U_v]
  if (layer.qkv_factors) {
    Apply(layer.qkv_factors, chunk.rows, chunk.x, scratch.factors);
  }
  // context = softmax(Q·Kᵀ / √head_dim)·V, at once or a few heads at a time
  if (step.way == Way::kFactoredFused) {
    AttendFused(scratch, layer, chunk);
  } else {
    const int group = step.heads_per_group;
    for (int head = 0; head < shape_.heads; head += group) {
      AttendHeads(scratch, layer, chunk, head,
                  std::min(group, shape_.heads - head));
    }
  }
  if (step.chained) {
    EndChained(scratch, layer, chunk);
  } else {
    EndAttention(scratch, layer, chunk);
  }
}

// x = LayerNorm(x + context·W_o)
void CudaEncoder::EndAttention(const Scratch& scratch, const CudaLayer& layer,
                               const Chunk& chunk) {
  const auto& [narrow, wide] = layer.attention_output;
  const CudaNorm& norm = layer.attention_norm;
  if (!narrow) {
    return AddAndNormalize(wide, norm, chunk, scratch.context, scratch.update);
  }
  const cuda::LowRankNormParams params = {.type = weights_.type,
                                          .rows = chunk.rows,
                                          .in = narrow.in,
                                          .rank = wide.in,
                                          .hidden = wide.out,
                                          .y = scratch.context,
                                          .narrow = narrow.w,
                                          .w = wide.w,
                                          .bias = wide.bias,
                                          .gamma = norm.gamma,
                                          .beta = norm.beta,
                                          .eps = weights_.norm_eps,
                                          .x = chunk.x};
  const cuda::DeviceLimits& limits = runtime_.device().limits;
  if (cuda::LowRankNormIsFaster(params, limits)) {
    return Note(cuda::LowRankNorm(params, limits, runtime_.stream()));
  }
  Apply(narrow, chunk.rows, scratch.context, scratch.narrow);
  AddAndNormalize(wide, norm, chunk, scratch.narrow, scratch.update);
}

// x = LayerNorm(x + context·W_o), and x·U_1 for the feed-forward.
void CudaEncoder::EndChained(const Scratch& scratch, const CudaLayer& layer,
                             const Chunk& chunk) {
  const auto& [narrow, wide] = layer.attention_output;
  const CudaMatrix& next = layer.ffn_in.first;
  Note(cuda::RowChain({.type = weights_.type,
                       .rows = chunk.rows,
                       .in = narrow.in,
                       .rank = wide.in,
                       .hidden = wide.out,
                       .out = next.out,
                       .y = scratch.context,
                       .narrow = narrow.w,
                       .w = wide.w,
                       .bias = wide.bias,
                       .gamma = layer.attention_norm.gamma,
                       .beta = layer.attention_norm.beta,
                       .eps = weights_.norm_eps,
                       .x = chunk.x,
                       .next = next.w,
                       .z = scratch.next_factors},
                      runtime_.device().limits, runtime_.stream()));
}

void CudaEncoder::AttendFused(const Scratch& scratch, const CudaLayer& layer,
                              const Chunk& chunk) {
  const auto& [query, key, value] = layer.projections;
  Note(cuda::LowRankAttention({.type = weights_.type,
                               .sequences = chunk.sequences,
                               .max_tokens = batch_.max_tokens,
                               .heads = shape_.heads,
                               .head_dim = value.head_dim,  // and all
                               .q_rank = query.matrix.in,
                               .k_rank = key.matrix.in,
                               .v_rank = value.matrix.in,
                               .scale = Scale(),
                               .cu_seqlens = offsets_ + chunk.first_sequence,
                               .first_row = chunk.first_row,
                               .p = scratch.factors,
                               .p_stride = layer.qkv_factors.out,
                               .q_column = query.factor_column,
                               .k_column = key.factor_column,
                               .v_column = value.factor_column,
                               .q_factor = query.matrix.w,
                               .k_factor = key.matrix.w,
                               .v_factor = value.matrix.w,
                               .q_bias = query.matrix.bias,
                               .k_bias = key.matrix.bias,
                               .v_bias = value.matrix.bias,
                               .out = scratch.context,
                               .out_stride = shape_.heads * value.head_dim},
                              runtime_.device().limits, runtime_.stream()));
}

// Q, K or V of some heads, from the factors, or from x where it is dense.
cuda::GemmParams CudaEncoder::ProjectHeads(const Scratch& scratch,
                                           const CudaLayer& layer,
                                           const Chunk& chunk,
                                           const CudaProjection& projection,
                                           int first_head, int heads,
                                           std::byte* y) const {
  const CudaMatrix& matrix = projection.matrix;
  const int columns = heads * projection.head_dim;
  const int first_column = first_head * projection.head_dim;
  const auto* const w = static_cast<const std::byte*>(matrix.w);
  return {
      .type = weights_.type,
      .rows = chunk.rows,
      .in = matrix.in,
      .out = columns,
      .x = projection.factored
               ? scratch.factors + projection.factor_column * kElement
               : chunk.x,
      .x_stride = projection.factored ? layer.qkv_factors.out : shape_.hidden,
      .w = w + int64_t{1} * first_column * matrix.in * kElement,
      .bias = matrix.bias == nullptr ? nullptr : matrix.bias + first_column,
      .y = y,
      .y_stride = columns};
}

// Q, K and V of some heads, then the context columns of these heads.
void CudaEncoder::AttendHeads(const Scratch& scratch, const CudaLayer& layer,
                              const Chunk& chunk, int first_head, int heads) {
  const auto& [query, key, value] = layer.projections;
  const int64_t query_columns = int64_t{1} * heads * query.head_dim;
  const int64_t query_bytes = chunk.rows * query_columns * kElement;
  std::byte* const q = scratch.qkv;
  std::byte* const k = q + query_bytes;
  std::byte* const v = k + query_bytes;
  const auto product = [&](const CudaProjection& projection, std::byte* y) {
    return ProjectHeads(scratch, layer, chunk, projection, first_head, heads,
                        y);
  };
  const cuda::GemmParams products[] = {product(query, q), product(key, k),
                                       product(value, v)};
  const cuda::DeviceLimits& limits = runtime_.device().limits;
  // What is as wide is one launch.
  const int group = query.head_dim == value.head_dim ? 3 : 2;
  Note(cuda::GemmGroup(products, group, limits, runtime_.stream()));
  if (group == 2) Note(cuda::Gemm(products[2], limits, runtime_.stream()));
  Note(cuda::Attention(
      {.type = weights_.type,
       .sequences = chunk.sequences,
       .max_tokens = batch_.max_tokens,
       .rows = chunk.rows,
       .heads = heads,
       .kv_heads = heads,
       .qk_dim = query.head_dim,
       .v_dim = value.head_dim,
       .scale = Scale(),
       .cu_seqlens = offsets_ + chunk.first_sequence,
       .first_row = chunk.first_row,
       .q = q,
       .k = k,
       .v = v,
       .out = scratch.context + first_head * value.head_dim * kElement,
       .q_stride = query_columns,
       .k_stride = query_columns,
       .v_stride = int64_t{1} * heads * value.head_dim,
       .out_stride = int64_t{1} * shape_.heads * value.head_dim},
      limits, runtime_.stream()));
}

// ---- x = LayerNorm(x + act(x·W_1)·W_2) ----

void CudaEncoder::FeedForwardStep(const Plan& plan, const Step& step) {
  const Scratch scratch(*this, plan, step);
  if (step.rows_at_ends > 0) return FeedForwardWithWholeEnds(scratch, step);
  for (int row = 0; row < batch_.rows; row += step.rows_per_chunk) {
    FeedForward(scratch, step,
                {.first_row = row,
                 .rows = std::min(step.rows_per_chunk, batch_.rows - row),
                 .x = HiddenRow(row)});
  }
}

// The first and the last product of all rows, what lies between in chunks.
void CudaEncoder::FeedForwardWithWholeEnds(const Scratch& scratch,
                                           const Step& step) {
  const CudaLayer& layer = weights_.layers[step.layer];
  const auto& [u1, v1] = layer.ffn_in;
  const auto& [u2, v2] = layer.ffn_out;
  const Chunk all = {.rows = batch_.rows, .x = hidden_};
  Apply(u1, all.rows, all.x, scratch.factors);
  for (int64_t row = 0; row < all.rows; row += step.rows_per_chunk) {
    const int rows = std::min<int64_t>(step.rows_per_chunk, all.rows - row);
    Apply(v1, rows, scratch.factors + row * v1.in * kElement, scratch.inner,
          CudaActivation(shape_.activation));
    ApplyLong(step, u2, rows, scratch.inner,
              scratch.narrow + row * u2.out * kElement);
  }
  AddAndNormalize(v2, layer.ffn_norm, all, scratch.narrow, nullptr);
}

void CudaEncoder::FeedForward(const Scratch& scratch, const Step& step,
                              const Chunk& chunk) {
  const CudaLayer& layer = weights_.layers[step.layer];
  const CudaMatrix& v1 = layer.ffn_in.second;
  const CudaMatrix& u2 = layer.ffn_out.first;
  const cuda::Activation activation = CudaActivation(shape_.activation);
  if (step.way == Way::kFactoredWhole) {
    const CudaMatrix& v2 = layer.ffn_out.second;
    return Note(cuda::FfnLayer({.type = weights_.type,
                                .rows = chunk.rows,
                                .hidden = shape_.hidden,
                                .in_rank = v1.in,
                                .intermediate = v1.out,
                                .out_rank = u2.out,
                                .activation = activation,
                                .u1 = layer.ffn_in.first.w,
                                .v1 = v1.w,
                                .b1 = v1.bias,
                                .u2 = u2.w,
                                .v2 = v2.w,
                                .b2 = v2.bias,
                                .gamma = layer.ffn_norm.gamma,
                                .beta = layer.ffn_norm.beta,
                                .eps = weights_.norm_eps,
                                .x = chunk.x},
                               runtime_.device().limits, runtime_.stream()));
  }
  // P = x·U_1
  const std::byte* from = chunk.x;
  if (layer.ffn_in.first) {
    if (!step.chained) {
      Apply(layer.ffn_in.first, chunk.rows, chunk.x, scratch.factors);
    }
    from = scratch.factors;
  }
  // act(P·V_1)·U_2, through memory or not
  if (step.way == Way::kFactoredFused) {
    Note(cuda::FusedFfn({.type = weights_.type,
                         .rows = chunk.rows,
                         .in_rank = v1.in,
                         .intermediate = v1.out,
                         .out_rank = u2.out,
                         .activation = activation,
                         .p = from,
                         .p_stride = v1.in,
                         .v1 = v1.w,
                         .b1 = v1.bias,
                         .u2 = u2.w,
                         .z = scratch.narrow,
                         .z_stride = u2.out},
                        runtime_.device().limits, runtime_.stream()));
    from = scratch.narrow;
  } else {
    Apply(v1, chunk.rows, from, scratch.inner, activation);
    from = scratch.inner;
    if (u2) {
      ApplyLong(step, u2, chunk.rows, scratch.inner, scratch.narrow);
      from = scratch.narrow;
    }
  }
  // x = LayerNorm(x + Z·V_2)
  AddAndNormalize(layer.ffn_out.second, layer.ffn_norm, chunk, from,
                  scratch.update);
}

// ---- Outputs ----

void CudaEncoder::Pool(const Plan& plan, const Step& step) {
  Note(cuda::Pool({.type = weights_.type,
                   .kind = PoolKindOf(pooling_),
                   .sequences = batch_.sequences,
                   .hidden = shape_.hidden,
                   .cu_seqlens = offsets_,
                   .x = hidden_,
                   .y = As<float>(At(&plan.buffers[step.writes[0]]))},
                  runtime_.stream()));
}

void CudaEncoder::Head(const Plan& plan, const Step& step) {
  const CudaHead& head = weights_.head[step.layer];
  Note(cuda::Head({.rows = batch_.sequences,
                   .in = head.in,
                   .out = head.out,
                   .x = As<float>(At(&plan.buffers[step.reads[0]])),
                   .w = head.w,
                   .bias = head.bias,
                   .activation = head.activation,
                   .y = As<float>(At(&plan.buffers[step.writes[0]]))},
                  runtime_.stream()));
}

// Keeps the first dimensions of each row, then normalises, as its options say.
void CudaEncoder::Finish(const Plan& plan) {
  const Step& last = plan.steps.back();
  failed_kind_ = last.kind;
  failed_layer_ = last.layer;
  Note(cuda::FinishRows(
      {.rows = batch_.sequences,
       .width = shape_.output_width(),
       .options = As<int32_t>(At(plan.Find(last, Role::kOptions))),
       .y = As<float>(At(plan.Find(last, Role::kOutput)))},
      runtime_.stream()));
}

const std::byte* CudaEncoder::Output(const Plan& plan) const {
  return At(plan.Find(plan.steps.back(), Role::kOutput));
}

// ---- What the steps share ----

void CudaEncoder::Apply(const CudaMatrix& matrix, int rows, const void* x,
                        void* y, cuda::Activation activation) {
  cuda::GemmParams product = Product(matrix, rows, x, y);
  product.activation = activation;
  Note(cuda::Gemm(product, runtime_.device().limits, runtime_.stream()));
}

// By the plan's rows, not the batch's: a graph has the former alone, and must
// give the same bits.
void CudaEncoder::ApplyLong(const Step& step, const CudaMatrix& matrix,
                            int rows, const void* x, void* y) {
  cuda::GemmParams product = Product(matrix, rows, x, y);
  product.split_sum = step.rows_per_chunk <= split_sum_rows_;
  Note(cuda::Gemm(product, runtime_.device().limits, runtime_.stream()));
}

cuda::GemmParams CudaEncoder::Product(const CudaMatrix& matrix, int rows,
                                      const void* x, void* y) const {
  return {.type = weights_.type,
          .rows = rows,
          .in = matrix.in,
          .out = matrix.out,
          .x = x,
          .x_stride = matrix.in,
          .w = matrix.w,
          .bias = matrix.bias,
          .y = y,
          .y_stride = matrix.out};
}

void CudaEncoder::AddAndNormalize(const CudaMatrix& matrix,
                                  const CudaNorm& norm, const Chunk& chunk,
                                  const void* y, std::byte* update) {
  Note(cuda::GemmNorm({.type = weights_.type,
                       .rows = chunk.rows,
                       .in = matrix.in,
                       .hidden = shape_.hidden,
                       .y = y,
                       .y_stride = matrix.in,
                       .w = matrix.w,
                       .bias = matrix.bias,
                       .gamma = norm.gamma,
                       .beta = norm.beta,
                       .eps = weights_.norm_eps,
                       .x = chunk.x,
                       .update = As<float>(update)},
                      runtime_.device().limits, runtime_.stream()));
}

std::byte* CudaEncoder::At(const Buffer* buffer) const {
  return buffer == nullptr ? nullptr : arena_ + buffer->offset;
}

std::byte* CudaEncoder::HiddenRow(int row) const {
  return hidden_ + int64_t{1} * row * shape_.hidden * kElement;
}

float CudaEncoder::Scale() const {
  return 1.0f / std::sqrt(static_cast<float>(shape_.head_dim));
}

// After an error the step's other kernels are still tried; the first error is
// the one that is told.
void CudaEncoder::Note(cudaError_t launched) {
  const cudaError_t error = runtime_.Launched(launched);
  if (error_ == cudaSuccess) error_ = error;
}

}  // namespace svdserve
