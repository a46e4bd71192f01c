#include "tools/compress/output_directory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

namespace svdserve {
namespace {

namespace fs = std::filesystem;

absl::Status SystemError(const std::string& what, int code) {
  return absl::ErrnoToStatus(code, what);
}

bool IsModelOrEmpty(const fs::path& directory) {
  std::error_code error;
  return fs::is_directory(directory, error) &&
         (fs::is_empty(directory, error) ||
          fs::exists(directory / "config.json", error));
}

absl::Status CheckTarget(const fs::path& target, bool replace) {
  std::error_code error;
  if (!fs::exists(fs::symlink_status(target, error))) return absl::OkStatus();
  if (!replace) {
    return absl::AlreadyExistsError(
        absl::StrCat(target.string(),
                     " exists; choose another name, or --force to replace "
                     "it"));
  }
  if (fs::is_symlink(target, error) || !IsModelOrEmpty(target)) {
    return absl::FailedPreconditionError(
        absl::StrCat(target.string(),
                     " is not a model's directory (it has no config.json); "
                     "it is not replaced"));
  }
  return absl::OkStatus();
}

absl::Status Sync(const fs::path& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return SystemError(path.string(), errno);
  const int code = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  return code == 0 ? absl::OkStatus() : SystemError(path.string(), code);
}

absl::Status SyncTree(const fs::path& root) {
  std::error_code error;
  for (fs::recursive_directory_iterator it(root, error), end; it != end;
       it.increment(error)) {
    if (error) break;
    if (absl::Status s = Sync(it->path()); !s.ok()) return s;
  }
  if (error) return SystemError(root.string(), error.value());
  return Sync(root);
}

// Puts `temporary` where `target` is, and the old target where `temporary` was.
// One step where the file system can, else two: then an interruption between
// them leaves the old directory beside, under a temporary name.
absl::Status Exchange(const fs::path& temporary, const fs::path& target) {
  if (renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, target.c_str(),
                RENAME_EXCHANGE) == 0) {
    return absl::OkStatus();
  }
  if (errno != EINVAL && errno != ENOSYS) {
    return SystemError(target.string(), errno);
  }
  const fs::path old = temporary.string() + ".old";
  if (rename(target.c_str(), old.c_str()) != 0) {
    return SystemError(target.string(), errno);
  }
  if (rename(temporary.c_str(), target.c_str()) != 0) {
    const int code = errno;
    if (rename(old.c_str(), target.c_str()) != 0) {
      return SystemError(
          absl::StrCat("the old ", target.string(), " is now ", old.string()),
          code);
    }
    return SystemError(target.string(), code);
  }
  if (rename(old.c_str(), temporary.c_str()) != 0) {
    return SystemError(old.string(), errno);
  }
  return absl::OkStatus();
}

// A new directory beside `target`. Not mkdtemp, which would make it private.
absl::StatusOr<fs::path> MakeSibling(const fs::path& target) {
  constexpr int kAttempts = 100;  // names that killed processes left behind
  std::string name;
  for (int i = 0; i < kAttempts; ++i) {
    name = absl::StrCat(target.string(), ".tmp-", getpid(), "-", i);
    if (mkdir(name.c_str(), 0777) == 0) return fs::path(name);
    if (errno != EEXIST) break;
  }
  return SystemError(absl::StrCat(target.string(), " cannot be made"), errno);
}

}  // namespace

OutputDirectory::OutputDirectory(fs::path target, fs::path temporary,
                                 bool replace)
    : target_(std::move(target)),
      temporary_(std::move(temporary)),
      replace_(replace) {}

OutputDirectory::OutputDirectory(OutputDirectory&& other) noexcept
    : target_(std::move(other.target_)),
      temporary_(std::exchange(other.temporary_, fs::path())),
      replace_(other.replace_) {}

OutputDirectory::~OutputDirectory() {
  if (temporary_.empty()) return;
  std::error_code ignored;  // nothing is left to tell it to
  fs::remove_all(temporary_, ignored);
}

absl::StatusOr<OutputDirectory> OutputDirectory::Create(
    const std::string& target, bool replace) {
  fs::path final = fs::absolute(target).lexically_normal();
  if (!final.has_filename()) final = final.parent_path();  // "out/"
  if (absl::Status s = CheckTarget(final, replace); !s.ok()) return s;
  std::error_code error;
  fs::create_directories(final.parent_path(), error);
  if (error) return SystemError(final.parent_path().string(), error.value());
  absl::StatusOr<fs::path> temporary = MakeSibling(final);
  if (!temporary.ok()) return temporary.status();
  return OutputDirectory(final, *std::move(temporary), replace);
}

absl::Status OutputDirectory::Commit() {
  if (absl::Status s = SyncTree(temporary_); !s.ok()) return s;
  // It may have appeared, or changed, since Create().
  if (absl::Status s = CheckTarget(target_, replace_); !s.ok()) return s;
  std::error_code error;
  if (fs::exists(target_, error)) {
    if (absl::Status s = Exchange(temporary_, target_); !s.ok()) return s;
    fs::remove_all(temporary_, error);
  } else if (rename(temporary_.c_str(), target_.c_str()) != 0) {
    return SystemError(target_.string(), errno);
  }
  temporary_.clear();
  return Sync(target_.parent_path());
}

}  // namespace svdserve
