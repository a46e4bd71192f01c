// One line per event on stderr: text for people or JSON for collectors. Texts
// of requests are never logged.
//
// The format and the level are set once, before threads start; logging is
// thread-safe and each line is written by one write().
//
//   Log(LogLevel::kInfo, "serving", {{"model", name}, {"port", port}});
#ifndef SVDSERVE_SERVER_LOG_H_
#define SVDSERVE_SERVER_LOG_H_

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/time/time.h"

namespace svdserve {

enum class LogFormat { kText, kJson };
enum class LogLevel { kDebug, kInfo, kWarning, kError };

class LogValue {
 public:
  // Implicit, so that a call site reads as a list of names and values.
  LogValue(std::string v) : value_(std::move(v)) {}          // NOLINT
  LogValue(const char* v) : value_(std::string(v)) {}        // NOLINT
  LogValue(int v) : value_(int64_t{v}) {}                    // NOLINT
  LogValue(int64_t v) : value_(v) {}                         // NOLINT
  LogValue(uint64_t v) : value_(static_cast<int64_t>(v)) {}  // NOLINT
  LogValue(double v) : value_(v) {}                          // NOLINT
  LogValue(bool v) : value_(v) {}                            // NOLINT

  const std::variant<std::string, int64_t, double, bool>& value() const {
    return value_;
  }

 private:
  std::variant<std::string, int64_t, double, bool> value_;
};
using LogFields = std::vector<std::pair<std::string, LogValue>>;

void SetLog(LogFormat format, LogLevel level);
bool LogEnabled(LogLevel level);
void Log(LogLevel level, const std::string& message,
         const LogFields& fields = {});

// The line without its newline, for tests.
std::string FormatLogLine(LogFormat format, absl::Time time, LogLevel level,
                          const std::string& message, const LogFields& fields);

}  // namespace svdserve

#endif  // SVDSERVE_SERVER_LOG_H_
