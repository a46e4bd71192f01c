#include "engine/schedule/drain_rate.h"

#include <gtest/gtest.h>

namespace svdserve {
namespace {

TEST(DrainRateTest, FollowsWhatWasMeasured) {
  DrainRate rate;
  EXPECT_EQ(rate.TimeFor(1 << 20), absl::Milliseconds(100));  // a guess
  rate.Record(1000, absl::Seconds(1));
  EXPECT_EQ(rate.TimeFor(2000), absl::Seconds(2));
  for (int i = 0; i < 50; ++i) rate.Record(4000, absl::Seconds(1));
  EXPECT_NEAR(absl::ToDoubleSeconds(rate.TimeFor(2000)), 0.5, 0.01);
}

TEST(DrainRateTest, HintsStayWithinReason) {
  DrainRate rate;
  rate.Record(1000, absl::Seconds(1));
  EXPECT_EQ(rate.TimeFor(0), absl::Milliseconds(10));
  EXPECT_EQ(rate.TimeFor(1 << 30), absl::Seconds(30));
}

TEST(DrainRateTest, EmptyRecordsChangeNothing) {
  DrainRate rate;
  rate.Record(1000, absl::Seconds(1));
  rate.Record(0, absl::Seconds(1));
  rate.Record(1000, absl::ZeroDuration());
  EXPECT_EQ(rate.TimeFor(1000), absl::Seconds(1));
}

}  // namespace
}  // namespace svdserve
