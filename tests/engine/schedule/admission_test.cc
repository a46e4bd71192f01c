#include "engine/schedule/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

#include "engine/schedule/refusal.h"

namespace svdserve {
namespace {

using testing::HasSubstr;

// fixed 1000, 10 a token, 50 an input.
const CostFunction kCost(1000, 10, 50);

TEST(AdmissionTest, LongestInputIsTheTightestLimit) {
  const auto longest = [](int model, uint64_t arena, uint64_t queue) {
    return Admission(kCost, {model, arena, queue}).longest_input();
  };
  EXPECT_EQ(longest(512, 1 << 20, 1 << 20), 512);  // the model's
  EXPECT_EQ(longest(512, 2050, 1 << 20), 100);     // the arena's
  EXPECT_EQ(longest(512, 1 << 20, 250), 20);       // the queue's
  EXPECT_EQ(longest(512, 1059, 1 << 20), 0);       // not one token
}

TEST(AdmissionTest, WhatCanNeverFitSaysWhatWould) {
  const Admission admission(kCost, {512, 2050, 1 << 20});
  EXPECT_TRUE(admission.CheckFits(100).ok());
  const absl::Status status = admission.CheckFits(101);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("2060"));  // needed
  EXPECT_THAT(std::string(status.message()), HasSubstr("2050"));  // allowed
  EXPECT_THAT(std::string(status.message()), HasSubstr("has 100 tokens"));
  const auto refusal = GetRefusal(status);
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->reason, RefusalReason::kTooLarge);
  EXPECT_EQ(refusal->needed_bytes, 2060);
  EXPECT_EQ(refusal->limit_bytes, 2050);
  EXPECT_EQ(refusal->retry_after, absl::ZeroDuration());
}

TEST(AdmissionTest, TheQueueBudgetCanBeWhatNeverFits) {
  const Admission admission(kCost, {512, 1 << 20, 250});
  const auto refusal = GetRefusal(admission.CheckFits(21));
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->subject, "queue_activation_bytes");
  EXPECT_EQ(refusal->needed_bytes, 260);
  EXPECT_EQ(refusal->limit_bytes, 250);
}

TEST(AdmissionTest, LongerThanTheModelIsInvalid) {
  const Admission admission(kCost, {512, 1 << 20, 1 << 20});
  const absl::Status status = admission.CheckFits(513);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetRefusal(status)->reason, RefusalReason::kInvalid);
  EXPECT_THAT(std::string(status.message()), HasSubstr("513"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("512"));
}

TEST(AdmissionTest, AFullQueueSaysWhenToComeBack) {
  Admission admission(kCost, {512, 1 << 20, 10000});
  admission.RecordDrained(5000, absl::Seconds(1));
  absl::StatusOr<Reservation> held = admission.Reserve(500);  // 5050
  ASSERT_TRUE(held.ok());
  EXPECT_EQ(held->bytes(), 5050);
  const absl::Status status = admission.Reserve(500).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  const auto refusal = GetRefusal(status);
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->reason, RefusalReason::kQueueBudget);
  EXPECT_EQ(refusal->needed_bytes, 5050);
  EXPECT_EQ(refusal->available_bytes, 4950);
  EXPECT_EQ(refusal->limit_bytes, 10000);
  EXPECT_EQ(refusal->retry_after, absl::Milliseconds(1010));
  held->Release();
  EXPECT_TRUE(admission.Reserve(500).ok());
}

}  // namespace
}  // namespace svdserve
