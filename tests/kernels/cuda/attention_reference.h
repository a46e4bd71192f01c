// What the tests of attention share: batches of sequences in packed rows, with
// NaN around them, and attention in fp64, written for reading.
#ifndef SVDSERVE_TESTS_KERNELS_CUDA_ATTENTION_REFERENCE_H_
#define SVDSERVE_TESTS_KERNELS_CUDA_ATTENTION_REFERENCE_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "tests/kernels/cuda/device_buffer.h"

namespace svdserve::cuda {

// Where sequences of these lengths lie: the batch's rows from first_row on.
// kMargin rows before and after them are NaN and must stay as they are.
inline constexpr int kMargin = 3;

struct Packing {
  explicit Packing(std::vector<int> l, int first = 0)
      : lengths(std::move(l)), first_row(first) {
    starts.push_back(first_row);
    for (int length : lengths) starts.push_back(starts.back() + length);
  }
  int sequences() const { return static_cast<int>(lengths.size()); }
  int rows() const { return starts.back() - first_row; }
  int max_tokens() const {
    return lengths.empty() ? 0
                           : *std::max_element(lengths.begin(), lengths.end());
  }
  std::vector<int> lengths;
  int first_row;
  std::vector<int32_t> starts;  // cu_seqlens
};

// Rows of `width` values, kMargin rows of NaN before and after them, and gaps
// of `gap` NaN values between them.
class PackedRows {
 public:
  PackedRows(Type type, int width, int gap, const std::vector<float>& values)
      : PackedRows(type, width, gap, static_cast<int>(values.size()) / width) {
    std::vector<float> all(device_.size(), NAN);
    for (size_t i = 0; i < values.size(); ++i) {
      all[(kMargin + i / width) * stride() + i % width] = values[i];
    }
    device_ = DeviceBuffer<uint16_t>(Encode(type, all));
  }
  // All NaN.
  PackedRows(Type type, int width, int gap, int rows)
      : type_(type),
        width_(width),
        gap_(gap),
        rows_(rows),
        device_(size_t{1} * (rows + 2 * kMargin) * (width + gap)) {}

  int stride() const { return width_ + gap_; }
  void* data() { return device_.data() + kMargin * stride(); }

  // [rows, width]; checks that all around them is still NaN.
  std::vector<float> ToHost() const {
    const std::vector<float> all = Decode(type_, device_.ToHost());
    std::vector<float> values;
    for (int row = -kMargin; row < rows_ + kMargin; ++row) {
      for (int column = 0; column < stride(); ++column) {
        const float value = all[(kMargin + row) * stride() + column];
        if (row >= 0 && row < rows_ && column < width_) {
          values.push_back(value);
        } else {
          EXPECT_TRUE(std::isnan(value)) << row << " " << column;
        }
      }
    }
    return values;
  }

 private:
  Type type_;
  int width_;
  int gap_;
  int rows_;
  DeviceBuffer<uint16_t> device_;
};

struct Heads {
  int heads = 1;
  int kv_heads = 1;
  int qk_dim = 64;
  int v_dim = 64;
};

struct Visibility {
  bool causal = false;
  int left = -1;
  int right = -1;

  bool Sees(int query, int key) const {
    return !(causal && key > query) && (left < 0 || key >= query - left) &&
           (right < 0 || key <= query + right);
  }
};

// out [rows, heads · v_dim] of q, k and v, each row its heads side by side; of
// large batches only of each `every`-th row, as SampledRows() has them.
inline std::vector<double> ExactAttention(
    const Packing& packing, const Heads& h, const Visibility& visibility,
    double scale, const std::vector<float>& q, const std::vector<float>& k,
    const std::vector<float>& v, int every = 1) {
  const int sampled = (packing.rows() + every - 1) / every;
  std::vector<double> out(size_t{1} * sampled * h.heads * h.v_dim);
  for (int s = 0; s < packing.sequences(); ++s) {
    const int first = packing.starts[s] - packing.first_row;
    const int length = packing.lengths[s];
    for (int i = 0; i < length * h.heads; ++i) {
      const int query = i / h.heads;
      const int head = i % h.heads;
      if ((first + query) % every != 0) continue;
      const int kv_head = head / (h.heads / h.kv_heads);
      std::vector<double> weights(length);
      double max = -INFINITY;
      for (int key = 0; key < length; ++key) {
        if (!visibility.Sees(query, key)) continue;
        for (int c = 0; c < h.qk_dim; ++c) {
          weights[key] +=
              double{q[((first + query) * h.heads + head) * h.qk_dim + c]} *
              k[((first + key) * h.kv_heads + kv_head) * h.qk_dim + c];
        }
        weights[key] *= scale;
        max = std::max(max, weights[key]);
      }
      double sum = 0;
      for (int key = 0; key < length; ++key) {
        const bool seen = visibility.Sees(query, key);
        sum += weights[key] = seen ? std::exp(weights[key] - max) : 0;
      }
      double* row = &out[((first + query) / every * h.heads + head) * h.v_dim];
      for (int key = 0; key < length; ++key) {
        for (int c = 0; c < h.v_dim; ++c) {
          row[c] += weights[key] / sum *
                    v[((first + key) * h.kv_heads + kv_head) * h.v_dim + c];
        }
      }
    }
  }
  return out;
}

// Rows [first, first + count) of a matrix of `width` columns.
template <typename T>
std::vector<T> RowsOf(const std::vector<T>& matrix, int width, int first,
                      int count) {
  return {matrix.begin() + size_t{1} * first * width,
          matrix.begin() + size_t{1} * (first + count) * width};
}

// Each `every`-th row, the first included.
inline std::vector<float> SampledRows(const std::vector<float>& matrix,
                                      int width, int every) {
  std::vector<float> rows;
  for (size_t at = 0; at < matrix.size(); at += size_t{1} * every * width) {
    rows.insert(rows.end(), matrix.begin() + at, matrix.begin() + at + width);
  }
  return rows;
}

inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace svdserve::cuda

#endif  // SVDSERVE_TESTS_KERNELS_CUDA_ATTENTION_REFERENCE_H_
