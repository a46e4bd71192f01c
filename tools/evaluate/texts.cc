#include "tools/evaluate/texts.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace svdserve {
namespace {

absl::Status Unreadable(absl::StatusCode code, const std::string& path,
                        const std::string& reason) {
  return absl::Status(code, absl::StrCat(path, ": ", reason,
                                         "; --text wants a file with one text "
                                         "a line"));
}

}  // namespace

absl::StatusOr<TextSet> ReadTexts(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return Unreadable(absl::StatusCode::kInvalidArgument, path,
                      "is a directory");
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return Unreadable(absl::ErrnoToStatusCode(errno), path,
                      std::strerror(errno));
  }
  TextSet set = {.source = std::filesystem::path(path).filename().string(),
                 .texts = {}};
  std::string line;
  while (std::getline(file, line)) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.find('\0') != std::string::npos) {
      return Unreadable(absl::StatusCode::kInvalidArgument, path,
                        "holds a zero byte, so it is no text in UTF-8");
    }
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    set.texts.push_back(line);
  }
  if (file.bad()) {
    return Unreadable(absl::StatusCode::kDataLoss, path,
                      "cannot be read to its end");
  }
  if (set.texts.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, " holds no text; it needs at least one line that is not blank"));
  }
  return set;
}

std::string Shorten(const std::string& text, int most) {
  int code_points = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool starts = (static_cast<unsigned char>(text[i]) & 0xC0) != 0x80;
    if (starts && code_points++ == most) return text.substr(0, i) + "…";
  }
  return text;
}

}  // namespace svdserve
