#include "server/config.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <sstream>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "server/config_values.h"

namespace svdserve {
namespace {

constexpr uint64_t kKiB = uint64_t{1} << 10;
constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kTiB = uint64_t{1} << 40;

struct Key {
  std::string name;  // "section.key"
  std::function<absl::Status(const std::string&, Config*)> parse;
  std::function<std::string(const Config&)> print;
};

// Where a key's value lives in a Config.
template <typename T>
using Field = T& (*)(Config&);

template <typename T>
const T& Get(Field<T> field, const Config& config) {
  return field(const_cast<Config&>(config));  // NOLINT: only read
}

template <typename T>
absl::Status Store(absl::StatusOr<T> value, T* field) {
  if (!value.ok()) return value.status();
  *field = *std::move(value);
  return absl::OkStatus();
}

Key Bytes(const char* name, Field<uint64_t> field, uint64_t least,
          uint64_t most) {
  return {
      name,
      [=](const std::string& text, Config* config) {
        return Store(ParseBytes(text, least, most), &field(*config));
      },
      [=](const Config& config) { return FormatBytes(Get(field, config)); }};
}

Key Int(const char* name, Field<int> field, int least, int most) {
  return {
      name,
      [=](const std::string& text, Config* config) {
        return Store(ParseInt(text, least, most), &field(*config));
      },
      [=](const Config& config) { return absl::StrCat(Get(field, config)); }};
}

Key Time(const char* name, Field<absl::Duration> field, absl::Duration most) {
  return {name,
          [=](const std::string& text, Config* config) {
            return Store(ParseTime(text, absl::ZeroDuration(), most),
                         &field(*config));
          },
          [=](const Config& config) {
            return absl::FormatDuration(Get(field, config));
          }};
}

Key Text(const char* name, Field<std::string> field) {
  return {name,
          [=](const std::string& text, Config* config) {
            field(*config) = text;
            return absl::OkStatus();
          },
          [=](const Config& config) {
            YAML::Emitter quoted;
            quoted << YAML::DoubleQuoted << Get(field, config);
            return std::string(quoted.c_str());
          }};
}

Key Address(const char* name, Field<std::string> field) {
  Key key = Text(name, field);
  key.parse = [=](const std::string& text, Config* config) {
    field(*config) = text;
    return ParseHostPort(text).status();
  };
  return key;
}

// "0,2", or "" for none.
Key IntList(const char* name, Field<std::vector<int>> field, int least,
            int most) {
  return {
      name,
      [=](const std::string& text, Config* config) {
        std::vector<int> values;
        for (const auto part : absl::StrSplit(text, ',')) {
          if (text.empty()) break;
          absl::StatusOr<int> value = ParseInt(std::string(part), least, most);
          if (!value.ok()) return value.status();
          values.push_back(*value);
        }
        field(*config) = std::move(values);
        return absl::OkStatus();
      },
      [=](const Config& config) {
        return absl::StrCat("\"", absl::StrJoin(Get(field, config), ","), "\"");
      }};
}

template <typename E>
using Names = std::vector<std::pair<std::string, E>>;

template <typename E>
Key Choice(const char* name, Field<E> field, Names<E> names) {
  return {name,
          [=](const std::string& text, Config* config) {
            std::vector<std::string> known;
            for (const auto& [choice, value] : names) {
              if (choice == text) field(*config) = value;
              if (choice == text) return absl::OkStatus();
              known.push_back(choice);
            }
            return absl::InvalidArgumentError(absl::StrCat(
                "\"", text, "\" is not one of ", absl::StrJoin(known, ", ")));
          },
          [=](const Config& config) {
            for (const auto& [choice, value] : names) {
              if (value == Get(field, config)) return choice;
            }
            return std::string();
          }};
}

// Every key: its place in the Config and its range. Documented, with the same
// names and defaults, in deploy/config.example.yaml.
const std::vector<Key>& Keys() {
  using C = Config;
  using S = std::string;
  static const auto* const keys = new std::vector<Key>{
      Text("model.directory",
           [](C& c) -> S& { return c.engine.model_directory; }),

      Address("server.listen", [](C& c) -> S& { return c.listen; }),
      Bytes(
          "server.max_request_bytes",
          [](C& c) -> uint64_t& { return c.max_request_bytes; }, kKiB,
          512 * kMiB),
      Int(
          "server.max_inputs_per_request",
          [](C& c) -> int& { return c.max_inputs_per_request; }, 1, 1 << 20),
      Int(
          "server.stream_inputs_in_flight",
          [](C& c) -> int& { return c.stream_inputs_in_flight; }, 1, 1 << 20),
      Int(
          "server.max_concurrent_streams",
          [](C& c) -> int& { return c.max_concurrent_streams; }, 1, 1 << 20),
      Bytes(
          "server.memory_quota",
          [](C& c) -> uint64_t& { return c.grpc_memory_bytes; }, 16 * kMiB,
          kTiB),
      Int(
          "server.max_threads", [](C& c) -> int& { return c.grpc_threads; }, 4,
          1024),

      Choice<DeviceChoice>(
          "engine.device",
          [](C& c) -> DeviceChoice& { return c.engine.backend.device; },
          {{"auto", DeviceChoice::kAuto},
           {"cpu", DeviceChoice::kCpu},
           {"cuda", DeviceChoice::kCuda}}),
      IntList(
          "engine.devices",
          [](C& c) -> std::vector<int>& { return c.engine.backend.devices; }, 0,
          1024),
      Choice<ComputeType>(
          "engine.dtype",
          [](C& c) -> ComputeType& { return c.engine.backend.compute; },
          {{"auto", ComputeType::kAuto},
           {"float32", ComputeType::kF32},
           {"bfloat16", ComputeType::kBF16},
           {"float16", ComputeType::kF16}}),
      Choice<Mode>("engine.mode",
                   [](C& c) -> Mode& { return c.engine.backend.mode; },
                   {{"strict", Mode::kStrict}, {"fast", Mode::kFast}}),
      Int(
          "engine.threads",
          [](C& c) -> int& { return c.engine.backend.threads; }, 0, 1024),
      Bytes(
          "engine.arena",
          [](C& c) -> uint64_t& { return c.engine.backend.arena_bytes; }, 0,
          kTiB),
      Bytes(
          "engine.memory_reserve",
          [](C& c) -> uint64_t& {
            return c.engine.backend.memory_reserve_bytes;
          },
          0, kTiB),
      Int(
          "engine.tokenizer_threads",
          [](C& c) -> int& { return c.engine.tokenizer_threads; }, 1, 256),
      Bytes(
          "engine.text_budget",
          [](C& c) -> uint64_t& { return c.engine.text_budget_bytes; }, kKiB,
          kTiB),
      Bytes(
          "engine.queue_budget",
          [](C& c) -> uint64_t& { return c.engine.queue_budget_bytes; }, kKiB,
          kTiB),
      Int(
          "engine.max_batch_tokens",
          [](C& c) -> int& { return c.engine.max_batch_tokens; }, 0, 1 << 24),
      Int(
          "engine.max_batch_inputs",
          [](C& c) -> int& { return c.engine.max_batch_inputs; }, 1, 1 << 16),
      Time(
          "engine.gather_window",
          [](C& c) -> absl::Duration& { return c.engine.gather_window; },
          absl::Seconds(1)),

      Address("metrics.listen", [](C& c) -> S& { return c.metrics_listen; }),
      Int(
          "metrics.threads", [](C& c) -> int& { return c.metrics_threads; }, 1,
          64),

      Time(
          "drain.grace", [](C& c) -> absl::Duration& { return c.drain_grace; },
          absl::Minutes(10)),
      Time(
          "drain.timeout",
          [](C& c) -> absl::Duration& { return c.drain_timeout; },
          absl::Hours(1)),

      Choice<LogFormat>(
          "log.format", [](C& c) -> LogFormat& { return c.log_format; },
          {{"text", LogFormat::kText}, {"json", LogFormat::kJson}}),
      Choice<LogLevel>("log.level",
                       [](C& c) -> LogLevel& { return c.log_level; },
                       {{"debug", LogLevel::kDebug},
                        {"info", LogLevel::kInfo},
                        {"warning", LogLevel::kWarning},
                        {"error", LogLevel::kError}}),
  };
  return *keys;
}

const Key* FindKey(const std::string& name) {
  for (const Key& key : Keys()) {
    if (key.name == name) return &key;
  }
  return nullptr;
}

std::string SectionOf(const std::string& key) {
  return key.substr(0, key.find('.'));
}

std::vector<std::string> Sections() {
  std::vector<std::string> sections;
  for (const Key& key : Keys()) {
    const std::string section = SectionOf(key.name);
    if (sections.empty() || sections.back() != section) {
      sections.push_back(section);
    }
  }
  return sections;
}

absl::Status UnknownName(const std::string& kind, const std::string& name,
                         const std::vector<std::string>& known) {
  const std::string closest = ClosestName(name, known);
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown ", kind, " \"", name, "\"; ",
      closest.empty() ? absl::StrCat("known are: ", absl::StrJoin(known, ", "))
                      : absl::StrCat("did you mean \"", closest, "\"?")));
}

absl::Status UnknownKey(const std::string& name) {
  std::vector<std::string> known;
  for (const std::string& key : ConfigKeys()) {
    if (SectionOf(key) == SectionOf(name)) known.push_back(key);
  }
  return UnknownName("key", name, known);
}

// Reads one document; keeps the file's name for messages.
class Reader {
 public:
  explicit Reader(std::string file) : file_(std::move(file)) {}

  absl::Status Read(const YAML::Node& root, Config* config) {
    if (root.IsNull()) return absl::OkStatus();
    if (!root.IsMap()) {
      return At(root, absl::InvalidArgumentError(
                          "a configuration is a map of sections, like "
                          "\"server:\" with indented keys below"));
    }
    for (const auto& entry : root) {
      absl::Status status = ReadSection(entry.first, entry.second, config);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  absl::Status ReadSection(const YAML::Node& name_node, const YAML::Node& node,
                           Config* config) {
    const std::string& section = name_node.Scalar();
    const std::vector<std::string> known = Sections();
    if (std::find(known.begin(), known.end(), section) == known.end()) {
      return At(name_node, UnknownName("section", section, known));
    }
    absl::Status once = CheckOnce(name_node, section);
    if (!once.ok() || node.IsNull()) return once;
    if (!node.IsMap()) {
      return At(node, absl::InvalidArgumentError(absl::StrCat(
                          "section \"", section,
                          "\" needs indented keys below it, like \"key: "
                          "value\"")));
    }
    for (const auto& entry : node) {
      absl::Status status =
          ReadKey(absl::StrCat(section, ".", entry.first.Scalar()), entry.first,
                  entry.second, config);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status ReadKey(const std::string& name, const YAML::Node& name_node,
                       const YAML::Node& node, Config* config) {
    absl::Status once = CheckOnce(name_node, name);
    if (!once.ok()) return once;
    const Key* key = FindKey(name);
    if (key == nullptr) return At(name_node, UnknownKey(name));
    if (!node.IsScalar()) {
      return At(name_node, absl::InvalidArgumentError(absl::StrCat(
                               name, ": needs one value, not ",
                               node.IsNull() ? "none" : "a list or a map")));
    }
    return At(node, SetConfigKey(name, node.Scalar(), config));
  }

  absl::Status CheckOnce(const YAML::Node& node, const std::string& name) {
    if (seen_.insert(name).second) return absl::OkStatus();
    return At(node, absl::InvalidArgumentError(absl::StrCat(
                        name, ": is set twice; remove one of them")));
  }

  absl::Status At(const YAML::Node& node, const absl::Status& status) const {
    if (status.ok()) return status;
    return absl::InvalidArgumentError(absl::StrCat(
        file_, ":", node.Mark().line + 1, ": ", std::string(status.message())));
  }

  const std::string file_;
  std::set<std::string> seen_;
};

}  // namespace

absl::Status SetConfigKey(const std::string& key, const std::string& value,
                          Config* config) {
  const Key* found = FindKey(key);
  if (found == nullptr) return UnknownKey(key);
  absl::Status status = found->parse(value, config);
  if (status.ok()) return status;
  return absl::InvalidArgumentError(
      absl::StrCat(key, ": ", std::string(status.message())));
}

absl::StatusOr<Config> ParseConfig(const std::string& yaml,
                                   const std::string& file) {
  Config config;
  try {
    absl::Status status = Reader(file).Read(YAML::Load(yaml), &config);
    if (!status.ok()) return status;
  } catch (const YAML::Exception& e) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ":", e.mark.line + 1, ": not valid YAML: ", e.msg));
  }
  return config;
}

absl::StatusOr<Config> LoadConfig(const std::string& file) {
  std::ifstream stream(file);
  std::error_code ignored;
  if (!stream || std::filesystem::is_directory(file, ignored)) {
    return absl::NotFoundError(absl::StrCat(
        file, ": cannot be read; is it the path of a readable file?"));
  }
  std::ostringstream yaml;
  yaml << stream.rdbuf();
  return ParseConfig(yaml.str(), file);
}

std::string PrintConfig(const Config& config) {
  std::string yaml;
  std::string section;
  for (const Key& key : Keys()) {
    if (SectionOf(key.name) != section) {
      section = SectionOf(key.name);
      absl::StrAppend(&yaml, section, ":\n");
    }
    absl::StrAppend(&yaml, "  ", key.name.substr(section.size() + 1), ": ",
                    key.print(config), "\n");
  }
  return yaml;
}

std::vector<std::string> ConfigKeys() {
  std::vector<std::string> names;
  for (const Key& key : Keys()) names.push_back(key.name);
  return names;
}

}  // namespace svdserve
