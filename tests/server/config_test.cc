#include "server/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <string>

#include "server/config_values.h"

namespace svdserve {
namespace {

using ::testing::HasSubstr;

constexpr char kExample[] = "deploy/config.example.yaml";

std::string ErrorOf(const std::string& yaml) {
  const auto config = ParseConfig(yaml, "c.yaml");
  EXPECT_FALSE(config.ok()) << yaml;
  return std::string(config.status().message());
}

// The keys that a commented YAML file of two levels sets, as "section.key".
std::set<std::string> KeysOf(const std::string& file) {
  std::ifstream stream(file);
  std::set<std::string> keys;
  std::string section;
  for (std::string line; std::getline(stream, line);) {
    const size_t begin = line.find_first_not_of(' ');
    const size_t colon = line.find(':');
    if (begin == std::string::npos || line[begin] == '#') continue;
    const std::string name = line.substr(begin, colon - begin);
    if (begin == 0) {
      section = name;
    } else {
      keys.insert(section + "." + name);
    }
  }
  return keys;
}

TEST(ConfigTest, ExampleHoldsEveryKeyAndTheDefaults) {
  const auto example = LoadConfig(kExample);
  ASSERT_TRUE(example.ok()) << example.status();
  EXPECT_EQ(PrintConfig(*example), PrintConfig(Config()));

  const std::vector<std::string> known = ConfigKeys();
  EXPECT_EQ(KeysOf(kExample),
            std::set<std::string>(known.begin(), known.end()));
}

TEST(ConfigTest, AnEmptyFileIsTheDefaults) {
  for (const char* yaml : {"", "# nothing\n", "server:\n"}) {
    const auto config = ParseConfig(yaml, "c.yaml");
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(PrintConfig(*config), PrintConfig(Config()));
  }
}

TEST(ConfigTest, EveryKindOfValueIsRead) {
  const auto config = ParseConfig(
      "model:\n  directory: /m/a b\n"
      "server:\n  listen: '[::1]:0'\n  max_request_bytes: 64 KiB\n"
      "engine:\n  dtype: bfloat16\n  threads: 3\n  gather_window: 1.5ms\n"
      "  device: cuda\n  devices: 0,2\n  mode: fast\n"
      "drain: {grace: 5s, timeout: 1m30s}\n"
      "log: {format: json, level: debug}\n",
      "c.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->engine.model_directory, "/m/a b");
  EXPECT_EQ(config->listen, "[::1]:0");
  EXPECT_EQ(config->max_request_bytes, 65536);
  EXPECT_EQ(config->engine.backend.compute, ComputeType::kBF16);
  EXPECT_EQ(config->engine.backend.device, DeviceChoice::kCuda);
  EXPECT_EQ(config->engine.backend.devices, std::vector<int>({0, 2}));
  EXPECT_EQ(config->engine.backend.mode, Mode::kFast);
  EXPECT_EQ(config->engine.backend.threads, 3);
  EXPECT_EQ(config->engine.gather_window, absl::Microseconds(1500));
  EXPECT_EQ(config->drain_timeout, absl::Seconds(90));
  EXPECT_EQ(config->log_format, LogFormat::kJson);
  EXPECT_EQ(config->log_level, LogLevel::kDebug);
}

TEST(ConfigTest, WhatIsPrintedIsReadBack) {
  Config config;
  config.engine.model_directory = "a \"quoted\"\n: # name";
  config.engine.backend.arena_bytes = 12345;
  config.engine.backend.devices = {1, 3};
  config.drain_grace = absl::Milliseconds(250);
  const std::string printed = PrintConfig(config);
  const auto again = ParseConfig(printed, "c.yaml");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(PrintConfig(*again), printed);
  EXPECT_EQ(again->engine.model_directory, config.engine.model_directory);
}

TEST(ConfigTest, ErrorsNameFileLineKeyAndFix) {
  EXPECT_EQ(ErrorOf("server:\n  lissten: 1\n"),
            "c.yaml:2: unknown key \"server.lissten\"; did you mean "
            "\"server.listen\"?");
  EXPECT_EQ(ErrorOf("\nservr:\n  listen: a:1\n"),
            "c.yaml:2: unknown section \"servr\"; did you mean \"server\"?");
  EXPECT_THAT(ErrorOf("drain:\n  zzzzzzzzzzzzz: 1\n"),
              HasSubstr("known are: drain.grace, drain.timeout"));
  EXPECT_THAT(ErrorOf("engine:\n\n  threads: many\n"),
              HasSubstr("c.yaml:3: engine.threads: \"many\" is not a whole "
                        "number from 0 to 1024"));
  EXPECT_THAT(ErrorOf("engine:\n  queue_budget: 12 apples\n"),
              HasSubstr("engine.queue_budget: \"12 apples\" is not a size; "
                        "write bytes or a form like 512MiB"));
  EXPECT_THAT(ErrorOf("drain:\n  timeout: 30\n"),
              HasSubstr("write a form like 5ms or 30s, from 0 to 1h"));
  EXPECT_THAT(ErrorOf("engine:\n  dtype: int8\n"),
              HasSubstr("\"int8\" is not one of auto, float32, bfloat16"));
  EXPECT_EQ(ErrorOf("engine:\n  mode: quick\n"),
            "c.yaml:2: engine.mode: \"quick\" is not one of strict, fast");
  EXPECT_THAT(ErrorOf("engine:\n  devices: 0,,1\n"),
              HasSubstr("engine.devices: \"\" is not a whole number"));
  EXPECT_THAT(ErrorOf("server:\n  listen: 50051\n"),
              HasSubstr("server.listen: \"50051\" is not an address"));
}

TEST(ConfigTest, WrongShapesAreErrors) {
  EXPECT_THAT(ErrorOf("- a\n"),
              HasSubstr("c.yaml:1: a configuration is a map"));
  EXPECT_THAT(ErrorOf("server: 5\n"), HasSubstr("needs indented keys"));
  EXPECT_THAT(
      ErrorOf("server:\n  listen: [a, b]\n"),
      HasSubstr("c.yaml:2: server.listen: needs one value, not a list"));
  EXPECT_THAT(ErrorOf("server:\n  listen:\n"), HasSubstr("not none"));
  EXPECT_THAT(ErrorOf("log:\n  level: info\n  level: debug\n"),
              HasSubstr("c.yaml:3: log.level: is set twice"));
  EXPECT_THAT(ErrorOf("log: [text\n"), HasSubstr("not valid YAML"));
  EXPECT_THAT(ErrorOf("server:\n  listen: &a x:1\n  max_threads: *b\n"),
              HasSubstr("not valid YAML"));
  EXPECT_THAT(ErrorOf("? [a, b]\n: c\n"), HasSubstr("c.yaml:1"));
}

TEST(ConfigTest, OutOfRangeIsAnError) {
  EXPECT_THAT(ErrorOf("server:\n  max_request_bytes: 1023\n"),
              HasSubstr("from 1KiB to 512MiB"));
  EXPECT_THAT(ErrorOf("server:\n  max_inputs_per_request: 0\n"),
              HasSubstr("from 1 to"));
  EXPECT_THAT(ErrorOf("engine:\n  arena: 999999999999TiB\n"),
              HasSubstr("to 1TiB"));
  EXPECT_THAT(ErrorOf("engine:\n  gather_window: -1ms\n"), HasSubstr("from 0"));
  EXPECT_THAT(ErrorOf("metrics:\n  listen: localhost:70000\n"),
              HasSubstr("is not an address"));
}

TEST(ConfigTest, AMissingFileIsAnError) {
  EXPECT_EQ(LoadConfig("no/such.yaml").status().message(),
            "no/such.yaml: cannot be read; is it the path of a readable file?");
  EXPECT_FALSE(LoadConfig("deploy").ok());
}

TEST(ConfigTest, FlagsSetOneKey) {
  Config config;
  EXPECT_TRUE(SetConfigKey("server.listen", "h:1", &config).ok());
  EXPECT_EQ(config.listen, "h:1");
  EXPECT_FALSE(SetConfigKey("server.listen", "h", &config).ok());
  EXPECT_THAT(std::string(SetConfigKey("log.leven", "info", &config).message()),
              HasSubstr("did you mean \"log.level\"?"));
}

TEST(ConfigValuesTest, BytesPrintInTheLargestWholeUnit) {
  EXPECT_EQ(FormatBytes(0), "0");
  EXPECT_EQ(FormatBytes(1000), "1000B");
  EXPECT_EQ(FormatBytes(1536), "1536B");
  EXPECT_EQ(FormatBytes(3 << 20), "3MiB");
}

}  // namespace
}  // namespace svdserve
