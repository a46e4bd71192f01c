#include "tools/compress/profile.h"

#include <cmath>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace svdserve {
namespace {

LossCurve CurveOf(std::vector<double> lost,
                  const std::vector<MeasuredError>& measured) {
  LossCurve curve;
  curve.lost = std::move(lost);
  FitCurve(measured, &curve);
  return curve;
}

TEST(FitCurveTest, GoesThroughBothMeasurements) {
  const LossCurve curve =
      CurveOf({1, 0.4, 0.1, 0},
              {{.rank = 2, .error = 0.02}, {.rank = 1, .error = 0.12}});
  EXPECT_NEAR(curve.At(2), 0.02, 1e-12);
  EXPECT_NEAR(curve.At(1), 0.12, 1e-12);
  EXPECT_NEAR(curve.power, std::log(6) / std::log(4), 1e-12);
  EXPECT_EQ(curve.At(3), 0);
  EXPECT_EQ(curve.At(0), 0);  // dense
}

TEST(FitCurveTest, OneMeasurementMakesALine) {
  const LossCurve curve =
      CurveOf({1, 0.4, 0.1, 0}, {{.rank = 2, .error = 0.02}});
  EXPECT_NEAR(curve.At(2), 0.02, 1e-12);
  EXPECT_NEAR(curve.At(1), 0.08, 1e-12);
}

TEST(FitCurveTest, PowersAreKeptWithinReason) {
  const LossCurve steep = CurveOf({1, 0.4, 0.2, 0}, {{2, 0.001}, {1, 0.9}});
  EXPECT_EQ(steep.power, 2);
  EXPECT_NEAR(steep.At(2), 0.001, 1e-12);
  const LossCurve falling = CurveOf({1, 0.4, 0.2, 0}, {{2, 0.02}, {1, 0.01}});
  EXPECT_EQ(falling.power, 0.5);
}

TEST(FitCurveTest, MatricesThatLoseNothingCostNothing) {
  const LossCurve curve = CurveOf({1, 0, 0}, {{2, 0.01}, {1, 0.01}});
  EXPECT_EQ(curve.At(1), 0);
  const LossCurve unread = CurveOf({1, 0.4, 0.2}, {{2, 0}, {1, 0}});
  EXPECT_EQ(unread.At(1), 0);
}

}  // namespace
}  // namespace svdserve
