#include "tools/compress/model_files.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "engine/model/strict_json.h"

namespace svdserve {
namespace {

namespace fs = std::filesystem;

bool IsWanted(const fs::path& file) {
  // .model: sentencepiece's, of XLM-R.
  constexpr std::array<std::string_view, 4> kExtensions = {".json", ".txt",
                                                           ".md", ".model"};
  constexpr std::string_view kShardIndex = ".index.json";
  const std::string name = file.filename().string();
  // A report of an earlier run would describe another model.
  if (name.ends_with(kShardIndex) || name == "compression.json") return false;
  if (name.starts_with("LICENSE") || name.starts_with("NOTICE")) return true;
  return std::find(kExtensions.begin(), kExtensions.end(),
                   file.extension().string()) != kExtensions.end();
}

absl::Status CopyFailed(const fs::path& path, const fs::path& to,
                        std::error_code error) {
  // libstdc++ calls a copy that was cut short an input/output error.
  std::error_code ignored;
  if (fs::space(to, ignored).available == 0) {
    error = std::make_error_code(std::errc::no_space_on_device);
  }
  return absl::ErrnoToStatus(
      error.value(),
      absl::StrCat(path.string(), ": cannot be copied to ", to.string()));
}

absl::Status CopyWantedFiles(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::directory_iterator it(from, error);
  for (; !error && it != fs::directory_iterator(); it.increment(error)) {
    const fs::path& file = it->path();
    std::error_code failed;
    if (!fs::is_regular_file(file, failed) || !IsWanted(file)) continue;
    fs::copy_file(file, to / file.filename(), failed);
    if (failed) return CopyFailed(file, to, failed);
  }
  return error ? CopyFailed(from, to, error) : absl::OkStatus();
}

// A path as modules.json has it: one directory below the model's.
bool IsModuleDirectory(const std::string& path) {
  return !path.empty() && path != "." && path != ".." &&
         path.find('/') == std::string::npos;
}

absl::Status CopyModule(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::copy(from, to, fs::copy_options::recursive, error);
  return error ? CopyFailed(from, to, error) : absl::OkStatus();
}

}  // namespace

absl::Status CopyModelFiles(const fs::path& from, const fs::path& to) {
  if (absl::Status s = CopyWantedFiles(from, to); !s.ok()) return s;
  const fs::path list = from / "modules.json";
  absl::StatusOr<nlohmann::json> modules = ReadStrictJson(list.string());
  if (absl::IsNotFound(modules.status())) return absl::OkStatus();
  if (!modules.ok()) return modules.status();
  for (const nlohmann::json& module : *modules) {
    if (!module.is_object() || !module.contains("path")) continue;
    const nlohmann::json& path = module["path"];
    if (!path.is_string() || !IsModuleDirectory(path.get<std::string>())) {
      continue;  // "": the transformer itself
    }
    const std::string name = path.get<std::string>();
    std::error_code error;
    if (!fs::is_directory(from / name, error)) continue;  // 2_Normalize
    if (absl::Status s = CopyModule(from / name, to / name); !s.ok()) return s;
  }
  return absl::OkStatus();
}

}  // namespace svdserve
