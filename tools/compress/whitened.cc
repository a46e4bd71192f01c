#include "tools/compress/whitened.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/status/status.h"

namespace svdserve {
namespace {

// Of the mean variance of an input, for inputs that hardly vary.
constexpr double kRidge = 1e-4;

DoubleMatrix FirstColumns(const DoubleMatrix& a, int count) {
  return Block(a, 0, 0, a.rows, count);
}

double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// x [1, rows] times a.
std::vector<double> RowTimes(const std::vector<double>& x,
                             const DoubleMatrix& a) {
  std::vector<double> y(a.cols);
  for (int i = 0; i < a.rows; ++i) {
    for (int j = 0; j < a.cols; ++j) y[j] += x[i] * a.row(i)[j];
  }
  return y;
}

// Directions from the inputs' side: eigenvectors P of S·M·Sᵀ, S = Lᵀ·W*.
absl::Status FromInputs(const DoubleMatrix& lower, const DoubleMatrix& s,
                        const DoubleMatrix* metric, kernels::Team& team,
                        WhitenedFit* fit) {
  const DoubleMatrix weighted =
      metric == nullptr
          ? s
          : Multiply(s, Transpose::kNo, *metric, Transpose::kNo, team);
  absl::StatusOr<Eigen> eigen = SymmetricEigen(
      Multiply(weighted, Transpose::kNo, s, Transpose::kYes, team));
  if (!eigen.ok()) return eigen.status();
  fit->energies = std::move(eigen->values);
  fit->right =
      Multiply(eigen->vectors, Transpose::kYes, s, Transpose::kNo, team);
  fit->left = std::move(eigen->vectors);
  SolveLower(lower, Transpose::kYes, &fit->left, team);
  return absl::OkStatus();
}

// The same from the outputs' side, where there are fewer: eigenvectors of SᵀS.
absl::Status FromOutputs(const DoubleMatrix& s, kernels::Team& team,
                         WhitenedFit* fit) {
  absl::StatusOr<Eigen> eigen =
      SymmetricEigen(Multiply(s, Transpose::kYes, s, Transpose::kNo, team));
  if (!eigen.ok()) return eigen.status();
  fit->energies = std::move(eigen->values);
  fit->left =
      Multiply(fit->best, Transpose::kNo, eigen->vectors, Transpose::kNo, team);
  fit->right = Transposed(eigen->vectors);
  return absl::OkStatus();
}

std::vector<float> ToFloats(const DoubleMatrix& a) {
  return {a.values.begin(), a.values.end()};
}

bool AllFinite(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(),
                     [](float value) { return std::isfinite(value); });
}

// Both factors of a direction get the same norm, so that neither loses more
// than the other to a narrow type.
void Balance(DoubleMatrix* u, DoubleMatrix* v) {
  for (int r = 0; r < v->rows; ++r) {
    double left = 0;
    double right = 0;
    for (int i = 0; i < u->rows; ++i) left += u->row(i)[r] * u->row(i)[r];
    for (int j = 0; j < v->cols; ++j) right += v->row(r)[j] * v->row(r)[j];
    if (left <= 0 || right <= 0) continue;
    const double scale = std::pow(right / left, 0.25);
    for (int i = 0; i < u->rows; ++i) u->row(i)[r] *= scale;
    for (int j = 0; j < v->cols; ++j) v->row(r)[j] /= scale;
  }
}

}  // namespace

absl::StatusOr<WhitenedFit> FitWhitened(const Moments& moments,
                                        const DoubleMatrix& prior,
                                        const DoubleMatrix* metric,
                                        kernels::Team& team, double shrinkage) {
  const int in = moments.xx.rows;
  double ridge = kRidge * Trace(moments.xx) / in;
  if (!std::isfinite(ridge)) {
    return absl::InvalidArgumentError(
        "activations on the calibration text are not finite");
  }
  if (ridge <= 0) ridge = 1;  // constant inputs say nothing: the prior
  DoubleMatrix g = moments.xx;
  DoubleMatrix s = moments.xt;
  for (int i = 0; i < in; ++i) {
    const double more = shrinkage * g.row(i)[i] + ridge;
    g.row(i)[i] += more;
    for (int j = 0; j < s.cols; ++j) s.row(i)[j] += more * prior.row(i)[j];
  }
  const absl::StatusOr<DoubleMatrix> lower = Cholesky(std::move(g));
  if (!lower.ok()) return lower.status();
  SolveLower(*lower, Transpose::kNo, &s, team);  // L⁻¹·C = Lᵀ·W*

  WhitenedFit fit;
  fit.mean_x = moments.mean_x;
  fit.mean_t = moments.mean_t;
  fit.best = s;
  SolveLower(*lower, Transpose::kYes, &fit.best, team);
  const bool from_outputs = metric == nullptr && s.cols < s.rows;
  absl::Status status = from_outputs
                            ? FromOutputs(s, team, &fit)
                            : FromInputs(*lower, s, metric, team, &fit);
  if (!status.ok()) return status;
  for (double& energy : fit.energies) energy = std::max(energy, 0.0);
  return fit;
}

absl::StatusOr<WhitenedFit> FitOutputs(const DoubleMatrix& w,
                                       const std::vector<double>& mean_x,
                                       const Moments& outputs,
                                       kernels::Team& team) {
  absl::StatusOr<Eigen> eigen = SymmetricEigen(outputs.xx);
  if (!eigen.ok()) return eigen.status();
  WhitenedFit fit;
  fit.best = w;
  fit.mean_x = mean_x;
  fit.mean_t = outputs.mean_x;
  fit.energies = std::move(eigen->values);
  for (double& energy : fit.energies) energy = std::max(energy, 0.0);
  fit.left = Multiply(w, Transpose::kNo, eigen->vectors, Transpose::kNo, team);
  fit.right = Transposed(eigen->vectors);
  return fit;
}

AffineMap WhitenedFit::Truncate(int rank) const {
  AffineMap map;
  std::vector<double> shift;
  if (rank == 0) {
    map.u = best;
    shift = RowTimes(mean_x, map.u);
  } else {
    map.u = FirstColumns(left, rank);
    map.v = Block(right, 0, 0, rank, right.cols);
    shift = RowTimes(RowTimes(mean_x, map.u), map.v);
  }
  map.bias = mean_t;
  for (size_t j = 0; j < shift.size(); ++j) map.bias[j] -= shift[j];
  return map;
}

double RelativeOutputError(const Moments& moments, const AffineMap& map,
                           kernels::Team& team) {
  if (moments.tt <= 0) return 0;
  // With e = t - map(x):  E |e|² = |E e|² + tt - 2 <U·V, xt> + <UᵀGU, VVᵀ>.
  const DoubleMatrix ut_xt =
      Multiply(map.u, Transpose::kYes, moments.xt, Transpose::kNo, team);
  const DoubleMatrix gu =
      Multiply(moments.xx, Transpose::kNo, map.u, Transpose::kNo, team);
  const DoubleMatrix ugu =
      Multiply(map.u, Transpose::kYes, gu, Transpose::kNo, team);
  double error = moments.tt;
  std::vector<double> mean = RowTimes(moments.mean_x, map.u);
  if (map.rank() > 0) {
    error -= 2 * Dot(ut_xt.values, map.v.values);
    error += Dot(
        ugu.values,
        Multiply(map.v, Transpose::kNo, map.v, Transpose::kYes, team).values);
    mean = RowTimes(mean, map.v);
  } else {
    error += Trace(ugu) - 2 * Trace(ut_xt);
  }
  for (size_t j = 0; j < mean.size(); ++j) {
    const double difference = moments.mean_t[j] - mean[j] - map.bias[j];
    error += difference * difference;
  }
  return std::sqrt(std::max(error, 0.0) / moments.tt);
}

Moments ThroughMatrix(const Moments& moments, const DoubleMatrix& w,
                      const std::vector<double>& bias, double energy,
                      kernels::Team& team) {
  Moments through;
  through.mean_x = moments.mean_x;
  through.xx = moments.xx;
  through.xt = Multiply(moments.xt, Transpose::kNo, w, Transpose::kNo, team);
  through.mean_t = RowTimes(moments.mean_t, w);
  for (size_t j = 0; j < bias.size(); ++j) through.mean_t[j] += bias[j];
  through.tt = energy;
  return through;
}

DoubleMatrix WeightOf(const Linear& linear) {
  const std::vector<float> weight = linear.weight.ToF32();  // [out, in]
  DoubleMatrix w(linear.in, linear.out);
  for (int j = 0; j < linear.out; ++j) {
    for (int i = 0; i < linear.in; ++i) {
      w.row(i)[j] = weight[static_cast<size_t>(j) * linear.in + i];
    }
  }
  return w;
}

std::vector<double> BiasOf(const Linear& linear) {
  if (linear.bias.empty()) return std::vector<double>(linear.out);
  const std::vector<float> bias = linear.bias.ToF32();
  return {bias.begin(), bias.end()};
}

absl::StatusOr<Linear> ToLinear(const AffineMap& map) {
  Linear linear;
  linear.in = map.in();
  linear.out = map.out();
  linear.rank = map.rank();
  const std::vector<float> bias(map.bias.begin(), map.bias.end());
  bool finite = AllFinite(bias);
  linear.bias = Tensor::FromF32({linear.out}, bias);
  if (linear.rank == 0) {
    const std::vector<float> weight = ToFloats(Transposed(map.u));
    finite = finite && AllFinite(weight);
    linear.weight = Tensor::FromF32({linear.out, linear.in}, weight);
  } else {
    DoubleMatrix u = map.u;
    DoubleMatrix v = map.v;
    Balance(&u, &v);
    const std::vector<float> left = ToFloats(u);
    const std::vector<float> right = ToFloats(v);
    finite = finite && AllFinite(left) && AllFinite(right);
    linear.u = Tensor::FromF32({linear.in, linear.rank}, left);
    linear.v = Tensor::FromF32({linear.rank, linear.out}, right);
  }
  if (finite) return linear;
  return absl::OutOfRangeError(
      "a compressed matrix is too large for single precision");
}

}  // namespace svdserve
