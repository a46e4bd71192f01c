#include "tools/compress/head_reduction.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace svdserve {
namespace {

// Of a moment matrix's mean diagonal, so that it has a Cholesky factor.
constexpr double kRidge = 1e-9;

absl::StatusOr<DoubleMatrix> CholeskyWithRidge(DoubleMatrix a) {
  const double ridge = kRidge * Trace(a) / a.rows + 1e-30;
  for (int i = 0; i < a.rows; ++i) a.row(i)[i] += ridge;
  return Cholesky(std::move(a));
}

DoubleMatrix Columns(const DoubleMatrix& a, int first, int count) {
  return Block(a, 0, first, a.rows, count);
}

// [n, n] -> its first `width` columns.
DoubleMatrix First(const DoubleMatrix& a, int width) {
  return Columns(a, 0, width);
}

void PutColumns(const DoubleMatrix& from, int first, DoubleMatrix* to) {
  for (int i = 0; i < from.rows; ++i) {
    std::copy_n(from.row(i), from.cols, to->row(i) + first);
  }
}

// Second moments of one head's columns of inputs·u, about their means.
DoubleMatrix HeadMoments(const DoubleMatrix& u, const DoubleMatrix& gu,
                         int first, int width, kernels::Team& team) {
  return Multiply(Columns(u, first, width), Transpose::kYes,
                  Columns(gu, first, width), Transpose::kNo, team);
}

// What is lost when each head keeps its first `width` directions.
template <typename Heads>
std::vector<double> Lost(const Heads& heads) {
  const int full = static_cast<int>(heads.front().energies.size());
  std::vector<double> lost(full + 1);
  double all = 0;
  for (const auto& head : heads) {
    for (int r = 0; r < full; ++r) {
      all += head.energies[r];
      for (int width = 0; width <= r; ++width) {
        lost[width] += head.energies[r];
      }
    }
  }
  for (double& share : lost) share = all > 0 ? share / all : 0;
  return lost;
}

// Replaces each head's columns by columns·narrow, the bias with them.
AffineMap Narrow(const AffineMap& map, const std::vector<DoubleMatrix>& narrow,
                 kernels::Team& team) {
  const int heads = static_cast<int>(narrow.size());
  const int full = narrow.front().rows;
  const int width = narrow.front().cols;
  AffineMap result;
  result.u = DoubleMatrix(map.u.rows, heads * width);
  result.bias.resize(static_cast<size_t>(heads) * width);
  for (int h = 0; h < heads; ++h) {
    PutColumns(Multiply(Columns(map.u, h * full, full), Transpose::kNo,
                        narrow[h], Transpose::kNo, team),
               h * width, &result.u);
    for (int i = 0; i < full; ++i) {
      for (int j = 0; j < width; ++j) {
        result.bias[h * width + j] +=
            map.bias[h * full + i] * narrow[h].row(i)[j];
      }
    }
  }
  return result;
}

}  // namespace

absl::StatusOr<QueryKeyReduction> QueryKeyReduction::Create(
    const Moments& inputs, const AffineMap& query, const AffineMap& key,
    int heads, kernels::Team& team) {
  QueryKeyReduction reduction;
  reduction.query_ = &query;
  reduction.key_ = &key;
  const int width = query.out() / heads;
  const DoubleMatrix gq =
      Multiply(inputs.xx, Transpose::kNo, query.u, Transpose::kNo, team);
  const DoubleMatrix gk =
      Multiply(inputs.xx, Transpose::kNo, key.u, Transpose::kNo, team);
  for (int h = 0; h < heads; ++h) {
    DoubleMatrix q = HeadMoments(query.u, gq, h * width, width, team);
    std::vector<double> mean(query.bias.begin() + h * width,
                             query.bias.begin() + (h + 1) * width);
    for (int i = 0; i < inputs.xx.rows; ++i) {
      for (int j = 0; j < width; ++j) {
        mean[j] += inputs.mean_x[i] * query.u.row(i)[h * width + j];
      }
    }
    for (int i = 0; i < width; ++i) {
      for (int j = 0; j < width; ++j) q.row(i)[j] += mean[i] * mean[j];
    }
    absl::StatusOr<DoubleMatrix> lq = CholeskyWithRidge(std::move(q));
    if (!lq.ok()) return lq.status();
    absl::StatusOr<DoubleMatrix> lk =
        CholeskyWithRidge(HeadMoments(key.u, gk, h * width, width, team));
    if (!lk.ok()) return lk.status();
    const DoubleMatrix s =
        Multiply(*lq, Transpose::kYes, *lk, Transpose::kNo, team);
    absl::StatusOr<Eigen> eigen =
        SymmetricEigen(Multiply(s, Transpose::kNo, s, Transpose::kYes, team));
    if (!eigen.ok()) return eigen.status();
    // A = Lq⁻ᵀ·P, B = Lq·P, and √(singular value) in both.
    Head head;
    head.energies = std::move(eigen->values);
    head.query = eigen->vectors;
    SolveLower(*lq, Transpose::kYes, &head.query, team);
    head.key =
        Multiply(*lq, Transpose::kNo, eigen->vectors, Transpose::kNo, team);
    for (int r = 0; r < width; ++r) {
      head.energies[r] = std::max(head.energies[r], 0.0);
      const double root = std::pow(head.energies[r], 0.25);
      if (root <= 0) continue;
      for (int i = 0; i < width; ++i) {
        head.query.row(i)[r] *= root;
        head.key.row(i)[r] /= root;
      }
    }
    reduction.heads_.push_back(std::move(head));
  }
  return reduction;
}

std::vector<double> QueryKeyReduction::LostByWidth() const {
  return Lost(heads_);
}

void QueryKeyReduction::Reduce(int width, AffineMap* query,
                               AffineMap* key) const {
  std::vector<DoubleMatrix> a;
  std::vector<DoubleMatrix> b;
  for (const Head& head : heads_) {
    a.push_back(First(head.query, width));
    b.push_back(First(head.key, width));
  }
  kernels::Team alone(1, "reduce");
  *query = Narrow(*query_, a, alone);
  *key = Narrow(*key_, b, alone);
  std::fill(key->bias.begin(), key->bias.end(), 0.0);
}

absl::StatusOr<ValueOutputReduction> ValueOutputReduction::Create(
    const Moments& context, const DoubleMatrix& prior, int heads,
    kernels::Team& team) {
  ValueOutputReduction reduction;
  reduction.context_ = &context;
  reduction.prior_ = &prior;
  absl::StatusOr<WhitenedFit> fit = FitWhitened(context, prior, nullptr, team);
  if (!fit.ok()) return fit.status();
  const int width = context.xx.rows / heads;
  for (int h = 0; h < heads; ++h) {
    absl::StatusOr<DoubleMatrix> lower = CholeskyWithRidge(
        Block(context.xx, h * width, h * width, width, width));
    if (!lower.ok()) return lower.status();
    const DoubleMatrix s =
        Multiply(*lower, Transpose::kYes,
                 Block(fit->best, h * width, 0, width, fit->best.cols),
                 Transpose::kNo, team);
    absl::StatusOr<Eigen> eigen =
        SymmetricEigen(Multiply(s, Transpose::kNo, s, Transpose::kYes, team));
    if (!eigen.ok()) return eigen.status();
    Head head;
    head.energies = std::move(eigen->values);
    for (double& energy : head.energies) energy = std::max(energy, 0.0);
    head.narrow = std::move(eigen->vectors);
    head.widen =
        Multiply(head.narrow, Transpose::kYes, *lower, Transpose::kYes, team);
    SolveLower(*lower, Transpose::kYes, &head.narrow, team);
    reduction.heads_.push_back(std::move(head));
  }
  return reduction;
}

std::vector<double> ValueOutputReduction::LostByWidth() const {
  return Lost(heads_);
}

absl::Status ValueOutputReduction::Reduce(int width, kernels::Team& team,
                                          AffineMap* value,
                                          AffineMap* output) const {
  const int heads = static_cast<int>(heads_.size());
  const int full = heads_.front().narrow.rows;
  std::vector<DoubleMatrix> narrow;
  // N of all heads, block by block, and the output matrix that undoes it.
  DoubleMatrix n(heads * full, heads * width);
  DoubleMatrix start(heads * width, prior_->cols);
  for (int h = 0; h < heads; ++h) {
    narrow.push_back(First(heads_[h].narrow, width));
    for (int i = 0; i < full; ++i) {
      std::copy_n(narrow[h].row(i), width, n.row(h * full + i) + h * width);
    }
    const DoubleMatrix rows = Multiply(
        Block(heads_[h].widen, 0, 0, width, full), Transpose::kNo,
        Block(*prior_, h * full, 0, full, prior_->cols), Transpose::kNo, team);
    std::copy(rows.values.begin(), rows.values.end(), start.row(h * width));
  }
  Moments moments;
  const DoubleMatrix gn =
      Multiply(context_->xx, Transpose::kNo, n, Transpose::kNo, team);
  moments.xx = Multiply(n, Transpose::kYes, gn, Transpose::kNo, team);
  moments.xt = Multiply(n, Transpose::kYes, context_->xt, Transpose::kNo, team);
  moments.mean_t = context_->mean_t;
  moments.tt = context_->tt;
  moments.mean_x.resize(n.cols);
  for (int i = 0; i < n.rows; ++i) {
    for (int j = 0; j < n.cols; ++j) {
      moments.mean_x[j] += context_->mean_x[i] * n.row(i)[j];
    }
  }
  absl::StatusOr<WhitenedFit> fit = FitWhitened(moments, start, nullptr, team);
  if (!fit.ok()) return fit.status();
  *value = Narrow(*value, narrow, team);
  *output = fit->Truncate(0);
  return absl::OkStatus();
}

}  // namespace svdserve
