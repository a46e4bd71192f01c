// The only seam between absl::Status and gRPC's statuses.
//
// A refusal's RefusalDetail becomes google.rpc.RetryInfo and QuotaFailure.
#ifndef SVDSERVE_SERVER_STATUS_UTIL_H_
#define SVDSERVE_SERVER_STATUS_UTIL_H_

#include <grpcpp/support/status.h>

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "google/rpc/status.pb.h"

namespace svdserve {

// For an input that is answered in its place.
google::rpc::Status ToRpcStatus(const absl::Status& status);

// For a call; details travel in `grpc-status-details-bin`.
grpc::Status ToGrpcStatus(const absl::Status& status);

// The value of the trailing metadata kRetryPushbackKey: milliseconds, or "-1"
// if retrying cannot help; none if the client may decide.
inline constexpr char kRetryPushbackKey[] = "grpc-retry-pushback-ms";
std::optional<std::string> RetryPushback(const absl::Status& status);

// "RESOURCE_EXHAUSTED", as gRPC spells it.
std::string CodeName(absl::StatusCode code);

}  // namespace svdserve

#endif  // SVDSERVE_SERVER_STATUS_UTIL_H_
