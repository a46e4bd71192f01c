#include "tools/compress/ratio_search.h"

#include <cmath>
#include <functional>
#include <optional>
#include <vector>

#include "gtest/gtest.h"

namespace svdserve {
namespace {

constexpr int kFirst = 10;
constexpr int kLast = 95;

std::vector<double> Losses(const std::function<double(double)>& loss) {
  std::vector<double> losses;
  for (int h = kFirst; h <= kLast; ++h) losses.push_back(loss(h / 100.0));
  return losses;
}

struct Outcome {
  std::optional<int> found;
  int attempts = 0;
};

Outcome Search(double target, const std::function<double(double)>& predicted,
               const std::function<double(double)>& error) {
  RatioSearch search(target, kFirst, Losses(predicted));
  Outcome outcome;
  while (const std::optional<int> h = search.Next()) {
    EXPECT_GE(*h, kFirst);
    EXPECT_LE(*h, kLast);
    search.Measured(*h, error(*h / 100.0));
    if (++outcome.attempts > 20) break;
  }
  outcome.found = search.Found();
  return outcome;
}

std::optional<int> Smallest(double target,
                            const std::function<double(double)>& error) {
  for (int h = kFirst; h <= kLast; ++h) {
    if (error(h / 100.0) <= target) return h;
  }
  return std::nullopt;
}

// As all-MiniLM-L6-v2 does, about: exponential, but less than predicted.
double Predicted(double ratio) { return 0.9 * std::exp(-3.5 * ratio); }
double Error(double ratio) { return 0.62 * std::exp(-3.1 * ratio); }

TEST(RatioSearchTest, FindsTheSmallestInFewAttempts) {
  for (double target = 0.05; target < 0.5; target += 0.0173) {
    const Outcome outcome = Search(target, Predicted, Error);
    EXPECT_EQ(outcome.found, Smallest(target, Error)) << target;
    EXPECT_LE(outcome.attempts, 5) << target;
  }
}

TEST(RatioSearchTest, FindsTheSmallestWhateverWasPredicted) {
  const auto flat = [](double) { return 0.0; };
  const auto cliff = [](double ratio) { return ratio < 0.42 ? 1.0 : 1e-9; };
  EXPECT_EQ(Search(0.1, flat, cliff).found, 42);
  EXPECT_EQ(Search(0.1, cliff, Error).found, Smallest(0.1, Error));
  EXPECT_EQ(Search(0.1, flat, Error).found, Smallest(0.1, Error));
  EXPECT_LE(Search(0.1, flat, cliff).attempts, 11);
}

TEST(RatioSearchTest, SaysWhenNoneIsEnoughOrAllAre) {
  const auto bad = [](double) { return 1.0; };
  const Outcome none = Search(0.1, Predicted, bad);
  EXPECT_EQ(none.found, std::nullopt);
  EXPECT_LE(none.attempts, 3);
  const auto exact = [](double) { return 0.0; };
  EXPECT_EQ(Search(0.1, Predicted, exact).found, kFirst);
}

}  // namespace
}  // namespace svdserve
