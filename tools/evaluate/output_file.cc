#include "tools/evaluate/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace svdserve {
namespace {

absl::Status CannotWrite(const std::string& path, int code) {
  return absl::ErrnoToStatus(code, absl::StrCat(path, " cannot be written"));
}

// Writes all of it; errno on failure, else 0.
int WriteAll(int file, const std::string& contents) {
  for (size_t done = 0; done < contents.size();) {
    const ssize_t count =
        write(file, contents.data() + done, contents.size() - done);
    if (count < 0 && errno != EINTR) return errno;
    if (count > 0) done += count;
  }
  return fsync(file) == 0 ? 0 : errno;
}

}  // namespace

absl::Status CheckWritable(const std::string& path) {
  std::error_code error;
  const auto kind = std::filesystem::status(path, error).type();
  if (kind != std::filesystem::file_type::not_found &&
      kind != std::filesystem::file_type::regular) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " cannot be written: it is there and is no file"));
  }
  std::filesystem::path parent = std::filesystem::path(path).parent_path();
  if (parent.empty()) parent = ".";
  if (access(parent.c_str(), W_OK | X_OK) != 0) {
    return CannotWrite(path, errno);
  }
  return absl::OkStatus();
}

absl::Status WriteWhole(const std::string& path, const std::string& contents) {
  if (absl::Status s = CheckWritable(path); !s.ok()) return s;
  const std::string temporary = absl::StrCat(path, ".tmp-", getpid());
  const int file =
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file < 0) return CannotWrite(path, errno);
  int code = WriteAll(file, contents);
  if (close(file) != 0 && code == 0) code = errno;
  if (code == 0 && rename(temporary.c_str(), path.c_str()) != 0) code = errno;
  if (code == 0) return absl::OkStatus();
  unlink(temporary.c_str());
  return CannotWrite(path, code);
}

}  // namespace svdserve
