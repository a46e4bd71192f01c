#include "server/log.h"

#include <gtest/gtest.h>

#include "nlohmann/json.hpp"

namespace svdserve {
namespace {

const absl::Time kTime = absl::FromUnixMillis(1'700'000'000'123);

TEST(LogTest, TextIsOneReadableLine) {
  EXPECT_EQ(
      FormatLogLine(LogFormat::kText, kTime, LogLevel::kInfo, "serving",
                    {{"model", "a b\n\"c\""}, {"port", 80}, {"ok", true}}),
      "2023-11-14T22:13:20.123000Z info serving "
      "model=\"a b\\n\\\"c\\\"\" port=80 ok=true");
}

TEST(LogTest, JsonIsOneObject) {
  const std::string line =
      FormatLogLine(LogFormat::kJson, kTime, LogLevel::kError, "two\nlines",
                    {{"name", "bad utf-8 \xff"}, {"seconds", 0.25}});
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const auto json = nlohmann::json::parse(line);
  EXPECT_EQ(json["time"], "2023-11-14T22:13:20.123000Z");
  EXPECT_EQ(json["level"], "error");
  EXPECT_EQ(json["message"], "two\nlines");
  EXPECT_EQ(json["name"], "bad utf-8 \xef\xbf\xbd");
  EXPECT_EQ(json["seconds"], 0.25);
}

TEST(LogTest, TheLevelFilters) {
  SetLog(LogFormat::kText, LogLevel::kWarning);
  EXPECT_FALSE(LogEnabled(LogLevel::kInfo));
  EXPECT_TRUE(LogEnabled(LogLevel::kError));
  SetLog(LogFormat::kText, LogLevel::kInfo);
}

}  // namespace
}  // namespace svdserve
