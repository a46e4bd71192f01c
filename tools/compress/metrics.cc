#include "tools/compress/metrics.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "tools/compress/whitened.h"

namespace svdserve {
namespace {

// Of the mean diagonal: directions that the next product ignores still count a
// little, so that what is kept there is not arbitrary.
constexpr double kFloor = 1e-3;

DoubleMatrix BlockDiagonal(const DoubleMatrix& full, int heads) {
  const int width = full.rows / heads;
  DoubleMatrix blocks(full.rows, full.cols);
  for (int h = 0; h < heads; ++h) {
    for (int i = h * width; i < (h + 1) * width; ++i) {
      std::copy_n(full.row(i) + h * width, width, blocks.row(i) + h * width);
    }
  }
  const double floor = kFloor * Trace(blocks) / blocks.rows;
  for (int i = 0; i < blocks.rows; ++i) blocks.row(i)[i] += floor;
  return blocks;
}

DoubleMatrix OutputCovariance(const Moments& inputs, const DoubleMatrix& w,
                              kernels::Team& team) {
  return Multiply(w, Transpose::kYes,
                  Multiply(inputs.xx, Transpose::kNo, w, Transpose::kNo, team),
                  Transpose::kNo, team);
}

double Slope(Activation activation, double z) {
  constexpr double kFlat = 10;  // from here on it is a step, to rounding
  if (!(std::abs(z) < kFlat)) return z > 0 ? 1 : 0;
  switch (activation) {
    case Activation::kGelu:
    case Activation::kGeluTanh:  // within a thousandth of the exact one
      return 0.5 * std::erfc(-z * M_SQRT1_2) +
             z * std::exp(-z * z / 2) * (M_SQRT1_2 * M_2_SQRTPI / 2);
    case Activation::kRelu:
      return z > 0 ? 1 : 0;
  }
  return 1;
}

}  // namespace

DoubleMatrix QueryMetric(const Moments& inputs, const EncoderLayer& layer,
                         int heads, kernels::Team& team) {
  return BlockDiagonal(OutputCovariance(inputs, WeightOf(layer.key), team),
                       heads);
}

DoubleMatrix KeyMetric(const Moments& inputs, const EncoderLayer& layer,
                       int heads, kernels::Team& team) {
  const DoubleMatrix w = WeightOf(layer.query);
  DoubleMatrix second = OutputCovariance(inputs, w, team);
  std::vector<double> mean = BiasOf(layer.query);
  for (int i = 0; i < w.rows; ++i) {
    for (int j = 0; j < w.cols; ++j) mean[j] += inputs.mean_x[i] * w.row(i)[j];
  }
  for (int i = 0; i < second.rows; ++i) {
    for (int j = 0; j < second.cols; ++j) {
      second.row(i)[j] += mean[i] * mean[j];
    }
  }
  return BlockDiagonal(second, heads);
}

DoubleMatrix ValueMetric(const EncoderLayer& layer, int heads,
                         kernels::Team& team) {
  const DoubleMatrix o = WeightOf(layer.attention_output);
  return BlockDiagonal(Multiply(o, Transpose::kNo, o, Transpose::kYes, team),
                       heads);
}

absl::StatusOr<DoubleMatrix> FfnInMetric(const ModelShape& shape,
                                         const EncoderLayer& layer,
                                         const FloatMatrix& inputs,
                                         kernels::Team& team) {
  auto linear =
      ForwardLinear::Create(layer.ffn_in, kernels::Activation::kNone, team);
  if (!linear.ok()) return linear.status();
  absl::StatusOr<FloatMatrix> z = linear->Run(inputs, team);
  if (!z.ok()) return z.status();
  team.ParallelFor(z->rows(), [&](int, int i) {
    for (int j = 0; j < z->width(); ++j) {
      z->row(i)[j] = static_cast<float>(Slope(shape.activation, z->row(i)[j]));
    }
  });
  MomentsSum sum(z->width(), 0);
  sum.Add(*z, team);
  const Moments slopes = std::move(sum).Finish();
  const DoubleMatrix w = WeightOf(layer.ffn_out);
  DoubleMatrix metric = Multiply(w, Transpose::kNo, w, Transpose::kYes, team);
  for (int i = 0; i < metric.rows; ++i) {
    for (int j = 0; j < metric.cols; ++j) {
      metric.row(i)[j] *=
          slopes.xx.row(i)[j] + slopes.mean_x[i] * slopes.mean_x[j];
    }
  }
  return metric;
}

}  // namespace svdserve
