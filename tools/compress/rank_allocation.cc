#include "tools/compress/rank_allocation.h"

#include <cmath>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"

namespace svdserve {
namespace {

constexpr int kSmallestRank = 8;
constexpr int kRankStep = 16;

bool Pays(const MatrixSize& size, int rank) {
  return size.parameters(rank) < size.dense_parameters();
}

int SmallestRank(const MatrixSize& size) {
  return Pays(size, kSmallestRank) ? kSmallestRank : 0;
}

// The next larger choice: 8, 16, 32, 48, ..., dense; nothing after dense.
std::optional<int> NextRank(const MatrixSize& size, int rank) {
  if (rank == 0) return std::nullopt;
  const int next = rank / kRankStep * kRankStep + kRankStep;
  return Pays(size, next) ? next : 0;
}

double Share(const MatrixSize& size, int rank) {
  return static_cast<double>(size.parameters(rank)) / size.dense_parameters();
}

// The kind with the least share, below `ratio`, among those whose next rank
// fits into `spare` parameters; -1 if there is none.
int KindToRaise(const LayerSizes& sizes, const KindRanks& ranks, double ratio,
                int64_t spare) {
  int best = -1;
  for (int k = 0; k < kMatrixKinds; ++k) {
    const std::optional<int> next = NextRank(sizes[k], ranks[k]);
    if (!next.has_value() || Share(sizes[k], ranks[k]) >= ratio) continue;
    if (sizes[k].parameters(*next) - sizes[k].parameters(ranks[k]) > spare) {
      continue;
    }
    if (best < 0 ||
        Share(sizes[k], ranks[k]) < Share(sizes[best], ranks[best])) {
      best = k;
    }
  }
  return best;
}

}  // namespace

int64_t LayerParameters(const LayerSizes& sizes, const KindRanks& ranks) {
  int64_t sum = 0;
  for (int k = 0; k < kMatrixKinds; ++k) sum += sizes[k].parameters(ranks[k]);
  return sum;
}

absl::Status CheckRatio(double ratio) {
  if (!(ratio > 0 && ratio < 1)) {  // also refuses NaN
    return absl::InvalidArgumentError(absl::StrFormat(
        "ratio %g: want a number above 0 and below 1, the share of the "
        "encoder's weight-matrix parameters to keep",
        ratio));
  }
  return absl::OkStatus();
}

absl::StatusOr<KindRanks> AllocateRanks(const LayerSizes& sizes, double ratio) {
  if (absl::Status s = CheckRatio(ratio); !s.ok()) return s;
  KindRanks ranks;
  for (int k = 0; k < kMatrixKinds; ++k) ranks[k] = SmallestRank(sizes[k]);
  const int64_t dense = LayerParameters(sizes, KindRanks{});
  const int64_t budget = static_cast<int64_t>(std::floor(ratio * dense));
  int64_t used = LayerParameters(sizes, ranks);
  if (used > budget) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "ratio %g is too small for this model: rank %d in every matrix keeps "
        "%.4f; give at least that",
        ratio, kSmallestRank, std::ceil(1e4 * used / dense) / 1e4));
  }
  int kind;
  while ((kind = KindToRaise(sizes, ranks, ratio, budget - used)) >= 0) {
    ranks[kind] = *NextRank(sizes[kind], ranks[kind]);
    used = LayerParameters(sizes, ranks);
  }
  return ranks;
}

}  // namespace svdserve
