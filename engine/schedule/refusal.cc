#include "engine/schedule/refusal.h"

#include <utility>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace svdserve {
namespace {

constexpr char kPayloadUrl[] = "svdserve/refusal";

// Fields in the order of RefusalDetail, one a line; the subject comes last.
std::string Serialize(const RefusalDetail& detail) {
  return absl::StrCat(
      static_cast<int>(detail.reason), "\n", detail.needed_bytes, "\n",
      detail.available_bytes, "\n", detail.limit_bytes, "\n",
      absl::ToInt64Nanoseconds(detail.retry_after), "\n", detail.subject);
}

std::optional<RefusalDetail> Parse(const std::string& text) {
  const std::vector<std::string> fields =
      absl::StrSplit(text, absl::MaxSplits('\n', 5));
  if (fields.size() != 6) return std::nullopt;
  RefusalDetail detail;
  int reason = 0;
  int64_t retry_nanoseconds = 0;
  if (!absl::SimpleAtoi(fields[0], &reason) || reason < 0 ||
      reason > static_cast<int>(RefusalReason::kDraining) ||
      !absl::SimpleAtoi(fields[1], &detail.needed_bytes) ||
      !absl::SimpleAtoi(fields[2], &detail.available_bytes) ||
      !absl::SimpleAtoi(fields[3], &detail.limit_bytes) ||
      !absl::SimpleAtoi(fields[4], &retry_nanoseconds)) {
    return std::nullopt;
  }
  detail.reason = static_cast<RefusalReason>(reason);
  detail.retry_after = absl::Nanoseconds(retry_nanoseconds);
  detail.subject = fields[5];
  return detail;
}

}  // namespace

const char* RefusalReasonName(RefusalReason reason) {
  switch (reason) {
    case RefusalReason::kTextBudget:
      return "text_budget";
    case RefusalReason::kQueueBudget:
      return "queue_budget";
    case RefusalReason::kTooLarge:
      return "too_large";
    case RefusalReason::kInvalid:
      return "invalid";
    case RefusalReason::kExpired:
      return "expired";
    case RefusalReason::kCancelled:
      return "cancelled";
    case RefusalReason::kDraining:
      return "draining";
  }
  return "unknown";
}

absl::Status MakeRefusal(absl::StatusCode code, const std::string& message,
                         const RefusalDetail& detail) {
  absl::Status status(code, message);
  status.SetPayload(kPayloadUrl, absl::Cord(Serialize(detail)));
  return status;
}

std::optional<RefusalDetail> GetRefusal(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayloadUrl);
  if (!payload.has_value()) return std::nullopt;
  return Parse(std::string(*payload));
}

}  // namespace svdserve
