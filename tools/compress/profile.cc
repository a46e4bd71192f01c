#include "tools/compress/profile.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tools/compress/head_reduction.h"
#include "tools/compress/metrics.h"
#include "tools/compress/moments.h"
#include "tools/compress/whitened.h"

namespace svdserve {
namespace {

constexpr int kStep = 16;
// A sample is too small to believe more.
constexpr double kLeastPower = 0.5;
constexpr double kMostPower = 2;

// Down to a whole step, where there is one.
int WholeSteps(int rank) {
  return std::max(1, rank < kStep ? rank : rank / kStep * kStep);
}

// The ranks with about half and a quarter of the parameters.
std::vector<int> RanksToMeasure(const Linear& linear) {
  const int half =
      WholeSteps(linear.in * linear.out / (linear.in + linear.out) / 2);
  const int quarter = WholeSteps(half / 2);
  return quarter < half ? std::vector<int>{half, quarter}
                        : std::vector<int>{half};
}

// Multiples of 16: about half of the heads' width, and half of that; none if
// heads are too narrow.
std::vector<int> WidthsToMeasure(int head_dim) {
  if (head_dim <= kStep) return {};
  const int half = (head_dim / 2 + kStep - 1) / kStep * kStep;
  const int quarter = half / 2 / kStep * kStep;
  return quarter > 0 ? std::vector<int>{half, quarter} : std::vector<int>{half};
}

std::vector<double> LostByRank(const std::vector<double>& energies) {
  std::vector<double> lost(energies.size() + 1);
  double tail = 0;
  for (size_t r = energies.size(); r > 0; --r) {
    tail += energies[r - 1];
    lost[r - 1] = tail;
  }
  for (double& share : lost) share = tail > 0 ? share / tail : 0;
  return lost;
}

absl::Status Put(const AffineMap& map, Linear* linear) {
  absl::StatusOr<Linear> made = ToLinear(map);
  if (!made.ok()) return made.status();
  *linear = *std::move(made);
  return absl::OkStatus();
}

// The moments of one layer of the dense encoder.
struct LayerMoments {
  Moments attention_input, context, ffn_input;
  Moments output;                  // of the feed-forward's second matrix
  std::vector<double> inner_mean;  // [intermediate]
};

// The dense encoder, packed, and the states of the sample in front of the layer
// that is looked at.
class Profiler {
 public:
  Profiler(const Model& model, const TokenBatch& sample, kernels::Team& team)
      : model_(model), sample_(sample), team_(team) {}

  absl::Status Pack();
  // Takes layer `index`: advances `states` of the calibration batches.
  absl::StatusOr<LayerProfile> Profile(int index,
                                       const std::vector<TokenBatch>& batches,
                                       bool heads,
                                       std::vector<FloatMatrix>* states);

 private:
  absl::StatusOr<LayerMoments> SumMoments(
      int index, const std::vector<TokenBatch>& batches,
      std::vector<FloatMatrix>* states);
  absl::Status ProfileMatrices(int index, const LayerMoments& moments,
                               LayerProfile* profile);
  absl::Status ProfileQueryKey(int index, const LayerMoments& moments,
                               LossCurve* curve);
  absl::Status ProfileValueOutput(int index, const LayerMoments& moments,
                                  LossCurve* curve);
  // Of the sample, with `changed` in place of layer `index`.
  absl::StatusOr<double> ErrorWith(int index, const EncoderLayer& changed);
  // Lays the curve, whose losses are set, through the errors at `sizes`, ranks
  // or widths. `change` makes the layer of a size.
  using Change = std::function<absl::Status(int size, EncoderLayer* layer)>;
  absl::Status MeasureAt(const std::vector<int>& sizes, int index,
                         const Change& change, LossCurve* curve);
  absl::Status Measure(int index, const EncoderLayer& dense,
                       Linear EncoderLayer::*which, const WhitenedFit& fit,
                       LossCurve* curve);

  const Model& model_;
  const TokenBatch& sample_;
  kernels::Team& team_;
  std::vector<ForwardLayer> layers_;
  FloatMatrix sample_states_;
  FloatMatrix sample_rows_;  // of the dense encoder
};

absl::Status Profiler::Pack() {
  absl::StatusOr<FloatMatrix> x = EmbedTokens(model_, sample_, team_);
  if (!x.ok()) return x.status();
  sample_states_ = x->Copy();
  for (const EncoderLayer& layer : model_.layers) {
    auto forward = ForwardLayer::Create(model_, layer, team_);
    if (!forward.ok()) return forward.status();
    layers_.push_back(*std::move(forward));
    x = layers_.back().Run(sample_, *std::move(x), team_, nullptr);
    if (!x.ok()) return x.status();
  }
  auto rows = PoolStates(model_, sample_, *x, team_);
  if (!rows.ok()) return rows.status();
  sample_rows_ = *std::move(rows);
  return absl::OkStatus();
}

absl::StatusOr<LayerMoments> Profiler::SumMoments(
    int index, const std::vector<TokenBatch>& batches,
    std::vector<FloatMatrix>* states) {
  const EncoderLayer& layer = model_.layers[index];
  const int hidden = model_.shape.hidden;
  auto output = ForwardLinear::Create(layer.attention_output,
                                      kernels::Activation::kNone, team_);
  if (!output.ok()) return output.status();
  auto ffn_out =
      ForwardLinear::Create(layer.ffn_out, kernels::Activation::kNone, team_);
  if (!ffn_out.ok()) return ffn_out.status();
  MomentsSum attention_input(hidden, 0);
  MomentsSum context(layer.attention_output.in, hidden);
  MomentsSum ffn_input(hidden, 0);
  MomentsSum ffn_output(hidden, 0);
  LayerMoments moments;
  moments.inner_mean.resize(layer.ffn_out.in);
  for (size_t b = 0; b < batches.size(); ++b) {
    LayerTaps taps;
    auto next =
        layers_[index].Run(batches[b], std::move((*states)[b]), team_, &taps);
    if (!next.ok()) return next.status();
    (*states)[b] = *std::move(next);
    attention_input.Add(taps.attention_input, team_);
    auto update = output->Run(taps.context, team_);
    if (!update.ok()) return update.status();
    context.Add(taps.context, *update, team_);
    ffn_input.Add(taps.ffn_input, team_);
    update = ffn_out->Run(taps.inner, team_);
    if (!update.ok()) return update.status();
    ffn_output.Add(*update, team_);
    for (int i = 0; i < taps.inner.rows(); ++i) {
      for (int j = 0; j < taps.inner.width(); ++j) {
        moments.inner_mean[j] += taps.inner.row(i)[j];
      }
    }
  }
  const auto rows = static_cast<double>(ffn_output.rows());
  for (double& value : moments.inner_mean) value /= rows;
  moments.attention_input = std::move(attention_input).Finish();
  moments.context = std::move(context).Finish();
  moments.ffn_input = std::move(ffn_input).Finish();
  moments.output = std::move(ffn_output).Finish();
  return moments;
}

absl::StatusOr<double> Profiler::ErrorWith(int index,
                                           const EncoderLayer& changed) {
  auto layer = ForwardLayer::Create(model_, changed, team_);
  if (!layer.ok()) return layer.status();
  auto x = layer->Run(sample_, sample_states_.Copy(), team_, nullptr);
  for (size_t l = index + 1; x.ok() && l < layers_.size(); ++l) {
    x = layers_[l].Run(sample_, *std::move(x), team_, nullptr);
  }
  if (!x.ok()) return x.status();
  auto rows = PoolStates(model_, sample_, *x, team_);
  if (!rows.ok()) return rows.status();
  double error = 0;
  for (int i = 0; i < rows->rows(); ++i) {
    error += CosineError(sample_rows_, *rows, i);
  }
  return error / rows->rows();
}

absl::Status Profiler::MeasureAt(const std::vector<int>& sizes, int index,
                                 const Change& change, LossCurve* curve) {
  std::vector<MeasuredError> measured;
  EncoderLayer changed = model_.layers[index];
  for (const int size : sizes) {
    if (absl::Status s = change(size, &changed); !s.ok()) return s;
    const absl::StatusOr<double> error = ErrorWith(index, changed);
    if (!error.ok()) return error.status();
    measured.push_back({size, *error});
  }
  FitCurve(measured, curve);
  return absl::OkStatus();
}

absl::Status Profiler::Measure(int index, const EncoderLayer& dense,
                               Linear EncoderLayer::*which,
                               const WhitenedFit& fit, LossCurve* curve) {
  curve->lost = LostByRank(fit.energies);
  const auto change = [&](int rank, EncoderLayer* layer) {
    return Put(fit.Truncate(rank), &(layer->*which));
  };
  return MeasureAt(RanksToMeasure(dense.*which), index, change, curve);
}

absl::Status Profiler::ProfileMatrices(int index, const LayerMoments& moments,
                                       LayerProfile* profile) {
  const EncoderLayer& layer = model_.layers[index];
  const int heads = model_.shape.heads;
  const Moments& inputs = moments.attention_input;
  const DoubleMatrix query_metric = QueryMetric(inputs, layer, heads, team_);
  const DoubleMatrix key_metric = KeyMetric(inputs, layer, heads, team_);
  const DoubleMatrix value_metric = ValueMetric(layer, heads, team_);
  const struct {
    MatrixKind kind;
    Linear EncoderLayer::*which;
    const Moments& inputs;
    const DoubleMatrix* metric;
  } readers[] = {
      {MatrixKind::kQuery, &EncoderLayer::query, inputs, &query_metric},
      {MatrixKind::kKey, &EncoderLayer::key, inputs, &key_metric},
      {MatrixKind::kValue, &EncoderLayer::value, inputs, &value_metric},
      {MatrixKind::kFfnIn, &EncoderLayer::ffn_in, moments.ffn_input, nullptr}};
  for (const auto& reader : readers) {
    const Linear& linear = layer.*reader.which;
    const DoubleMatrix w = WeightOf(linear);
    // On its own inputs the energy does not matter.
    auto fit =
        FitWhitened(ThroughMatrix(reader.inputs, w, BiasOf(linear), 1, team_),
                    w, reader.metric, team_);
    if (!fit.ok()) return fit.status();
    absl::Status status =
        Measure(index, layer, reader.which, *fit,
                &profile->matrices[static_cast<int>(reader.kind)]);
    if (!status.ok()) return status;
  }
  auto output = FitWhitened(moments.context, WeightOf(layer.attention_output),
                            nullptr, team_);
  if (!output.ok()) return output.status();
  absl::Status status = Measure(
      index, layer, &EncoderLayer::attention_output, *output,
      &profile->matrices[static_cast<int>(MatrixKind::kAttentionOutput)]);
  if (!status.ok()) return status;
  auto ffn_out = FitOutputs(WeightOf(layer.ffn_out), moments.inner_mean,
                            moments.output, team_);
  if (!ffn_out.ok()) return ffn_out.status();
  return Measure(index, layer, &EncoderLayer::ffn_out, *ffn_out,
                 &profile->matrices[static_cast<int>(MatrixKind::kFfnOut)]);
}

absl::Status Profiler::ProfileQueryKey(int index, const LayerMoments& moments,
                                       LossCurve* curve) {
  const EncoderLayer& layer = model_.layers[index];
  const AffineMap query = {WeightOf(layer.query), {}, BiasOf(layer.query)};
  const AffineMap key = {WeightOf(layer.key), {}, BiasOf(layer.key)};
  auto products = QueryKeyReduction::Create(moments.attention_input, query, key,
                                            model_.shape.heads, team_);
  if (!products.ok()) return products.status();
  curve->lost = products->LostByWidth();
  const auto change = [&](int width, EncoderLayer* changed) {
    AffineMap narrow_query;
    AffineMap narrow_key;
    products->Reduce(width, &narrow_query, &narrow_key);
    absl::Status status = Put(narrow_query, &changed->query);
    status.Update(Put(narrow_key, &changed->key));
    return status;
  };
  return MeasureAt(WidthsToMeasure(model_.shape.head_dim), index, change,
                   curve);
}

absl::Status Profiler::ProfileValueOutput(int index,
                                          const LayerMoments& moments,
                                          LossCurve* curve) {
  const EncoderLayer& layer = model_.layers[index];
  const DoubleMatrix prior = WeightOf(layer.attention_output);
  auto outputs = ValueOutputReduction::Create(moments.context, prior,
                                              model_.shape.heads, team_);
  if (!outputs.ok()) return outputs.status();
  curve->lost = outputs->LostByWidth();
  const auto change = [&](int width, EncoderLayer* changed) {
    AffineMap value = {WeightOf(layer.value), {}, BiasOf(layer.value)};
    AffineMap output;
    absl::Status status = outputs->Reduce(width, team_, &value, &output);
    if (!status.ok()) return status;
    status = Put(value, &changed->value);
    status.Update(Put(output, &changed->attention_output));
    return status;
  };
  return MeasureAt(WidthsToMeasure(model_.shape.head_dim), index, change,
                   curve);
}

absl::StatusOr<LayerProfile> Profiler::Profile(
    int index, const std::vector<TokenBatch>& batches, bool heads,
    std::vector<FloatMatrix>* states) {
  absl::StatusOr<LayerMoments> moments = SumMoments(index, batches, states);
  if (!moments.ok()) return moments.status();
  for (const Moments* sums : {&moments->attention_input, &moments->context,
                              &moments->ffn_input, &moments->output}) {
    if (std::isfinite(Trace(sums->xx))) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", index,
                     ": activations on the calibration text are not finite; "
                     "the model's weights are too large"));
  }
  LayerProfile profile;
  absl::Status status = ProfileMatrices(index, *moments, &profile);
  if (!status.ok()) return status;
  if (heads && !WidthsToMeasure(model_.shape.head_dim).empty()) {
    status = ProfileQueryKey(index, *moments, &profile.query_key);
    if (!status.ok()) return status;
    status = ProfileValueOutput(index, *moments, &profile.value_output);
    if (!status.ok()) return status;
  }
  auto next =
      layers_[index].Run(sample_, std::move(sample_states_), team_, nullptr);
  if (!next.ok()) return next.status();
  sample_states_ = *std::move(next);
  return profile;
}

}  // namespace

double LossCurve::At(int rank) const {
  return rank == 0 ? 0 : scale * std::pow(lost[rank], power);
}

void FitCurve(const std::vector<MeasuredError>& measured, LossCurve* curve) {
  const MeasuredError& first = measured.front();
  const double share = curve->lost[first.rank];
  if (share <= 0) return;  // nothing is ever lost
  if (measured.size() > 1) {
    const MeasuredError& second = measured[1];
    const double other = curve->lost[second.rank];
    if (first.error > 0 && second.error > 0 && other > share) {
      curve->power = std::clamp(
          std::log(second.error / first.error) / std::log(other / share),
          kLeastPower, kMostPower);
    }
  }
  curve->scale = first.error / std::pow(share, curve->power);
}

double CosineError(const FloatMatrix& a, const FloatMatrix& b, int i) {
  double aa = 0;
  double bb = 0;
  double ab = 0;
  for (int j = 0; j < a.width(); ++j) {
    const double x = a.row(i)[j];
    const double y = b.row(i)[j];
    aa += x * x;
    bb += y * y;
    ab += x * y;
  }
  return 1 - (aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0);
}

absl::StatusOr<std::vector<LayerProfile>> ProfileEncoder(
    const Model& model, const std::vector<TokenBatch>& calibration,
    const TokenBatch& sample, bool heads,
    const std::function<bool(int layer)>& done, kernels::Team& team) {
  Profiler profiler(model, sample, team);
  if (absl::Status s = profiler.Pack(); !s.ok()) return s;
  std::vector<FloatMatrix> states;
  for (const TokenBatch& batch : calibration) {
    absl::StatusOr<FloatMatrix> embedded = EmbedTokens(model, batch, team);
    if (!embedded.ok()) return embedded.status();
    states.push_back(*std::move(embedded));
  }
  std::vector<LayerProfile> profiles;
  for (int l = 0; l < model.layers.size(); ++l) {
    auto profile = profiler.Profile(l, calibration, heads, &states);
    if (!profile.ok()) return profile.status();
    profiles.push_back(*std::move(profile));
    if (done && !done(l)) {
      return absl::CancelledError("interrupted; nothing was written");
    }
  }
  return profiles;
}

}  // namespace svdserve
