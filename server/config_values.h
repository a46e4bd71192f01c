// Values of the configuration as people write them: 512MiB, 30s, host:port.
// Each parser returns an error that says what would be right.
#ifndef SVDSERVE_SERVER_CONFIG_VALUES_H_
#define SVDSERVE_SERVER_CONFIG_VALUES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace svdserve {

absl::StatusOr<uint64_t> ParseBytes(const std::string& text, uint64_t least,
                                    uint64_t most);
std::string FormatBytes(uint64_t bytes);

absl::StatusOr<int> ParseInt(const std::string& text, int least, int most);

absl::StatusOr<absl::Duration> ParseTime(const std::string& text,
                                         absl::Duration least,
                                         absl::Duration most);

struct HostPort {
  std::string host;
  int port = 0;
};
// "127.0.0.1:50051", "[::1]:0", "example.org:80". Port 0: any free port.
absl::StatusOr<HostPort> ParseHostPort(const std::string& text);

// The candidate that `text` was probably meant to be, or "".
std::string ClosestName(const std::string& text,
                        const std::vector<std::string>& candidates);

}  // namespace svdserve

#endif  // SVDSERVE_SERVER_CONFIG_VALUES_H_
