#include "server/config_values.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace svdserve {
namespace {

struct Unit {
  const char* suffix;
  uint64_t bytes;
};
constexpr std::array<Unit, 5> kUnits = {{{"TiB", uint64_t{1} << 40},
                                         {"GiB", uint64_t{1} << 30},
                                         {"MiB", uint64_t{1} << 20},
                                         {"KiB", uint64_t{1} << 10},
                                         {"B", 1}}};

absl::Status NotOne(const std::string& text, const std::string& expected) {
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is not ", expected));
}

}  // namespace

absl::StatusOr<uint64_t> ParseBytes(const std::string& text, uint64_t least,
                                    uint64_t most) {
  const std::string expected = absl::StrCat(
      "a size; write bytes or a form like 512MiB (B, KiB, MiB, GiB, TiB), "
      "from ",
      FormatBytes(least), " to ", FormatBytes(most));
  const size_t digits =
      std::min(text.find_first_not_of("0123456789"), text.size());
  const size_t unit_at =
      std::min(text.find_first_not_of(' ', digits), text.size());
  const std::string suffix = text.substr(unit_at);
  const auto unit =
      std::find_if(kUnits.begin(), kUnits.end(), [&](const Unit& u) {
        return suffix == u.suffix || (suffix.empty() && u.bytes == 1);
      });
  uint64_t count = 0;
  if (unit == kUnits.end() ||
      !absl::SimpleAtoi(text.substr(0, digits), &count)) {
    return NotOne(text, expected);
  }
  const bool overflows =
      count > std::numeric_limits<uint64_t>::max() / unit->bytes;
  const uint64_t bytes = count * unit->bytes;
  if (overflows || bytes < least || bytes > most) return NotOne(text, expected);
  return bytes;
}

std::string FormatBytes(uint64_t bytes) {
  for (const Unit& unit : kUnits) {
    if (bytes != 0 && bytes % unit.bytes == 0) {
      return absl::StrCat(bytes / unit.bytes, unit.suffix);
    }
  }
  return "0";
}

absl::StatusOr<int> ParseInt(const std::string& text, int least, int most) {
  int value = 0;
  if (!absl::SimpleAtoi(text, &value) || value < least || value > most) {
    return NotOne(text,
                  absl::StrCat("a whole number from ", least, " to ", most));
  }
  return value;
}

absl::StatusOr<absl::Duration> ParseTime(const std::string& text,
                                         absl::Duration least,
                                         absl::Duration most) {
  absl::Duration value;
  if (!absl::ParseDuration(text, &value) || value < least || value > most) {
    return NotOne(
        text, absl::StrCat("a duration; write a form like 5ms or 30s, from ",
                           absl::FormatDuration(least), " to ",
                           absl::FormatDuration(most)));
  }
  return value;
}

absl::StatusOr<HostPort> ParseHostPort(const std::string& text) {
  const char* expected =
      "an address; write host:port, like 127.0.0.1:50051 or [::1]:50051 "
      "(0.0.0.0 for all interfaces, port 0 for any free one)";
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return NotOne(text, expected);
  HostPort result;
  result.host = text.substr(0, colon);
  const bool bracketed =
      result.host.front() == '[' && result.host.back() == ']';
  if (!bracketed && result.host.find(':') != std::string::npos) {
    return NotOne(text, expected);
  }
  if (!absl::SimpleAtoi(text.substr(colon + 1), &result.port) ||
      result.port < 0 || result.port > 65535) {
    return NotOne(text, expected);
  }
  return result;
}

namespace {

// Levenshtein's distance, one row at a time.
int EditDistance(const std::string& a, const std::string& b) {
  std::vector<int> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    int diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int substituted = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({substituted, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string ClosestName(const std::string& text,
                        const std::vector<std::string>& candidates) {
  std::string closest;
  int least = std::max<int>(2, text.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const int distance = EditDistance(text, candidate);
    if (distance < least) {
      least = distance;
      closest = candidate;
    }
  }
  return closest;
}

}  // namespace svdserve
