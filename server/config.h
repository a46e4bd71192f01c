// The server's configuration: YAML in, one validated value out.
//
// Every key is one row of a table in config.cc, which parses, checks and prints
// it; deploy/config.example.yaml documents each and holds the defaults. Errors
// read "FILE:LINE: KEY: what is wrong; what would be right". Only config.cc
// sees yaml-cpp.
//
//   absl::StatusOr<Config> config = LoadConfig("svdserve.yaml");
#ifndef SVDSERVE_SERVER_CONFIG_H_
#define SVDSERVE_SERVER_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "server/log.h"

namespace svdserve {

struct Config {
  EngineOptions engine;

  std::string listen = "127.0.0.1:50051";
  uint64_t max_request_bytes = 8 << 20;
  int max_inputs_per_request = 512;
  int stream_inputs_in_flight = 256;
  int max_concurrent_streams = 1024;  // of one connection
  uint64_t grpc_memory_bytes = 512 << 20;
  int grpc_threads = 16;

  std::string metrics_listen = "127.0.0.1:9464";
  int metrics_threads = 2;

  absl::Duration drain_grace = absl::ZeroDuration();
  absl::Duration drain_timeout = absl::Seconds(25);

  LogFormat log_format = LogFormat::kText;
  LogLevel log_level = LogLevel::kInfo;
};

// `file` is only for messages.
absl::StatusOr<Config> ParseConfig(const std::string& yaml,
                                   const std::string& file);
absl::StatusOr<Config> LoadConfig(const std::string& file);

// Sets one key from text, as if a file had said it: for command-line flags.
absl::Status SetConfigKey(const std::string& key, const std::string& value,
                          Config* config);

// The configuration as YAML that ParseConfig() reads back.
std::string PrintConfig(const Config& config);

// Every key as "section.key", in the order of the table.
std::vector<std::string> ConfigKeys();

}  // namespace svdserve

#endif  // SVDSERVE_SERVER_CONFIG_H_
