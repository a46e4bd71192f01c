#include "tools/compress/encoder_compression.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "tools/compress/factoring.h"
#include "tools/compress/head_reduction.h"
#include "tools/compress/metrics.h"
#include "tools/compress/moments.h"
#include "tools/compress/profile.h"
#include "tools/compress/whitened.h"

namespace svdserve {
namespace {

// How much of what the residual stream lost the last matrix of a half-layer is
// asked to make good. None is clearly worse; half and all differ little
// (README.md).
constexpr float kResidualShare = 0.5F;
// Rows over which the slopes of the activation are averaged.
constexpr int kSlopeRows = 1024;

// target += share * (dense - ours)
void AddLostResidual(const FloatMatrix& dense, const FloatMatrix& ours,
                     FloatMatrix* target) {
  for (int64_t i = 0; i < target->size(); ++i) {
    target->data()[i] += kResidualShare * (dense.data()[i] - ours.data()[i]);
  }
}

FloatMatrix FirstRows(const FloatMatrix& x, int rows) {
  FloatMatrix first(std::min(rows, x.rows()), x.width());
  std::copy_n(x.data(), first.size(), first.data());
  return first;
}

// One layer on its way, with the states of the dense and of the compressed
// encoder in front of it.
class LayerCompressor {
 public:
  LayerCompressor(const Model& model, const EncoderLayer& dense,
                  const LayerForm& form, const std::vector<TokenBatch>& batches,
                  std::vector<FloatMatrix>* dense_states,
                  std::vector<FloatMatrix>* states, kernels::Team& team)
      : model_(model),
        dense_(dense),
        form_(form),
        batches_(batches),
        dense_states_(*dense_states),
        states_(*states),
        team_(team) {
    result_.layer = dense;
  }

  absl::StatusOr<CompressedLayer> Run() && {
    if (absl::Status s = Attention(); !s.ok()) return s;
    if (absl::Status s = FeedForward(); !s.ok()) return s;
    return std::move(result_);
  }

 private:
  // Moments of this half's inputs with those of the dense encoder.
  struct Inputs {
    Moments both;   // compressed with dense
    Moments dense;  // dense with itself
  };
  Inputs SumInputs();
  absl::StatusOr<WhitenedFit> Fit(const Inputs& inputs, const Linear& linear,
                                  const DoubleMatrix* metric, Moments* moments);
  absl::Status Keep(MatrixKind kind, const Moments& moments,
                    const AffineMap& map);
  absl::Status KeepPair(MatrixKind first, const AffineMap& first_map,
                        MatrixKind second, const AffineMap& second_map,
                        double lost);
  absl::Status NarrowQueryKey(const Moments& inputs, const AffineMap& query,
                              const AffineMap& key);
  absl::Status NarrowValueOutput(const Moments& context,
                                 const DoubleMatrix& prior);
  int rank(MatrixKind kind) const {
    return form_.ranks[static_cast<int>(kind)];
  }

  absl::Status Attention();
  absl::Status AttentionInputs();
  absl::Status AttentionOutput();
  absl::Status FeedForward();
  absl::Status FeedForwardInputs();
  absl::Status FeedForwardOutput();
  absl::StatusOr<Moments> ContextMoments(std::vector<FloatMatrix>* contexts,
                                         std::vector<FloatMatrix>* targets);

  const Model& model_;
  const EncoderLayer& dense_;
  const LayerForm& form_;
  const std::vector<TokenBatch>& batches_;
  std::vector<FloatMatrix>& dense_states_;  // [batch] [tokens, hidden]
  std::vector<FloatMatrix>& states_;
  kernels::Team& team_;
  CompressedLayer result_;
  AffineMap value_;  // of full width, where heads are reduced
};

LayerCompressor::Inputs LayerCompressor::SumInputs() {
  const int hidden = model_.shape.hidden;
  MomentsSum both(hidden, hidden);
  MomentsSum dense(hidden, 0);
  for (size_t b = 0; b < batches_.size(); ++b) {
    both.Add(states_[b], dense_states_[b], team_);
    dense.Add(dense_states_[b], team_);
  }
  return {std::move(both).Finish(), std::move(dense).Finish()};
}

// The fit of a matrix that reads the states; `moments` are of what it reads
// and of what the dense matrix gives.
absl::StatusOr<WhitenedFit> LayerCompressor::Fit(const Inputs& inputs,
                                                 const Linear& linear,
                                                 const DoubleMatrix* metric,
                                                 Moments* moments) {
  const DoubleMatrix w = WeightOf(linear);
  const DoubleMatrix gw =
      Multiply(inputs.dense.xx, Transpose::kNo, w, Transpose::kNo, team_);
  double energy = 0;
  for (size_t i = 0; i < w.values.size(); ++i) {
    energy += w.values[i] * gw.values[i];
  }
  *moments = ThroughMatrix(inputs.both, w, BiasOf(linear), energy, team_);
  return FitWhitened(*moments, w, metric, team_);
}

absl::Status LayerCompressor::Keep(MatrixKind kind, const Moments& moments,
                                   const AffineMap& map) {
  absl::StatusOr<Linear> made = ToLinear(map);
  if (!made.ok()) return made.status();
  LinearOf(result_.layer, kind) = *std::move(made);
  result_.output_errors[static_cast<int>(kind)] =
      RelativeOutputError(moments, map, team_);
  return absl::OkStatus();
}

// Two matrices with narrower heads between them.
absl::Status LayerCompressor::KeepPair(MatrixKind first,
                                       const AffineMap& first_map,
                                       MatrixKind second,
                                       const AffineMap& second_map,
                                       double lost) {
  absl::StatusOr<Linear> a = ToLinear(first_map);
  if (!a.ok()) return a.status();
  absl::StatusOr<Linear> b = ToLinear(second_map);
  if (!b.ok()) return b.status();
  LinearOf(result_.layer, first) = *std::move(a);
  LinearOf(result_.layer, second) = *std::move(b);
  result_.output_errors[static_cast<int>(first)] = std::sqrt(lost);
  result_.output_errors[static_cast<int>(second)] = std::sqrt(lost);
  return absl::OkStatus();
}

// ---- Attention ----

absl::Status LayerCompressor::NarrowQueryKey(const Moments& inputs,
                                             const AffineMap& query,
                                             const AffineMap& key) {
  auto reduction =
      QueryKeyReduction::Create(inputs, query, key, model_.shape.heads, team_);
  if (!reduction.ok()) return reduction.status();
  AffineMap narrow_query;
  AffineMap narrow_key;
  reduction->Reduce(form_.query_dim, &narrow_query, &narrow_key);
  return KeepPair(MatrixKind::kQuery, narrow_query, MatrixKind::kKey,
                  narrow_key, reduction->LostByWidth()[form_.query_dim]);
}

absl::Status LayerCompressor::NarrowValueOutput(const Moments& context,
                                                const DoubleMatrix& prior) {
  auto reduction =
      ValueOutputReduction::Create(context, prior, model_.shape.heads, team_);
  if (!reduction.ok()) return reduction.status();
  AffineMap output;
  absl::Status status =
      reduction->Reduce(form_.value_dim, team_, &value_, &output);
  if (!status.ok()) return status;
  return KeepPair(MatrixKind::kValue, value_, MatrixKind::kAttentionOutput,
                  output, reduction->LostByWidth()[form_.value_dim]);
}

absl::Status LayerCompressor::AttentionInputs() {
  const Inputs inputs = SumInputs();
  const int heads = model_.shape.heads;
  Moments query_moments, key_moments, value_moments;
  const DoubleMatrix query_metric =
      QueryMetric(inputs.dense, dense_, heads, team_);
  const DoubleMatrix key_metric = KeyMetric(inputs.dense, dense_, heads, team_);
  auto query = Fit(inputs, dense_.query, &query_metric, &query_moments);
  if (!query.ok()) return query.status();
  auto key = Fit(inputs, dense_.key, &key_metric, &key_moments);
  if (!key.ok()) return key.status();
  if (form_.query_dim > 0) {
    absl::Status status =
        NarrowQueryKey(inputs.both, query->Truncate(0), key->Truncate(0));
    if (!status.ok()) return status;
  } else {
    absl::Status status = Keep(MatrixKind::kQuery, query_moments,
                               query->Truncate(rank(MatrixKind::kQuery)));
    if (!status.ok()) return status;
    status = Keep(MatrixKind::kKey, key_moments,
                  key->Truncate(rank(MatrixKind::kKey)));
    if (!status.ok()) return status;
  }
  const DoubleMatrix value_metric = ValueMetric(dense_, heads, team_);
  auto value = Fit(inputs, dense_.value, &value_metric, &value_moments);
  if (!value.ok()) return value.status();
  if (form_.value_dim > 0) value_ = value->Truncate(0);
  return Keep(
      MatrixKind::kValue, value_moments,
      value->Truncate(form_.value_dim > 0 ? 0 : rank(MatrixKind::kValue)));
}

// Contexts of the compressed layer, and what attention's output should be: the
// dense one, and what the residual stream lost.
absl::StatusOr<Moments> LayerCompressor::ContextMoments(
    std::vector<FloatMatrix>* contexts, std::vector<FloatMatrix>* targets) {
  auto dense = ForwardAttention::Create(model_.shape, dense_, team_);
  if (!dense.ok()) return dense.status();
  auto ours = ForwardAttention::Create(model_.shape, result_.layer, team_);
  if (!ours.ok()) return ours.status();
  auto output = ForwardLinear::Create(dense_.attention_output,
                                      kernels::Activation::kNone, team_);
  if (!output.ok()) return output.status();
  MomentsSum sum(dense_.attention_output.in, model_.shape.hidden);
  for (size_t b = 0; b < batches_.size(); ++b) {
    auto dense_context = dense->Run(batches_[b], dense_states_[b], team_);
    if (!dense_context.ok()) return dense_context.status();
    auto target = output->Run(*dense_context, team_);
    if (!target.ok()) return target.status();
    auto context = ours->Run(batches_[b], states_[b], team_);
    if (!context.ok()) return context.status();
    contexts->push_back(*std::move(context));
    targets->push_back(target->Copy());
    AddLostResidual(dense_states_[b], states_[b], &*target);
    sum.Add(contexts->back(), *target, team_);
  }
  return std::move(sum).Finish();
}

absl::Status LayerCompressor::AttentionOutput() {
  std::vector<FloatMatrix> contexts;
  std::vector<FloatMatrix> dense_updates;
  const absl::StatusOr<Moments> moments =
      ContextMoments(&contexts, &dense_updates);
  if (!moments.ok()) return moments.status();
  const DoubleMatrix prior = WeightOf(dense_.attention_output);
  if (form_.value_dim > 0) {
    absl::Status status = NarrowValueOutput(*moments, prior);
    if (!status.ok()) return status;
  } else {
    auto fit = FitWhitened(*moments, prior, nullptr, team_);
    if (!fit.ok()) return fit.status();
    absl::Status status =
        Keep(MatrixKind::kAttentionOutput, *moments,
             fit->Truncate(rank(MatrixKind::kAttentionOutput)));
    if (!status.ok()) return status;
  }
  auto attention = ForwardAttention::Create(model_.shape, result_.layer, team_);
  if (!attention.ok()) return attention.status();
  auto output = ForwardLinear::Create(result_.layer.attention_output,
                                      kernels::Activation::kNone, team_);
  if (!output.ok()) return output.status();
  const float eps = model_.config.layer_norm_eps;
  for (size_t b = 0; b < batches_.size(); ++b) {
    if (form_.value_dim > 0) {
      auto context = attention->Run(batches_[b], states_[b], team_);
      if (!context.ok()) return context.status();
      contexts[b] = *std::move(context);
    }
    auto update = output->Run(contexts[b], team_);
    if (!update.ok()) return update.status();
    absl::Status status = AddAndNormalize(dense_.attention_norm, eps, *update,
                                          &states_[b], team_);
    if (!status.ok()) return status;
    status = AddAndNormalize(dense_.attention_norm, eps, dense_updates[b],
                             &dense_states_[b], team_);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status LayerCompressor::Attention() {
  if (absl::Status s = AttentionInputs(); !s.ok()) return s;
  return AttentionOutput();
}

// ---- Feed-forward ----

absl::Status LayerCompressor::FeedForwardInputs() {
  const Inputs inputs = SumInputs();
  const absl::StatusOr<DoubleMatrix> metric =
      FfnInMetric(model_.shape, dense_,
                  FirstRows(dense_states_.front(), kSlopeRows), team_);
  if (!metric.ok()) return metric.status();
  Moments moments;
  auto fit = Fit(inputs, dense_.ffn_in, &*metric, &moments);
  if (!fit.ok()) return fit.status();
  return Keep(MatrixKind::kFfnIn, moments,
              fit->Truncate(rank(MatrixKind::kFfnIn)));
}

absl::Status LayerCompressor::FeedForwardOutput() {
  const kernels::Activation activation = FeedForwardActivation(model_.shape);
  auto dense_in = ForwardLinear::Create(dense_.ffn_in, activation, team_);
  if (!dense_in.ok()) return dense_in.status();
  auto dense_out =
      ForwardLinear::Create(dense_.ffn_out, kernels::Activation::kNone, team_);
  if (!dense_out.ok()) return dense_out.status();
  auto ours_in = ForwardLinear::Create(result_.layer.ffn_in, activation, team_);
  if (!ours_in.ok()) return ours_in.status();

  MomentsSum sum(dense_.ffn_out.in, model_.shape.hidden);
  std::vector<FloatMatrix> inners;
  const float eps = model_.config.layer_norm_eps;
  for (size_t b = 0; b < batches_.size(); ++b) {
    auto dense_inner = dense_in->Run(dense_states_[b], team_);
    if (!dense_inner.ok()) return dense_inner.status();
    auto target = dense_out->Run(*dense_inner, team_);
    if (!target.ok()) return target.status();
    auto inner = ours_in->Run(states_[b], team_);
    if (!inner.ok()) return inner.status();
    inners.push_back(*std::move(inner));
    const FloatMatrix before = dense_states_[b].Copy();
    absl::Status status = AddAndNormalize(dense_.ffn_norm, eps, *target,
                                          &dense_states_[b], team_);
    if (!status.ok()) return status;
    AddLostResidual(before, states_[b], &*target);
    sum.Add(inners.back(), *target, team_);
  }
  const Moments moments = std::move(sum).Finish();
  auto fit = FitWhitened(moments, WeightOf(dense_.ffn_out), nullptr, team_);
  if (!fit.ok()) return fit.status();
  absl::Status status = Keep(MatrixKind::kFfnOut, moments,
                             fit->Truncate(rank(MatrixKind::kFfnOut)));
  if (!status.ok()) return status;
  auto out = ForwardLinear::Create(result_.layer.ffn_out,
                                   kernels::Activation::kNone, team_);
  if (!out.ok()) return out.status();
  for (size_t b = 0; b < batches_.size(); ++b) {
    auto update = out->Run(inners[b], team_);
    if (!update.ok()) return update.status();
    status = AddAndNormalize(dense_.ffn_norm, eps, *update, &states_[b], team_);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status LayerCompressor::FeedForward() {
  if (absl::Status s = FeedForwardInputs(); !s.ok()) return s;
  return FeedForwardOutput();
}

}  // namespace

absl::StatusOr<std::vector<CompressedLayer>> CompressEncoder(
    const Model& model, const std::vector<LayerForm>& forms,
    const std::vector<TokenBatch>& calibration, const LayerDone& done,
    kernels::Team& team) {
  std::vector<FloatMatrix> dense_states;
  std::vector<FloatMatrix> states;
  for (const TokenBatch& batch : calibration) {
    absl::StatusOr<FloatMatrix> embedded = EmbedTokens(model, batch, team);
    if (!embedded.ok()) return embedded.status();
    states.push_back(embedded->Copy());
    dense_states.push_back(*std::move(embedded));
  }
  std::vector<CompressedLayer> layers;
  for (size_t l = 0; l < model.layers.size(); ++l) {
    absl::StatusOr<CompressedLayer> layer =
        LayerCompressor(model, model.layers[l], forms[l], calibration,
                        &dense_states, &states, team)
            .Run();
    if (!layer.ok()) return layer.status();
    layers.push_back(*std::move(layer));
    if (done && !done(static_cast<int>(l))) {
      return absl::CancelledError("interrupted; nothing was written");
    }
  }
  return layers;
}

absl::StatusOr<std::vector<double>> EmbeddingErrors(
    const Model& model, const std::vector<CompressedLayer>& layers,
    const std::vector<TokenBatch>& batches, kernels::Team& team) {
  std::vector<double> errors;
  for (const TokenBatch& batch : batches) {
    absl::StatusOr<FloatMatrix> dense = EmbedTokens(model, batch, team);
    if (!dense.ok()) return dense.status();
    absl::StatusOr<FloatMatrix> ours = dense->Copy();
    for (size_t l = 0; l < layers.size(); ++l) {
      auto dense_layer = ForwardLayer::Create(model, model.layers[l], team);
      if (!dense_layer.ok()) return dense_layer.status();
      dense = dense_layer->Run(batch, *std::move(dense), team, nullptr);
      if (!dense.ok()) return dense.status();
      auto layer = ForwardLayer::Create(model, layers[l].layer, team);
      if (!layer.ok()) return layer.status();
      ours = layer->Run(batch, *std::move(ours), team, nullptr);
      if (!ours.ok()) return ours.status();
    }
    absl::StatusOr<FloatMatrix> a = PoolStates(model, batch, *dense, team);
    if (!a.ok()) return a.status();
    absl::StatusOr<FloatMatrix> b = PoolStates(model, batch, *ours, team);
    if (!b.ok()) return b.status();
    for (int i = 0; i < a->rows(); ++i) {
      errors.push_back(CosineError(*a, *b, i));
    }
  }
  return errors;
}

}  // namespace svdserve
