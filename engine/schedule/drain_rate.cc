#include "engine/schedule/drain_rate.h"

#include <algorithm>

namespace svdserve {
namespace {

constexpr double kNewestWeight = 0.2;  // about the last ten records count
constexpr absl::Duration kShortest = absl::Milliseconds(10);
constexpr absl::Duration kLongest = absl::Seconds(30);
constexpr absl::Duration kUnmeasured = absl::Milliseconds(100);

}  // namespace

void DrainRate::Record(uint64_t bytes, absl::Duration took) {
  if (bytes == 0 || took <= absl::ZeroDuration()) return;
  const double rate = static_cast<double>(bytes) / absl::ToDoubleSeconds(took);
  absl::MutexLock lock(&mu_);
  bytes_per_second_ =
      bytes_per_second_ == 0
          ? rate
          : bytes_per_second_ + kNewestWeight * (rate - bytes_per_second_);
}

absl::Duration DrainRate::TimeFor(uint64_t bytes) const {
  absl::MutexLock lock(&mu_);
  if (bytes_per_second_ == 0) return kUnmeasured;
  return std::clamp(
      absl::Seconds(static_cast<double>(bytes) / bytes_per_second_), kShortest,
      kLongest);
}

}  // namespace svdserve
