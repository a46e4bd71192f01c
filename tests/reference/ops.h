// Every operation of the encoder, written for reading: plain loops, one
// rounding rule. A matrix is row-major.
//
// `Rounding` says in which precision one computes:
//   ExactF64   double throughout
//   PlainF32   float throughout, sums in float
//   PlainBF16  float inside an operation, its result rounded to bfloat16, as
//              PyTorch's eager mode does on the CPU
#ifndef SVDSERVE_TESTS_REFERENCE_OPS_H_
#define SVDSERVE_TESTS_REFERENCE_OPS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "engine/model/model_shape.h"

namespace svdserve::reference {

struct ExactF64 {
  using Value = double;
  static double Round(double x) { return x; }
};

struct PlainF32 {
  using Value = float;
  static float Round(float x) { return x; }
};

struct PlainBF16 {
  using Value = float;
  // To nearest, ties to even. Finite values only.
  static float Round(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof(bits));
    bits += 0x7fff + ((bits >> 16) & 1);
    bits &= 0xffff0000;
    std::memcpy(&x, &bits, sizeof(x));
    return x;
  }
};

template <typename Rounding>
struct Matrix {
  using Value = typename Rounding::Value;
  int rows = 0;
  int cols = 0;
  std::vector<Value> values;  // [rows, cols]

  Matrix() = default;
  Matrix(int r, int c) : rows(r), cols(c), values(size_t{1} * r * c) {}
  Value* row(int r) { return values.data() + size_t{1} * r * cols; }
  const Value* row(int r) const { return values.data() + size_t{1} * r * cols; }
};

// x [m, k] · w [k, n] + bias [n], which may be empty.
template <typename R>
Matrix<R> MatMul(const Matrix<R>& x, const Matrix<R>& w,
                 const std::vector<typename R::Value>& bias) {
  Matrix<R> y(x.rows, w.cols);
  for (int i = 0; i < x.rows; ++i) {
    for (int k = 0; k < x.cols; ++k) {
      for (int j = 0; j < w.cols; ++j) {
        y.row(i)[j] += x.row(i)[k] * w.row(k)[j];
      }
    }
    for (int j = 0; j < w.cols; ++j) {
      if (!bias.empty()) y.row(i)[j] += bias[j];
      y.row(i)[j] = R::Round(y.row(i)[j]);
    }
  }
  return y;
}

template <typename R>
Matrix<R> Add(const Matrix<R>& a, const Matrix<R>& b) {
  Matrix<R> sum(a.rows, a.cols);
  for (size_t i = 0; i < sum.values.size(); ++i) {
    sum.values[i] = R::Round(a.values[i] + b.values[i]);
  }
  return sum;
}

// (x - mean) / sqrt(variance + eps) * gamma + beta, row by row.
template <typename R>
Matrix<R> LayerNorm(const Matrix<R>& x,
                    const std::vector<typename R::Value>& gamma,
                    const std::vector<typename R::Value>& beta, double eps) {
  using Value = typename R::Value;
  Matrix<R> y(x.rows, x.cols);
  for (int i = 0; i < x.rows; ++i) {
    Value mean = 0;
    for (int j = 0; j < x.cols; ++j) mean += x.row(i)[j];
    mean /= x.cols;
    Value variance = 0;
    for (int j = 0; j < x.cols; ++j) {
      const Value centered = x.row(i)[j] - mean;
      variance += centered * centered;
    }
    variance /= x.cols;
    const Value scale = 1 / std::sqrt(variance + static_cast<Value>(eps));
    for (int j = 0; j < x.cols; ++j) {
      y.row(i)[j] = R::Round((x.row(i)[j] - mean) * scale * gamma[j] + beta[j]);
    }
  }
  return y;
}

template <typename Value>
Value Gelu(Value x) {
  return x / 2 * (1 + std::erf(x * static_cast<Value>(M_SQRT1_2)));
}

template <typename Value>
Value GeluTanh(Value x) {
  const Value inner = static_cast<Value>(std::sqrt(2 / M_PI)) *
                      (x + static_cast<Value>(0.044715) * x * x * x);
  return x / 2 * (1 + std::tanh(inner));
}

template <typename R>
Matrix<R> Activate(Matrix<R> x, Activation activation) {
  for (auto& value : x.values) {
    switch (activation) {
      case Activation::kGelu:
        value = R::Round(Gelu(value));
        break;
      case Activation::kGeluTanh:
        value = R::Round(GeluTanh(value));
        break;
      case Activation::kRelu:
        value = value > 0 ? value : 0;
        break;
    }
  }
  return x;
}

template <typename R>
Matrix<R> Activate(Matrix<R> x, HeadActivation activation) {
  for (auto& value : x.values) {
    switch (activation) {
      case HeadActivation::kIdentity:
        break;
      case HeadActivation::kTanh:
        value = R::Round(std::tanh(value));
        break;
      case HeadActivation::kRelu:
        value = value > 0 ? value : 0;
        break;
      case HeadActivation::kGelu:
        value = R::Round(Gelu(value));
        break;
    }
  }
  return x;
}

// In place: exp(x - max) / sum.
template <typename R>
void Softmax(std::vector<typename R::Value>& x) {
  const auto largest = *std::max_element(x.begin(), x.end());
  typename R::Value sum = 0;
  for (auto& value : x) {
    value = std::exp(value - largest);
    sum += value;
  }
  for (auto& value : x) value = R::Round(value / sum);
}

// softmax(scale · q · kᵀ) · v within each head; one sequence, every token sees
// every other. q, k: [tokens, heads * qk_dim], v: [tokens, heads * v_dim].
template <typename R>
Matrix<R> Attention(const Matrix<R>& q, const Matrix<R>& k, const Matrix<R>& v,
                    int heads, typename R::Value scale) {
  using Value = typename R::Value;
  const int tokens = q.rows;
  const int qk_dim = q.cols / heads;
  const int v_dim = v.cols / heads;
  Matrix<R> context(tokens, v.cols);
  std::vector<Value> scores(tokens);
  for (int head = 0; head < heads; ++head) {
    for (int i = 0; i < tokens; ++i) {
      for (int j = 0; j < tokens; ++j) {
        Value dot = 0;
        for (int d = head * qk_dim; d < (head + 1) * qk_dim; ++d) {
          dot += q.row(i)[d] * k.row(j)[d];
        }
        scores[j] = R::Round(R::Round(dot) * scale);
      }
      Softmax<R>(scores);
      for (int d = head * v_dim; d < (head + 1) * v_dim; ++d) {
        Value sum = 0;
        for (int j = 0; j < tokens; ++j) sum += scores[j] * v.row(j)[d];
        context.row(i)[d] = R::Round(sum);
      }
    }
  }
  return context;
}

// The mean of all rows.
template <typename R>
Matrix<R> MeanPool(const Matrix<R>& x) {
  Matrix<R> pooled(1, x.cols);
  for (int j = 0; j < x.cols; ++j) {
    typename R::Value sum = 0;
    for (int i = 0; i < x.rows; ++i) sum += x.row(i)[j];
    pooled.row(0)[j] = R::Round(R::Round(sum) / x.rows);
  }
  return pooled;
}

// The first row: [CLS].
template <typename R>
Matrix<R> ClsPool(const Matrix<R>& x) {
  Matrix<R> pooled(1, x.cols);
  std::copy_n(x.row(0), x.cols, pooled.row(0));
  return pooled;
}

// The largest value of each column.
template <typename R>
Matrix<R> MaxPool(const Matrix<R>& x) {
  Matrix<R> pooled = ClsPool(x);
  for (int i = 1; i < x.rows; ++i) {
    for (int j = 0; j < x.cols; ++j) {
      pooled.row(0)[j] = std::max(pooled.row(0)[j], x.row(i)[j]);
    }
  }
  return pooled;
}

// To unit length; a length below 1e-12 counts as 1e-12.
template <typename R>
void Normalize(std::vector<typename R::Value>& x) {
  typename R::Value squares = 0;
  for (const auto value : x) squares += value * value;
  const auto length =
      std::max(R::Round(std::sqrt(squares)), typename R::Value(1e-12));
  for (auto& value : x) value = R::Round(value / length);
}

}  // namespace svdserve::reference

#endif  // SVDSERVE_TESTS_REFERENCE_OPS_H_
