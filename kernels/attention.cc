// Lanes are queries. A block of queries is transposed once; from there on every
// step is a product of a broadcast key or value element with a vector of
// queries, so maxima and sums of the softmax need no work across lanes, keys
// and values are read where they lie, and a query's result cannot depend on its
// neighbours.
#include "kernels/attention.h"

#include <algorithm>
#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
// After foreach_target.h:
#include <hwy/highway.h>

#include "kernels/vector_math-inl.h"

#ifndef SVDSERVE_KERNELS_ATTENTION_SIZES_
#define SVDSERVE_KERNELS_ATTENTION_SIZES_
namespace svdserve::kernels {
namespace {

// Queries side by side: two vectors of AVX-512.
constexpr int kQueryBlock = 32;
// Keys whose scores exist at once: scores and exponentials stay in L1.
constexpr int kKeyBlock = 64;
constexpr int kMaxHeadDim = 128;

// Where the parts of a call's scratch begin, in floats.
struct ScratchLayout {
  ScratchLayout(int qk_dim, int v_dim)
      : q(0),
        o(q + kQueryBlock * qk_dim),
        scores(o + kQueryBlock * v_dim),
        keys(scores + kQueryBlock * kKeyBlock),
        values(keys + kKeyBlock * qk_dim),
        total(values + kKeyBlock * v_dim) {}
  size_t q;       // [qk_dim, kQueryBlock], scaled
  size_t o;       // [v_dim, kQueryBlock], not yet divided by the sum
  size_t scores;  // [kKeyBlock, kQueryBlock], then their exponentials
  size_t keys;    // [kKeyBlock, qk_dim], widened; bf16 only
  size_t values;  // [kKeyBlock, v_dim], widened; bf16 only
  size_t total;
};

}  // namespace
}  // namespace svdserve::kernels
#endif  // SVDSERVE_KERNELS_ATTENTION_SIZES_

HWY_BEFORE_NAMESPACE();
namespace svdserve::kernels::HWY_NAMESPACE {

// c[m][q] = sum_k a(m, k) * b[k][q] (+ c[m][q]) for kM rows and kVectors
// vectors of queries. a(m, k) = a[m * a_row + k * a_column].
template <int kM, int kVectors, bool kAdd>
HWY_INLINE void MultiplyTile(const float* HWY_RESTRICT a, int64_t a_row,
                             int64_t a_column, int depth,
                             const float* HWY_RESTRICT b,
                             float* HWY_RESTRICT c) {
  const F32 d;
  const size_t lanes = hn::Lanes(d);
  VF32 sum[kM][kVectors];
  for (int m = 0; m < kM; ++m) {
    for (int v = 0; v < kVectors; ++v) {
      sum[m][v] =
          kAdd ? hn::Load(d, c + m * kQueryBlock + v * lanes) : hn::Zero(d);
    }
  }
  for (int k = 0; k < depth; ++k) {
    VF32 row[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      row[v] = hn::Load(d, b + k * kQueryBlock + v * lanes);
    }
    for (int m = 0; m < kM; ++m) {
      const VF32 element = hn::Set(d, a[m * a_row + k * a_column]);
      for (int v = 0; v < kVectors; ++v) {
        sum[m][v] = hn::MulAdd(element, row[v], sum[m][v]);
      }
    }
  }
  for (int m = 0; m < kM; ++m) {
    for (int v = 0; v < kVectors; ++v) {
      hn::Store(sum[m][v], d, c + m * kQueryBlock + v * lanes);
    }
  }
}

// All rows of c, for `queries` lanes rounded up to vectors.
template <int kM, bool kAdd>
void Multiply(const float* a, int64_t a_row, int64_t a_column, int rows,
              int depth, int queries, const float* b, float* c) {
  const int lanes = static_cast<int>(hn::Lanes(F32()));
  for (int q = 0; q < queries;) {
    const bool two = queries - q > lanes;
    int m = 0;
    for (; m + kM <= rows; m += kM) {
      const auto* am = a + m * a_row;
      float* cm = c + m * kQueryBlock + q;
      two ? MultiplyTile<kM, 2, kAdd>(am, a_row, a_column, depth, b + q, cm)
          : MultiplyTile<kM, 1, kAdd>(am, a_row, a_column, depth, b + q, cm);
    }
    for (; m < rows; ++m) {
      const auto* am = a + m * a_row;
      float* cm = c + m * kQueryBlock + q;
      two ? MultiplyTile<1, 2, kAdd>(am, a_row, a_column, depth, b + q, cm)
          : MultiplyTile<1, 1, kAdd>(am, a_row, a_column, depth, b + q, cm);
    }
    q += two ? 2 * lanes : lanes;
  }
}

// State of the online softmax, one lane a query.
struct Softmax {
  HWY_ALIGN float maximum[kQueryBlock];
  HWY_ALIGN float sum[kQueryBlock];
};

// Turns scores (of base 2) into exponentials relative to the running maximum,
// and rescales what was summed before.
HWY_INLINE void UpdateSoftmax(int keys, int queries, int v_dim,
                              float* HWY_RESTRICT scores, float* HWY_RESTRICT o,
                              Softmax* softmax) {
  const F32 d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  for (int q = 0; q < queries; q += lanes) {
    const VF32 before = hn::Load(d, softmax->maximum + q);
    VF32 maximum = before;
    for (int j = 0; j < keys; ++j) {
      maximum = hn::Max(maximum, hn::Load(d, scores + j * kQueryBlock + q));
    }
    VF32 sum = hn::Zero(d);
    for (int j = 0; j < keys; ++j) {
      float* score = scores + j * kQueryBlock + q;
      const VF32 e = Exp2Negative(d, hn::Sub(hn::Load(d, score), maximum));
      hn::Store(e, d, score);
      sum = hn::Add(sum, e);
    }
    const VF32 shrink = Exp2Negative(d, hn::Sub(before, maximum));
    sum = hn::MulAdd(hn::Load(d, softmax->sum + q), shrink, sum);
    hn::Store(sum, d, softmax->sum + q);
    hn::Store(maximum, d, softmax->maximum + q);
    for (int i = 0; i < v_dim; ++i) {
      float* part = o + i * kQueryBlock + q;
      hn::Store(hn::Mul(hn::Load(d, part), shrink), d, part);
    }
  }
}

// Queries go in and out by squares of 4 x 4, in vectors of 128 bits: the same
// code for every instruction set, and faster than single elements.
#if HWY_TARGET == HWY_SCALAR
constexpr int kSquare = 1;
using FSquare = hn::FixedTag<float, kSquare>;
using VSquare = hn::Vec<FSquare>;
HWY_INLINE void Transpose(VSquare (&/*v*/)[kSquare]) {}
#else
constexpr int kSquare = 4;
using FSquare = hn::FixedTag<float, kSquare>;
using VSquare = hn::Vec<FSquare>;
HWY_INLINE void Transpose(VSquare (&v)[kSquare]) {
  const FSquare d4;
  const hn::Repartition<double, FSquare> d2;
  const auto low01 = hn::BitCast(d2, hn::InterleaveLower(d4, v[0], v[1]));
  const auto high01 = hn::BitCast(d2, hn::InterleaveUpper(d4, v[0], v[1]));
  const auto low23 = hn::BitCast(d2, hn::InterleaveLower(d4, v[2], v[3]));
  const auto high23 = hn::BitCast(d2, hn::InterleaveUpper(d4, v[2], v[3]));
  v[0] = hn::BitCast(d4, hn::InterleaveLower(d2, low01, low23));
  v[1] = hn::BitCast(d4, hn::InterleaveUpper(d2, low01, low23));
  v[2] = hn::BitCast(d4, hn::InterleaveLower(d2, high01, high23));
  v[3] = hn::BitCast(d4, hn::InterleaveUpper(d2, high01, high23));
}
#endif

// Lanes of a block that are computed: whole vectors.
HWY_INLINE int LanesOf(int queries) {
  const int lanes = static_cast<int>(hn::Lanes(F32()));
  return (queries + lanes - 1) / lanes * lanes;
}

// q [queries, qk_dim] -> to [qk_dim, kQueryBlock], scaled. Lanes past
// `queries` repeat the last one; their results are dropped.
template <typename T>
void TransposeQueries(const T* q, int64_t stride, int queries, int qk_dim,
                      float scale, float* to) {
  const FSquare d;
  const VSquare factor = hn::Set(d, scale);
  for (int i = 0; i < LanesOf(queries); i += kSquare) {
    const T* rows[kSquare];
    for (int n = 0; n < kSquare; ++n) {
      rows[n] = q + std::min(i + n, queries - 1) * stride;
    }
    for (int j = 0; j < qk_dim; j += kSquare) {
      VSquare v[kSquare];
      for (int n = 0; n < kSquare; ++n) {
        v[n] = hn::Mul(LoadAsFloat(d, rows[n] + j), factor);
      }
      Transpose(v);
      for (int n = 0; n < kSquare; ++n) {
        hn::Store(v[n], d, to + (j + n) * kQueryBlock + i);
      }
    }
  }
}

// o [v_dim, kQueryBlock] -> out [queries, v_dim], divided by the sums.
template <typename T>
void StoreOutput(const float* o, const Softmax& softmax, int queries, int v_dim,
                 T* out, int64_t stride) {
  const FSquare d;
  for (int i = 0; i < queries; i += kSquare) {
    const int rows = std::min(kSquare, queries - i);
    const VSquare inverse =
        hn::Div(hn::Set(d, 1.0f), hn::Load(d, softmax.sum + i));
    for (int j = 0; j < v_dim; j += kSquare) {
      VSquare v[kSquare];
      for (int n = 0; n < kSquare; ++n) {
        v[n] = hn::Mul(hn::Load(d, o + (j + n) * kQueryBlock + i), inverse);
      }
      Transpose(v);
      for (int n = 0; n < rows; ++n) {
        StoreFromFloat(d, v[n], out + (i + n) * stride + j);
      }
    }
  }
}

// A block of keys or values as floats: where it lies, or widened into `space`.
struct FloatRows {
  const float* rows;
  int64_t stride;
};
HWY_INLINE FloatRows Widen(const float* from, int64_t stride, int, int,
                           float*) {
  return {from, stride};
}
HWY_INLINE FloatRows Widen(const uint16_t* from, int64_t stride, int rows,
                           int dim, float* space) {
  const F32 d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < dim; j += lanes) {
      hn::Store(LoadAsFloat(d, from + i * stride + j), d, space + i * dim + j);
    }
  }
  return {space, dim};
}

template <typename T>
void AttendBlock(const AttentionParams& p, int first, int queries,
                 float* scratch) {
  const ScratchLayout layout(p.qk_dim, p.v_dim);
  float* q = scratch + layout.q;
  float* o = scratch + layout.o;
  float* scores = scratch + layout.scores;
  constexpr float kLog2E = 1.44269504f;
  TransposeQueries(static_cast<const T*>(p.q) + first * p.q_stride, p.q_stride,
                   queries, p.qk_dim, p.scale * kLog2E, q);
  Softmax softmax;
  std::fill_n(softmax.maximum, kQueryBlock, -3.0e38f);
  std::fill_n(softmax.sum, kQueryBlock, 0.0f);
  std::fill_n(o, kQueryBlock * p.v_dim, 0.0f);
  for (int key = 0; key < p.keys; key += kKeyBlock) {
    const int keys = std::min(kKeyBlock, p.keys - key);
    const FloatRows k =
        Widen(static_cast<const T*>(p.k) + key * p.k_stride, p.k_stride, keys,
              p.qk_dim, scratch + layout.keys);
    Multiply<8, false>(k.rows, k.stride, 1, keys, p.qk_dim, queries, q, scores);
    UpdateSoftmax(keys, queries, p.v_dim, scores, o, &softmax);
    const FloatRows v =
        Widen(static_cast<const T*>(p.v) + key * p.v_stride, p.v_stride, keys,
              p.v_dim, scratch + layout.values);
    Multiply<8, true>(v.rows, 1, v.stride, p.v_dim, keys, queries, scores, o);
  }
  StoreOutput(o, softmax, queries, p.v_dim,
              static_cast<T*>(p.out) + first * p.out_stride, p.out_stride);
}

void AttentionImpl(const AttentionParams& p, float* scratch) {
  for (int first = 0; first < p.queries; first += kQueryBlock) {
    const int queries = std::min(kQueryBlock, p.queries - first);
    if (p.type == DataType::kF32) {
      AttendBlock<float>(p, first, queries, scratch);
    } else {
      AttendBlock<uint16_t>(p, first, queries, scratch);
    }
  }
}

}  // namespace svdserve::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace svdserve::kernels {

HWY_EXPORT(AttentionImpl);

namespace {

bool IsHeadDim(int dim) {
  return dim >= 16 && dim <= kMaxHeadDim && dim % 16 == 0;
}

}  // namespace

size_t AttentionScratchBytes(int qk_dim, int v_dim) {
  return ScratchLayout(qk_dim, v_dim).total * sizeof(float);
}

KernelStatus Attention(const AttentionParams& params, void* scratch) {
  if (params.queries < 0 || params.keys < 1 || params.q == nullptr ||
      params.k == nullptr || params.v == nullptr || params.out == nullptr ||
      scratch == nullptr) {
    return KernelStatus::kInvalidArgument;
  }
  if (!IsHeadDim(params.qk_dim) || !IsHeadDim(params.v_dim)) {
    return KernelStatus::kUnsupported;
  }
  HWY_DYNAMIC_DISPATCH(AttentionImpl)(params, static_cast<float*>(scratch));
  return KernelStatus::kOk;
}

}  // namespace svdserve::kernels
#endif  // HWY_ONCE
