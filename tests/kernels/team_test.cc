#include "kernels/team.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace svdserve::kernels {
namespace {

class TeamTest : public testing::TestWithParam<int> {};

TEST_P(TeamTest, EveryIndexIsCalledOnce) {
  Team team(GetParam(), "test");
  EXPECT_EQ(team.size(), GetParam());
  for (int count : {0, 1, 2, 7, 1000}) {
    for (int grain : {1, 3, 64}) {
      std::vector<std::atomic<int>> calls(count);
      team.ParallelFor(count, grain,
                       [&](int, int index) { calls[index].fetch_add(1); });
      for (const std::atomic<int>& n : calls) EXPECT_EQ(n.load(), 1);
    }
  }
}

TEST_P(TeamTest, AWorkerRunsOneIndexAtATime) {
  Team team(GetParam(), "test");
  std::vector<std::atomic<int>> inside(team.size());
  std::atomic<bool> overlapped{false};
  team.ParallelFor(2000, [&](int worker, int) {
    ASSERT_LT(worker, team.size());
    if (inside[worker].fetch_add(1) != 0) overlapped.store(true);
    inside[worker].fetch_sub(1);
  });
  EXPECT_FALSE(overlapped.load());
}

TEST_P(TeamTest, WhatALoopWroteIsSeenAfterItAndByTheNext) {
  Team team(GetParam(), "test");
  constexpr int kCount = 64;
  // Plain ints, written by one loop and read by the next: TSan is the judge.
  std::vector<int> values(kCount, -1);
  std::vector<int> previous(kCount, -1);
  for (int loop = 0; loop < 500; ++loop) {
    team.ParallelFor(kCount,
                     [&](int, int i) { previous[i] = values[kCount - 1 - i]; });
    for (int value : previous) ASSERT_EQ(value, loop - 1);
    team.ParallelFor(kCount, [&](int, int i) { values[i] = loop; });
    for (int value : values) ASSERT_EQ(value, loop);
  }
}

TEST_P(TeamTest, LoopsAfterASleepAreComplete) {
  Team team(GetParam(), "test");
  for (int loop = 0; loop < 5; ++loop) {
    // Longer than the workers spin.
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::atomic<int> sum{0};
    team.ParallelFor(100, [&](int, int i) { sum.fetch_add(i); });
    EXPECT_EQ(sum.load(), 4950);
  }
}

// A worker may be anywhere when it is told to stop.
TEST_P(TeamTest, StopsAtAnyMoment) {
  for (int i = 0; i < 300; ++i) {
    Team team(GetParam(), "test");
    if (i % 2 == 0) team.ParallelFor(8, [](int, int) {});
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, TeamTest, testing::Values(1, 2, 3, 8));

TEST(Team, TheCallerIsWorkerZeroAndThreadsAreNamed) {
  Team team(2, "cpu0");
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<bool> other_came{false};
  std::string name(16, '\0');
  // The caller waits inside its index for the other worker to take one.
  team.ParallelFor(2, [&](int worker, int) {
    EXPECT_EQ(worker == 0, std::this_thread::get_id() == caller);
    if (worker == 1) {
      pthread_getname_np(pthread_self(), name.data(), name.size());
      other_came.store(true);
    } else {
      while (!other_came.load()) std::this_thread::yield();
    }
  });
  EXPECT_STREQ(name.c_str(), "cpu0/1");
}

}  // namespace
}  // namespace svdserve::kernels
