#include "engine/schedule/byte_budget.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <limits>
#include <random>
#include <thread>
#include <utility>
#include <vector>

namespace svdserve {
namespace {

TEST(ByteBudgetTest, GivesUntilTheLimitAndTakesBack) {
  ByteBudget budget(100);
  std::optional<Reservation> first = budget.TryReserve(60);
  ASSERT_TRUE(first.has_value());
  EXPECT_FALSE(budget.TryReserve(41).has_value());
  std::optional<Reservation> second = budget.TryReserve(40);
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(budget.reserved(), 100);
  first.reset();
  EXPECT_EQ(budget.reserved(), 40);
  EXPECT_EQ(budget.available(), 60);
  EXPECT_EQ(budget.peak(), 100);
}

TEST(ByteBudgetTest, HugeRequestsDoNotWrapAround) {
  ByteBudget budget(100);
  const auto held = budget.TryReserve(1);
  const uint64_t huge = std::numeric_limits<uint64_t>::max();
  EXPECT_FALSE(budget.TryReserve(huge).has_value());
  EXPECT_EQ(budget.reserved(), 1);
}

TEST(ByteBudgetTest, AReservationMovesAndReleasesOnce) {
  ByteBudget budget(100);
  Reservation a = *budget.TryReserve(30);
  Reservation b = std::move(a);
  EXPECT_EQ(b.bytes(), 30);
  EXPECT_EQ(budget.reserved(), 30);
  Reservation c = *budget.TryReserve(50);
  c = std::move(b);  // gives the 50 back
  EXPECT_EQ(budget.reserved(), 30);
  c.Release();
  c.Release();
  EXPECT_EQ(budget.reserved(), 0);
}

TEST(ByteBudgetTest, ThreadsNeverHoldMoreThanTheLimit) {
  constexpr uint64_t kLimit = 1000;
  ByteBudget budget(kLimit);
  std::atomic<uint64_t> held{0};  // counted from outside, after and before
  std::atomic<bool> exceeded{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 20000; ++i) {
        const uint64_t bytes = random() % 700;
        const auto reservation = budget.TryReserve(bytes);
        if (!reservation) continue;
        if (held.fetch_add(bytes) + bytes > kLimit) exceeded = true;
        held.fetch_sub(bytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(exceeded);
  EXPECT_EQ(budget.reserved(), 0);
  EXPECT_LE(budget.peak(), kLimit);
  EXPECT_GT(budget.peak(), 0);
}

}  // namespace
}  // namespace svdserve
