#include "tools/compress/moments.h"

#include <cblas.h>

#include <algorithm>
#include <utility>

namespace svdserve {
namespace {

// Rows that are widened at a time.
constexpr int kRows = 512;
constexpr int kTile = 128;

int Tiles(int n) { return (n + kTile - 1) / kTile; }
int Width(int tile, int n) { return std::min(kTile, n - tile * kTile); }

DoubleMatrix Widen(const FloatMatrix& x, int first, int rows) {
  DoubleMatrix wide(rows, x.width());
  std::copy_n(x.row(first), wide.values.size(), wide.values.data());
  return wide;
}

void AddRows(const DoubleMatrix& x, std::vector<double>* sum) {
  for (int i = 0; i < x.rows; ++i) {
    for (int j = 0; j < x.cols; ++j) (*sum)[j] += x.row(i)[j];
  }
}

// sum += aᵀ·b in one tile.
void AddTile(const DoubleMatrix& a, int a_tile, const DoubleMatrix& b,
             int b_tile, DoubleMatrix* sum) {
  cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, Width(a_tile, a.cols),
              Width(b_tile, b.cols), a.rows, 1,
              a.values.data() + a_tile * kTile, a.cols,
              b.values.data() + b_tile * kTile, b.cols, 1,
              sum->row(a_tile * kTile) + b_tile * kTile, sum->cols);
}

}  // namespace

MomentsSum::MomentsSum(int in, int out) {
  sums_.mean_x.resize(in);
  sums_.mean_t.resize(out);
  sums_.xx = DoubleMatrix(in, in);
  sums_.xt = DoubleMatrix(in, out);
}

void MomentsSum::Add(const FloatMatrix& x, const FloatMatrix& t,
                     kernels::Team& team) {
  for (int first = 0; first < x.rows(); first += kRows) {
    const int rows = std::min(kRows, x.rows() - first);
    const DoubleMatrix inputs = Widen(x, first, rows);
    AddInputs(inputs, team);
    AddTargets(inputs, Widen(t, first, rows), team);
  }
  rows_ += x.rows();
}

void MomentsSum::Add(const FloatMatrix& x, kernels::Team& team) {
  with_itself_ = true;
  for (int first = 0; first < x.rows(); first += kRows) {
    AddInputs(Widen(x, first, std::min(kRows, x.rows() - first)), team);
  }
  rows_ += x.rows();
}

// Tiles on and below the diagonal; Finish() mirrors them.
void MomentsSum::AddInputs(const DoubleMatrix& x, kernels::Team& team) {
  AddRows(x, &sums_.mean_x);
  const int tiles = Tiles(x.cols);
  team.ParallelFor(tiles * tiles, [&](int, int index) {
    const int i = index / tiles;
    const int j = index % tiles;
    if (j <= i) AddTile(x, i, x, j, &sums_.xx);
  });
}

void MomentsSum::AddTargets(const DoubleMatrix& x, const DoubleMatrix& t,
                            kernels::Team& team) {
  AddRows(t, &sums_.mean_t);
  for (const double value : t.values) sums_.tt += value * value;
  const int tiles = Tiles(t.cols);
  team.ParallelFor(Tiles(x.cols) * tiles, [&](int, int index) {
    AddTile(x, index / tiles, t, index % tiles, &sums_.xt);
  });
}

Moments MomentsSum::Finish() && {
  Moments m = std::move(sums_);
  const double scale = rows_ == 0 ? 0 : 1.0 / static_cast<double>(rows_);
  for (double& value : m.mean_x) value *= scale;
  const int in = m.xx.rows;
  for (int i = 0; i < in; ++i) {
    for (int j = 0; j <= i; ++j) {
      const double value = m.xx.row(i)[j] * scale - m.mean_x[i] * m.mean_x[j];
      m.xx.row(i)[j] = value;
      m.xx.row(j)[i] = value;
    }
  }
  if (with_itself_) {
    m.mean_t = m.mean_x;
    m.xt = m.xx;
    m.tt = Trace(m.xx);
    return m;
  }
  m.tt *= scale;
  for (double& value : m.mean_t) {
    value *= scale;
    m.tt -= value * value;
  }
  for (int i = 0; i < in; ++i) {
    for (int j = 0; j < m.xt.cols; ++j) {
      m.xt.row(i)[j] = m.xt.row(i)[j] * scale - m.mean_x[i] * m.mean_t[j];
    }
  }
  return m;
}

}  // namespace svdserve
