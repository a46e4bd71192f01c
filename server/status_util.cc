#include "server/status_util.h"

#include "absl/strings/str_cat.h"
#include "engine/schedule/refusal.h"
#include "google/rpc/error_details.pb.h"

namespace svdserve {
namespace {

void AddDetails(const RefusalDetail& refusal, google::rpc::Status* status) {
  if (refusal.retry_after > absl::ZeroDuration()) {
    google::rpc::RetryInfo retry;
    const int64_t nanos = absl::ToInt64Nanoseconds(refusal.retry_after);
    retry.mutable_retry_delay()->set_seconds(nanos / 1'000'000'000);
    retry.mutable_retry_delay()->set_nanos(nanos % 1'000'000'000);
    status->add_details()->PackFrom(retry);
  }
  if (refusal.subject.empty()) return;
  google::rpc::QuotaFailure quota;
  auto* violation = quota.add_violations();
  violation->set_subject(refusal.subject);
  violation->set_description(absl::StrCat(
      RefusalReasonName(refusal.reason), ": ", refusal.needed_bytes,
      " bytes needed, ", refusal.available_bytes, " of ", refusal.limit_bytes,
      " available"));
  status->add_details()->PackFrom(quota);
}

}  // namespace

google::rpc::Status ToRpcStatus(const absl::Status& status) {
  google::rpc::Status result;
  result.set_code(static_cast<int>(status.code()));
  result.set_message(std::string(status.message()));
  if (const auto refusal = GetRefusal(status)) AddDetails(*refusal, &result);
  return result;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const google::rpc::Status full = ToRpcStatus(status);
  return {static_cast<grpc::StatusCode>(full.code()), full.message(),
          full.details().empty() ? "" : full.SerializeAsString()};
}

std::optional<std::string> RetryPushback(const absl::Status& status) {
  const auto refusal = GetRefusal(status);
  // Another server may well take what a draining one refuses.
  if (!refusal || absl::IsUnavailable(status)) return std::nullopt;
  if (refusal->retry_after <= absl::ZeroDuration()) return "-1";
  const absl::Duration rounded_up =
      absl::Ceil(refusal->retry_after, absl::Milliseconds(1));
  return absl::StrCat(absl::ToInt64Milliseconds(rounded_up));
}

std::string CodeName(absl::StatusCode code) {
  return code == absl::StatusCode::kOk ? "OK" : absl::StatusCodeToString(code);
}

}  // namespace svdserve
