#include "tools/compress/calibration_text.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace svdserve {
namespace {

namespace fs = std::filesystem;

// A longer line is split: so many bytes are some 300 tokens of English.
constexpr size_t kLongestText = 1200;
// Shorter texts teach little.
constexpr size_t kShortestText = 3;
// The default adds licences to texts of fewer bytes than this.
constexpr uint64_t kEnoughDefaultBytes = 1 << 20;

std::string_view Strip(std::string_view text) {
  constexpr std::string_view kSpaces = " \t\r\n\v\f";
  const size_t first = text.find_first_not_of(kSpaces);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpaces) - first + 1);
}

// Adds a line to a paragraph.
void Join(std::string_view line, std::string* paragraph) {
  if (!paragraph->empty()) paragraph->push_back(' ');
  paragraph->append(line);
}

// Keeps a uniform sample of the texts that it sees (Vitter's algorithm R), so
// that a large file takes little memory.
class Reservoir {
 public:
  Reservoir(int count, uint64_t seed) : count_(count), random_(seed) {}

  // Splits what is too long, at the last space if there is one.
  void Add(std::string_view text) {
    text = Strip(text);
    while (text.size() > kLongestText) {
      const size_t space = text.rfind(' ', kLongestText);
      const size_t end =
          space == std::string_view::npos || space == 0 ? kLongestText : space;
      AddOne(text.substr(0, end));
      text = Strip(text.substr(end));
    }
    AddOne(text);
  }
  uint64_t bytes_seen() const { return bytes_; }

  std::vector<std::string> Shuffled() && {
    for (size_t i = texts_.size(); i > 1; --i) {
      std::swap(texts_[i - 1], texts_[random_() % i]);
    }
    return std::move(texts_);
  }

 private:
  void AddOne(std::string_view text) {
    if (text.size() < kShortestText) return;
    bytes_ += text.size();
    ++seen_;
    if (texts_.size() < count_) {
      texts_.emplace_back(text);
    } else if (const uint64_t at = random_() % seen_; at < count_) {
      texts_[at] = std::string(text);
    }
  }

  const uint64_t count_;
  std::mt19937_64 random_;
  uint64_t seen_ = 0;
  uint64_t bytes_ = 0;
  std::vector<std::string> texts_;
};

// The regular files below `directory` for which `wanted` holds, sorted. What
// cannot be read is passed over.
std::vector<fs::path> FilesBelow(
    const fs::path& directory,
    const std::function<bool(const fs::path&)>& wanted) {
  std::vector<fs::path> files;
  std::error_code error;
  fs::recursive_directory_iterator it(
      directory, fs::directory_options::skip_permission_denied, error);
  for (; !error && it != fs::recursive_directory_iterator();
       it.increment(error)) {
    std::error_code ignored;
    const bool file = it->is_regular_file(ignored) && !it->is_symlink(ignored);
    if (file && wanted(it->path())) files.push_back(it->path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// Whether there is no zero byte near its beginning: what Git takes for text.
bool IsText(const fs::path& path) {
  std::array<char, 8000> start;
  std::ifstream file(path, std::ios::binary);
  file.read(start.data(), start.size());
  return std::string_view(start.data(), file.gcount()).find('\0') ==
         std::string_view::npos;
}

void AddLines(const fs::path& path, Reservoir* texts) {
  std::ifstream file(path, std::ios::binary);
  std::string line;
  while (std::getline(file, line)) texts->Add(line);
}

// Paragraphs: their lines joined, empty lines between them.
void AddParagraphs(const fs::path& path, Reservoir* texts) {
  std::ifstream file(path, std::ios::binary);
  std::string line;
  std::string paragraph;
  while (std::getline(file, line)) {
    const std::string_view text = Strip(line);
    if (text.empty()) {
      texts->Add(paragraph);
      paragraph.clear();
    } else {
      Join(text, &paragraph);
    }
  }
  texts->Add(paragraph);
}

// Values of the fields of a Debian control file whose names start with one of
// `names`; a line " ." separates paragraphs.
void AddFields(const fs::path& path, const std::vector<std::string_view>& names,
               Reservoir* texts) {
  std::ifstream file(path, std::ios::binary);
  std::string line;
  std::string value;
  bool inside = false;
  const auto finish = [&] {
    texts->Add(value);
    value.clear();
  };
  while (std::getline(file, line)) {
    if (!line.starts_with(' ')) {
      finish();
      const size_t colon = line.find(':');
      inside =
          colon != std::string::npos &&
          std::any_of(names.begin(), names.end(), [&](std::string_view name) {
            return line.starts_with(name);
          });
      if (inside) {
        value = Strip(std::string_view(line).substr(colon + 1));
      }
    } else if (inside && line == " .") {
      finish();
    } else if (inside) {
      Join(Strip(line), &value);
    }
  }
  finish();
}

bool IsPlainDocument(const fs::path& path) {
  const std::string name = path.filename().string();
  if (path.extension() == ".gz") return false;
  for (const char* start : {"README", "NEWS", "TODO", "FAQ"}) {
    if (name.starts_with(start)) return true;
  }
  return false;
}

void AddDefault(Reservoir* texts) {
  AddFields("/var/lib/dpkg/status", {"Description"}, texts);
  for (const fs::path& path : FilesBelow(
           "/var/lib/dpkg/info",
           [](const fs::path& p) { return p.extension() == ".templates"; })) {
    AddFields(path, {"Description", "Extended_description", "Choices"}, texts);
  }
  for (const fs::path& path : FilesBelow("/usr/share/doc", IsPlainDocument)) {
    AddParagraphs(path, texts);
  }
  for (const fs::path& path :
       FilesBelow("/usr/share/perl",
                  [](const fs::path& p) { return p.extension() == ".pod"; })) {
    AddParagraphs(path, texts);
  }
  if (texts->bytes_seen() >= kEnoughDefaultBytes) return;
  for (const fs::path& path :
       FilesBelow("/usr/share/common-licenses",
                  [](const fs::path&) { return true; })) {
    AddParagraphs(path, texts);
  }
}

absl::Status AddUserText(const std::string& path, Reservoir* texts) {
  std::error_code error;
  if (!fs::exists(path, error)) {
    return absl::NotFoundError(
        absl::StrCat("calibration text ", path, ": no such file or directory"));
  }
  if (fs::is_directory(path, error)) {
    for (const fs::path& file : FilesBelow(path, IsText)) AddLines(file, texts);
    return absl::OkStatus();
  }
  // Opened once: it may be a pipe.
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return absl::PermissionDeniedError(
        absl::StrCat("calibration text ", path, ": cannot be read"));
  }
  std::string line;
  while (std::getline(file, line)) {
    if (line.find('\0') != std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("calibration text ", path,
                       ": holds a zero byte, so it is no text in UTF-8"));
    }
    texts->Add(line);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CalibrationText> ReadCalibrationText(const std::string& path,
                                                    int count, uint64_t seed) {
  Reservoir texts(count, seed);
  CalibrationText result;
  if (path.empty()) {
    AddDefault(&texts);
    result.source = kDefaultCalibration;
  } else {
    absl::Status status = AddUserText(path, &texts);
    if (!status.ok()) return status;
    result.source = path;
  }
  if (texts.bytes_seen() == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.empty() ? std::string("this system")
                                  : absl::StrCat("calibration text ", path),
                     " holds no text; give a file with one text a line"));
  }
  result.texts = std::move(texts).Shuffled();
  return result;
}

}  // namespace svdserve
