#include "server/status_util.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/schedule/refusal.h"
#include "google/rpc/error_details.pb.h"

namespace svdserve {
namespace {

absl::Status Refusal(absl::StatusCode code, absl::Duration retry_after) {
  RefusalDetail detail;
  detail.reason = RefusalReason::kQueueBudget;
  detail.subject = "queue_activation_bytes";
  detail.needed_bytes = 700;
  detail.available_bytes = 100;
  detail.limit_bytes = 1000;
  detail.retry_after = retry_after;
  return MakeRefusal(code, "the queue is full", detail);
}

TEST(StatusUtilTest, CodesAndMessagesAreKept) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  const grpc::Status status =
      ToGrpcStatus(absl::InvalidArgumentError("inputs is empty"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "inputs is empty");
  EXPECT_EQ(status.error_details(), "");
  EXPECT_EQ(CodeName(absl::StatusCode::kOk), "OK");
  EXPECT_EQ(CodeName(absl::StatusCode::kResourceExhausted),
            "RESOURCE_EXHAUSTED");
}

TEST(StatusUtilTest, ARefusalCarriesRetryInfoAndQuotaFailure) {
  const grpc::Status status = ToGrpcStatus(
      Refusal(absl::StatusCode::kResourceExhausted, absl::Milliseconds(1250)));
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.code(), 8);
  EXPECT_EQ(details.message(), "the queue is full");
  ASSERT_EQ(details.details_size(), 2);

  google::rpc::RetryInfo retry;
  ASSERT_TRUE(details.details(0).UnpackTo(&retry));
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
  EXPECT_EQ(retry.retry_delay().nanos(), 250'000'000);

  google::rpc::QuotaFailure quota;
  ASSERT_TRUE(details.details(1).UnpackTo(&quota));
  EXPECT_EQ(quota.violations(0).subject(), "queue_activation_bytes");
  EXPECT_EQ(quota.violations(0).description(),
            "queue_budget: 700 bytes needed, 100 of 1000 available");
}

TEST(StatusUtilTest, PushbackTellsWhenARetryHelps) {
  constexpr auto kCode = absl::StatusCode::kResourceExhausted;
  EXPECT_EQ(RetryPushback(Refusal(kCode, absl::Microseconds(1100))), "2");
  EXPECT_EQ(RetryPushback(Refusal(kCode, absl::ZeroDuration())), "-1");
  EXPECT_EQ(RetryPushback(
                Refusal(absl::StatusCode::kUnavailable, absl::ZeroDuration())),
            std::nullopt);
  EXPECT_EQ(RetryPushback(absl::InternalError("x")), std::nullopt);
}

}  // namespace
}  // namespace svdserve
