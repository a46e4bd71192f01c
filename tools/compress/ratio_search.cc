#include "tools/compress/ratio_search.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace svdserve {
namespace {

constexpr int kGuesses = 4;
constexpr double kTiny = 1e-12;  // errors and losses may be zero, to rounding

}  // namespace

RatioSearch::RatioSearch(double target, int first,
                         std::vector<double> predicted)
    : target_(target), first_(first), predicted_(std::move(predicted)) {}

double RatioSearch::Predicted(int hundredths) const {
  return std::max(predicted_[hundredths - first_], kTiny);
}

double RatioSearch::Expected(int hundredths) const {
  double log_factor = 0;
  const std::optional<Measurement>& a = misses_ ? misses_ : keeps_;
  const std::optional<Measurement>& b = misses_ && keeps_ ? keeps_ : before_;
  if (a) log_factor = a->log_factor;
  if (a && b) {
    const double share = static_cast<double>(hundredths - a->hundredths) /
                         (b->hundredths - a->hundredths);
    log_factor = std::lerp(a->log_factor, b->log_factor, share);
  }
  return Predicted(hundredths) * std::exp(log_factor);
}

std::optional<int> RatioSearch::Next() const {
  const int low = misses_ ? misses_->hundredths : first_ - 1;
  const int high = keeps_ ? keeps_->hundredths : last() + 1;
  if (high - low <= 1) return std::nullopt;
  if (attempts_ >= kGuesses) return (low + high) / 2;
  for (int h = low + 1; h < high; ++h) {
    if (Expected(h) <= target_) return h;
  }
  return high - 1;
}

void RatioSearch::Measured(int hundredths, double error) {
  ++attempts_;
  const Measurement measurement = {
      hundredths, std::log(std::max(error, kTiny) / Predicted(hundredths))};
  std::optional<Measurement>& side = error <= target_ ? keeps_ : misses_;
  before_ = std::exchange(side, measurement);
}

std::optional<int> RatioSearch::Found() const {
  if (!keeps_) return std::nullopt;
  return keeps_->hundredths;
}

}  // namespace svdserve
