#include "server/log.h"

#include <unistd.h>

#include <array>
#include <atomic>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "nlohmann/json.hpp"

namespace svdserve {
namespace {

std::atomic<LogFormat> log_format{LogFormat::kText};
std::atomic<LogLevel> log_level{LogLevel::kInfo};

const char* LevelName(LogLevel level) {
  constexpr std::array<const char*, 4> kNames = {"debug", "info", "warning",
                                                 "error"};
  return kNames[static_cast<int>(level)];
}

nlohmann::ordered_json ToJson(const LogValue& value) {
  return std::visit([](const auto& v) { return nlohmann::ordered_json(v); },
                    value.value());
}

// JSON's escapes keep one event on one line, whatever a value contains.
std::string Dump(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false,
                   nlohmann::ordered_json::error_handler_t::replace);
}

bool IsPlain(const std::string& text) {
  return !text.empty() &&
         text.find_first_of(" \t\r\n\"\\=") == std::string::npos;
}

std::string FormatText(const std::string& time, LogLevel level,
                       const std::string& message, const LogFields& fields) {
  std::string line = absl::StrCat(time, " ", LevelName(level), " ");
  const bool one_line = message.find('\n') == std::string::npos;
  line += one_line ? message : Dump(message);
  for (const auto& [name, value] : fields) {
    const auto* text = std::get_if<std::string>(&value.value());
    const bool plain = text != nullptr && IsPlain(*text);
    absl::StrAppend(&line, " ", name, "=", plain ? *text : Dump(ToJson(value)));
  }
  return line;
}

std::string FormatJson(const std::string& time, LogLevel level,
                       const std::string& message, const LogFields& fields) {
  nlohmann::ordered_json line;
  line["time"] = time;
  line["level"] = LevelName(level);
  line["message"] = message;
  for (const auto& [name, value] : fields) line[name] = ToJson(value);
  return Dump(line);
}

}  // namespace

void SetLog(LogFormat format, LogLevel level) {
  log_format = format;
  log_level = level;
}

bool LogEnabled(LogLevel level) { return level >= log_level.load(); }

std::string FormatLogLine(LogFormat format, absl::Time time, LogLevel level,
                          const std::string& message, const LogFields& fields) {
  const std::string stamp =
      absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", time, absl::UTCTimeZone());
  return format == LogFormat::kJson ? FormatJson(stamp, level, message, fields)
                                    : FormatText(stamp, level, message, fields);
}

void Log(LogLevel level, const std::string& message, const LogFields& fields) {
  if (!LogEnabled(level)) return;
  std::string line =
      FormatLogLine(log_format, absl::Now(), level, message, fields);
  line += '\n';
  // A log that cannot be written must not stop the server.
  [[maybe_unused]] const ssize_t written =
      write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace svdserve
