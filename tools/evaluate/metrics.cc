#include "tools/evaluate/metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <random>
#include <utility>

namespace svdserve {
namespace {

constexpr int kMostNeighbours = 10;

double Dot(const float* a, const float* b, int width) {
  double sum = 0;
  for (int i = 0; i < width; ++i) sum += double{a[i]} * b[i];
  return sum;
}

double CosineOf(const float* a, const float* b, int width) {
  const double aa = Dot(a, a, width);
  const double bb = Dot(b, b, width);
  if (aa == 0 || bb == 0) return aa == bb ? 1 : 0;
  return std::clamp(Dot(a, b, width) / std::sqrt(aa * bb), -1.0, 1.0);
}

// Rows of length one, or of zeros.
Outputs Normalized(const Outputs& rows) {
  Outputs result = rows;
  for (int i = 0; i < rows.rows(); ++i) {
    float* row = result.values.data() + int64_t{i} * rows.width;
    const double length = std::sqrt(Dot(row, row, rows.width));
    if (length == 0) continue;
    for (int j = 0; j < rows.width; ++j) {
      row[j] = static_cast<float>(row[j] / length);
    }
  }
  return result;
}

// In float and eight sums, which a compiler makes a vector of: neighbours take
// queries times texts of these.
float FastDot(const float* a, const float* b, int width) {
  constexpr int kLanes = 8;
  std::array<float, kLanes> sums = {};
  int i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      sums[lane] += a[i + lane] * b[i + lane];
    }
  }
  for (; i < width; ++i) sums[0] += a[i] * b[i];
  return std::accumulate(sums.begin(), sums.end(), 0.0F);
}

// The nearest `count` other rows of row `query`, nearest first.
std::vector<int> Nearest(const Outputs& normalized, int query, int count) {
  std::vector<std::pair<float, int>> found;  // (-similarity, row)
  for (int i = 0; i < normalized.rows(); ++i) {
    if (i == query) continue;
    found.emplace_back(
        -FastDot(normalized.row(query), normalized.row(i), normalized.width),
        i);
  }
  std::partial_sort(found.begin(), found.begin() + count, found.end());
  std::vector<int> rows(count);
  for (int i = 0; i < count; ++i) rows[i] = found[i].second;
  return rows;
}

// How many of the first k are among the other's first k.
int Common(const std::vector<int>& a, const std::vector<int>& b, int k) {
  return static_cast<int>(
      std::count_if(a.begin(), a.begin() + k, [&b, k](int row) {
        return std::find(b.begin(), b.begin() + k, row) != b.begin() + k;
      }));
}

double Percentile(const std::vector<double>& ascending, double percent) {
  const double place = percent / 100 * (ascending.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, ascending.size() - 1);
  return ascending[below] +
         (place - below) * (ascending[above] - ascending[below]);
}

// From 1; equal values have the mean of their ranks.
std::vector<double> Ranks(const std::vector<double>& values) {
  std::vector<int64_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&values](int64_t i, int64_t j) { return values[i] < values[j]; });
  std::vector<double> ranks(values.size());
  for (size_t first = 0; first < order.size();) {
    size_t end = first + 1;
    while (end < order.size() && values[order[end]] == values[order[first]]) {
      ++end;
    }
    const double mean = (static_cast<double>(first) + 1 + end) / 2;
    for (; first < end; ++first) ranks[order[first]] = mean;
  }
  return ranks;
}

std::optional<double> Pearson(const std::vector<double>& a,
                              const std::vector<double>& b) {
  const double n = a.size();
  const double mean_a = std::accumulate(a.begin(), a.end(), 0.0) / n;
  const double mean_b = std::accumulate(b.begin(), b.end(), 0.0) / n;
  double ab = 0;
  double aa = 0;
  double bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ab += (a[i] - mean_a) * (b[i] - mean_b);
    aa += (a[i] - mean_a) * (a[i] - mean_a);
    bb += (b[i] - mean_b) * (b[i] - mean_b);
  }
  if (aa == 0 || bb == 0) return std::nullopt;
  return std::clamp(ab / std::sqrt(aa * bb), -1.0, 1.0);
}

// The standard's distributions differ between libraries; this does not. What
// it favours low numbers by, below / 2^64, is nothing here.
uint64_t Draw(std::mt19937_64& random, uint64_t below) {
  return random() % below;
}

}  // namespace

std::vector<double> RowCosines(const Outputs& a, const Outputs& b) {
  std::vector<double> cosines(a.rows());
  for (int i = 0; i < a.rows(); ++i) {
    cosines[i] = CosineOf(a.row(i), b.row(i), a.width);
  }
  return cosines;
}

Distribution Summarize(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {.mean = std::accumulate(values.begin(), values.end(), 0.0) /
                  values.size(),
          .min = values.front(),
          .p1 = Percentile(values, 1),
          .p5 = Percentile(values, 5),
          .p50 = Percentile(values, 50)};
}

Histogram CosineHistogram(const std::vector<double>& cosines, int bins) {
  constexpr double kLeastSpan = 1e-6;
  const double least = *std::min_element(cosines.begin(), cosines.end());
  double span = kLeastSpan;
  for (int step = 0; span < 1 - least && span < 2; ++step) {
    constexpr std::array<double, 3> kRound = {1, 2, 5};
    span = kLeastSpan * kRound[step % 3] * std::pow(10, step / 3);
  }
  Histogram histogram = {.low = 1 - span, .high = 1};
  histogram.counts.resize(bins);
  for (const double cosine : cosines) {
    const auto bin = static_cast<int>((cosine - histogram.low) / span * bins);
    ++histogram.counts[std::clamp(bin, 0, bins - 1)];
  }
  return histogram;
}

NeighbourAgreement CompareNeighbours(const Outputs& dense,
                                     const Outputs& compressed,
                                     int most_queries, uint64_t seed) {
  const Outputs a = Normalized(dense);
  const Outputs b = Normalized(compressed);
  const int others = a.rows() - 1;
  const int count = std::min(others, kMostNeighbours);
  if (count < 2) return {};
  const std::vector<int> queries = Sample(a.rows(), most_queries, seed);
  int64_t first = 0;
  int64_t all = 0;
  for (const int query : queries) {
    const std::vector<int> near_a = Nearest(a, query, count);
    const std::vector<int> near_b = Nearest(b, query, count);
    first += Common(near_a, near_b, 1);
    all += Common(near_a, near_b, count);
  }
  NeighbourAgreement result;
  result.queries = static_cast<int>(queries.size());
  const double looked_up = result.queries;
  result.recall_at_1 = first / looked_up;
  if (others > kMostNeighbours) {
    result.recall_at_10 = all / (looked_up * kMostNeighbours);
  }
  return result;
}

std::optional<double> Spearman(const std::vector<double>& a,
                               const std::vector<double>& b) {
  if (a.size() < 2) return std::nullopt;
  return Pearson(Ranks(a), Ranks(b));
}

SimilarityAgreement CompareSimilarities(const Outputs& dense,
                                        const Outputs& compressed,
                                        int64_t most_pairs, uint64_t seed) {
  const Outputs a = Normalized(dense);
  const Outputs b = Normalized(compressed);
  const int64_t rows = a.rows();
  std::vector<double> in_a;
  std::vector<double> in_b;
  const auto add = [&](int64_t i, int64_t j) {
    in_a.push_back(Dot(a.row(i), a.row(j), a.width));
    in_b.push_back(Dot(b.row(i), b.row(j), b.width));
  };
  SimilarityAgreement result;
  result.sampled = rows * (rows - 1) / 2 > most_pairs;
  if (result.sampled) {
    std::mt19937_64 random(seed);
    for (int64_t pair = 0; pair < most_pairs; ++pair) {
      const auto i = static_cast<int64_t>(Draw(random, rows));
      const auto other = static_cast<int64_t>(Draw(random, rows - 1));
      add(i, other < i ? other : other + 1);
    }
  } else {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = i + 1; j < rows; ++j) add(i, j);
    }
  }
  result.pairs = static_cast<int64_t>(in_a.size());
  result.spearman = Spearman(in_a, in_b);
  return result;
}

int ArgMax(const float* row, int width) {
  return static_cast<int>(std::max_element(row, row + width) - row);
}

double MaxError(const float* a, const float* b, int width) {
  double most = 0;
  for (int i = 0; i < width; ++i) {
    most = std::max(most, std::abs(double{a[i]} - b[i]));
  }
  return most;
}

LogitAgreement CompareLogits(const Outputs& dense, const Outputs& compressed) {
  LogitAgreement result;
  double sum = 0;
  int same = 0;
  for (int i = 0; i < dense.rows(); ++i) {
    const float* a = dense.row(i);
    const float* b = compressed.row(i);
    for (int j = 0; j < dense.width; ++j) sum += std::abs(double{a[j]} - b[j]);
    result.max_error = std::max(result.max_error, MaxError(a, b, dense.width));
    if (ArgMax(a, dense.width) == ArgMax(b, dense.width)) ++same;
  }
  result.mean_error = sum / static_cast<double>(dense.values.size());
  if (dense.width > 1) {
    result.argmax = static_cast<double>(same) / dense.rows();
  } else {
    result.score_spearman =
        Spearman({dense.values.begin(), dense.values.end()},
                 {compressed.values.begin(), compressed.values.end()});
  }
  return result;
}

void RelativeError::Add(const float* reference, const float* other,
                        int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const double difference = double{reference[i]} - other[i];
    difference_ += difference * difference;
    reference_ += double{reference[i]} * reference[i];
  }
}

std::optional<double> RelativeError::value() const {
  if (difference_ == 0) return 0;
  if (reference_ == 0) return std::nullopt;
  return std::sqrt(difference_ / reference_);
}

std::vector<int> Sample(int below, int count, uint64_t seed) {
  std::vector<int> numbers(below);
  std::iota(numbers.begin(), numbers.end(), 0);
  if (count >= below) return numbers;
  std::mt19937_64 random(seed);
  for (int i = 0; i < count; ++i) {  // the first steps of a shuffle
    std::swap(numbers[i], numbers[i + Draw(random, below - i)]);
  }
  numbers.resize(count);
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

}  // namespace svdserve
