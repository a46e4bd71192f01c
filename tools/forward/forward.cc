#include "tools/forward/forward.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "kernels/attention.h"
#include "kernels/embed.h"
#include "kernels/layer_norm.h"
#include "kernels/normalize.h"
#include "kernels/pool.h"

namespace svdserve {
namespace {

using kernels::KernelStatus;
using Floats = std::vector<float>;

// Rows of one piece of work without a matrix.
constexpr int kRows = 64;

kernels::PoolKind PoolKindOf(Pooling pooling) {
  switch (pooling) {
    case Pooling::kMean:
      return kernels::PoolKind::kMean;
    case Pooling::kCls:
      return kernels::PoolKind::kCls;
    case Pooling::kMax:
      return kernels::PoolKind::kMax;
  }
  return kernels::PoolKind::kMean;
}

kernels::Activation HeadKernelActivation(HeadActivation activation) {
  switch (activation) {
    case HeadActivation::kIdentity:
      return kernels::Activation::kNone;
    case HeadActivation::kTanh:
      return kernels::Activation::kTanh;
    case HeadActivation::kRelu:
      return kernels::Activation::kRelu;
    case HeadActivation::kGelu:
      return kernels::Activation::kGelu;
  }
  return kernels::Activation::kNone;
}

}  // namespace

void TokenBatch::Add(const Encoding& encoding) {
  ids.insert(ids.end(), encoding.ids.begin(), encoding.ids.end());
  type_ids.insert(type_ids.end(), encoding.type_ids.begin(),
                  encoding.type_ids.end());
  offsets.push_back(tokens());
}

absl::StatusOr<FloatMatrix> EmbedTokens(const Model& model,
                                        const TokenBatch& batch,
                                        kernels::Team& team) {
  const ModelShape& shape = model.shape;
  const Floats word = model.embeddings.word.ToF32();
  const Floats position = model.embeddings.position.ToF32();
  const Floats type = model.embeddings.token_type.ToF32();
  const Floats gamma = model.embeddings.norm.gamma.ToF32();
  const Floats beta = model.embeddings.norm.beta.ToF32();
  FloatMatrix states(batch.tokens(), shape.hidden);
  std::atomic<bool> outside{false};
  team.ParallelFor(batch.sequences(), [&](int, int sequence) {
    const int first = batch.offsets[sequence];
    const KernelStatus status =
        kernels::Embed({.tokens = batch.offsets[sequence + 1] - first,
                        .width = shape.hidden,
                        .ids = &batch.ids[first],
                        .types = &batch.type_ids[first],
                        .word = word.data(),
                        .position = position.data(),
                        .type = type.data(),
                        .vocab = shape.vocab,
                        .max_positions = shape.max_positions,
                        .type_vocab = shape.type_vocab,
                        .gamma = gamma.data(),
                        .beta = beta.data(),
                        .eps = model.config.layer_norm_eps,
                        .y = states.row(first),
                        .y_stride = shape.hidden});
    if (status != KernelStatus::kOk) outside = true;
  });
  if (outside) {
    return absl::InvalidArgumentError(
        "a token's id, type or position is outside the model's tables");
  }
  return states;
}

// ---- Attention ----

ForwardAttention::ForwardAttention(ForwardLinear query, ForwardLinear key,
                                   ForwardLinear value)
    : query_(std::move(query)),
      key_(std::move(key)),
      value_(std::move(value)) {}

absl::StatusOr<ForwardAttention> ForwardAttention::Create(
    const ModelShape& shape, const EncoderLayer& layer,
    const kernels::Team& team) {
  constexpr kernels::Activation kNone = kernels::Activation::kNone;
  auto query = ForwardLinear::Create(layer.query, kNone, team);
  if (!query.ok()) return query.status();
  auto key = ForwardLinear::Create(layer.key, kNone, team);
  if (!key.ok()) return key.status();
  auto value = ForwardLinear::Create(layer.value, kNone, team);
  if (!value.ok()) return value.status();
  ForwardAttention attention(*std::move(query), *std::move(key),
                             *std::move(value));
  attention.heads_ = shape.heads;
  attention.query_dim_ = layer.query.out / shape.heads;
  attention.value_dim_ = layer.value.out / shape.heads;
  attention.scale_ = 1.0F / std::sqrt(static_cast<float>(shape.head_dim));
  return attention;
}

absl::StatusOr<FloatMatrix> ForwardAttention::Run(const TokenBatch& batch,
                                                  const FloatMatrix& x,
                                                  kernels::Team& team) const {
  absl::StatusOr<FloatMatrix> q = query_.Run(x, team);
  if (!q.ok()) return q;
  absl::StatusOr<FloatMatrix> k = key_.Run(x, team);
  if (!k.ok()) return k;
  absl::StatusOr<FloatMatrix> v = value_.Run(x, team);
  if (!v.ok()) return v;
  FloatMatrix context(x.rows(), v->width());
  const int scratch_floats = static_cast<int>(
      kernels::AttentionScratchBytes(query_dim_, value_dim_) / sizeof(float));
  FloatMatrix scratch(team.size(), (scratch_floats + 15) / 16 * 16);
  std::atomic<KernelStatus> error{KernelStatus::kOk};
  team.ParallelFor(batch.sequences() * heads_, [&](int worker, int index) {
    const int sequence = index / heads_;
    const int column = index % heads_ * query_dim_;
    const int value_column = index % heads_ * value_dim_;
    const int first = batch.offsets[sequence];
    const int length = batch.offsets[sequence + 1] - first;
    const KernelStatus status =
        kernels::Attention({.queries = length,
                            .keys = length,
                            .qk_dim = query_dim_,
                            .v_dim = value_dim_,
                            .q = q->row(first) + column,
                            .k = k->row(first) + column,
                            .v = v->row(first) + value_column,
                            .out = context.row(first) + value_column,
                            .q_stride = q->width(),
                            .k_stride = k->width(),
                            .v_stride = v->width(),
                            .out_stride = context.width(),
                            .scale = scale_},
                           scratch.row(worker));
    if (status != KernelStatus::kOk) error = status;
  });
  if (error != KernelStatus::kOk) return KernelError("attention", error);
  return context;
}

// ---- A layer ----

kernels::Activation FeedForwardActivation(const ModelShape& shape) {
  switch (shape.activation) {
    case Activation::kGelu:
      return kernels::Activation::kGelu;
    case Activation::kGeluTanh:
      return kernels::Activation::kGeluTanh;
    case Activation::kRelu:
      return kernels::Activation::kRelu;
  }
  return kernels::Activation::kNone;
}

absl::Status AddAndNormalize(const LayerNorm& norm, float eps,
                             const FloatMatrix& update, FloatMatrix* x,
                             kernels::Team& team) {
  const Floats gamma = norm.gamma.ToF32();
  const Floats beta = norm.beta.ToF32();
  std::atomic<KernelStatus> error{KernelStatus::kOk};
  const int pieces = (x->rows() + kRows - 1) / kRows;
  team.ParallelFor(pieces, [&](int, int piece) {
    const int first = piece * kRows;
    const KernelStatus status =
        kernels::ResidualLayerNorm({.rows = std::min(kRows, x->rows() - first),
                                    .width = x->width(),
                                    .x = update.row(first),
                                    .residual = x->row(first),
                                    .y = x->row(first),
                                    .x_stride = x->width(),
                                    .residual_stride = x->width(),
                                    .y_stride = x->width(),
                                    .gamma = gamma.data(),
                                    .beta = beta.data(),
                                    .eps = eps});
    if (status != KernelStatus::kOk) error = status;
  });
  return KernelError("layer_norm", error);
}

ForwardLayer::ForwardLayer(ForwardAttention attention,
                           ForwardLinear attention_output, ForwardLinear ffn_in,
                           ForwardLinear ffn_out)
    : attention_(std::move(attention)),
      attention_output_(std::move(attention_output)),
      ffn_in_(std::move(ffn_in)),
      ffn_out_(std::move(ffn_out)) {}

absl::StatusOr<ForwardLayer> ForwardLayer::Create(const Model& model,
                                                  const EncoderLayer& layer,
                                                  const kernels::Team& team) {
  auto attention = ForwardAttention::Create(model.shape, layer, team);
  if (!attention.ok()) return attention.status();
  constexpr kernels::Activation kNone = kernels::Activation::kNone;
  auto output = ForwardLinear::Create(layer.attention_output, kNone, team);
  if (!output.ok()) return output.status();
  auto ffn_in = ForwardLinear::Create(layer.ffn_in,
                                      FeedForwardActivation(model.shape), team);
  if (!ffn_in.ok()) return ffn_in.status();
  auto ffn_out = ForwardLinear::Create(layer.ffn_out, kNone, team);
  if (!ffn_out.ok()) return ffn_out.status();
  ForwardLayer forward(*std::move(attention), *std::move(output),
                       *std::move(ffn_in), *std::move(ffn_out));
  forward.attention_norm_ = layer.attention_norm;
  forward.ffn_norm_ = layer.ffn_norm;
  forward.eps_ = model.config.layer_norm_eps;
  return forward;
}

absl::StatusOr<FloatMatrix> ForwardLayer::Run(const TokenBatch& batch,
                                              FloatMatrix x,
                                              kernels::Team& team,
                                              LayerTaps* taps) const {
  absl::StatusOr<FloatMatrix> context = attention_.Run(batch, x, team);
  if (!context.ok()) return context;
  absl::StatusOr<FloatMatrix> update = attention_output_.Run(*context, team);
  if (!update.ok()) return update;
  if (taps != nullptr) {
    taps->attention_input = x.Copy();
    taps->context = *std::move(context);
  }
  absl::Status status =
      AddAndNormalize(attention_norm_, eps_, *update, &x, team);
  if (!status.ok()) return status;

  absl::StatusOr<FloatMatrix> inner = ffn_in_.Run(x, team);
  if (!inner.ok()) return inner;
  update = ffn_out_.Run(*inner, team);
  if (!update.ok()) return update;
  if (taps != nullptr) {
    taps->ffn_input = x.Copy();
    taps->inner = *std::move(inner);
  }
  status = AddAndNormalize(ffn_norm_, eps_, *update, &x, team);
  if (!status.ok()) return status;
  return x;
}

// ---- Outputs ----

absl::StatusOr<FloatMatrix> PoolStates(const Model& model,
                                       const TokenBatch& batch,
                                       const FloatMatrix& states,
                                       kernels::Team& team) {
  FloatMatrix rows(batch.sequences(), states.width());
  std::atomic<KernelStatus> error{KernelStatus::kOk};
  team.ParallelFor(batch.sequences(), [&](int, int sequence) {
    const int first = batch.offsets[sequence];
    const KernelStatus status =
        kernels::Pool({.kind = PoolKindOf(model.config.pooling),
                       .rows = batch.offsets[sequence + 1] - first,
                       .width = states.width(),
                       .x = states.row(first),
                       .x_stride = states.width(),
                       .y = rows.row(sequence)});
    if (status != KernelStatus::kOk) error = status;
  });
  if (error != KernelStatus::kOk) return KernelError("pool", error);
  return rows;
}

absl::StatusOr<FloatMatrix> OutputRows(const Model& model,
                                       const TokenBatch& batch,
                                       const FloatMatrix& states,
                                       kernels::Team& team) {
  absl::StatusOr<FloatMatrix> pooled = PoolStates(model, batch, states, team);
  if (!pooled.ok()) return pooled;
  FloatMatrix rows = *std::move(pooled);
  for (const HeadLayer& head : model.head) {
    auto linear = ForwardLinear::Create(
        head.linear, HeadKernelActivation(head.activation), team);
    if (!linear.ok()) return linear.status();
    absl::StatusOr<FloatMatrix> next = linear->Run(rows, team);
    if (!next.ok()) return next;
    rows = *std::move(next);
  }
  if (model.config.normalize) {
    for (int i = 0; i < rows.rows(); ++i) {
      kernels::Normalize(rows.row(i), rows.width());
    }
  }
  return rows;
}

}  // namespace svdserve
