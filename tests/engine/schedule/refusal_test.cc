#include "engine/schedule/refusal.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "absl/strings/cord.h"

namespace svdserve {
namespace {

TEST(RefusalTest, DetailTravelsInsideTheStatus) {
  const RefusalDetail detail = {.reason = RefusalReason::kQueueBudget,
                                .subject = "queue_activation_bytes",
                                .needed_bytes = 1ull << 40,
                                .available_bytes = 7,
                                .limit_bytes = 99,
                                .retry_after = absl::Milliseconds(125)};
  const absl::Status status =
      MakeRefusal(absl::StatusCode::kResourceExhausted, "queue full", detail);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "queue full");
  const std::optional<RefusalDetail> got = GetRefusal(status);
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(got->reason, detail.reason);
  EXPECT_EQ(got->subject, detail.subject);
  EXPECT_EQ(got->needed_bytes, detail.needed_bytes);
  EXPECT_EQ(got->available_bytes, detail.available_bytes);
  EXPECT_EQ(got->limit_bytes, detail.limit_bytes);
  EXPECT_EQ(got->retry_after, detail.retry_after);
}

TEST(RefusalTest, OtherStatusesCarryNone) {
  EXPECT_FALSE(GetRefusal(absl::OkStatus()).has_value());
  EXPECT_FALSE(GetRefusal(absl::InternalError("x")).has_value());
}

TEST(RefusalTest, DamagedPayloadIsNoRefusal) {
  for (const char* payload : {"", "1\n2", "9\n0\n0\n0\n0\nx", "a\n0\n0\n0\n0\n",
                              "-1\n0\n0\n0\n0\nx", "1\n-5\n0\n0\n0\nx"}) {
    absl::Status status = absl::InternalError("x");
    status.SetPayload("svdserve/refusal", absl::Cord(payload));
    EXPECT_FALSE(GetRefusal(status).has_value()) << payload;
  }
}

TEST(RefusalTest, NamesAreDistinctLabels) {
  std::set<std::string> names;
  for (int i = 0; i <= static_cast<int>(RefusalReason::kDraining); ++i) {
    names.insert(RefusalReasonName(static_cast<RefusalReason>(i)));
  }
  EXPECT_EQ(names.size(), 7);
  EXPECT_FALSE(names.contains("unknown"));
}

}  // namespace
}  // namespace svdserve
