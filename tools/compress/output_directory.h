// A directory that appears complete or not at all.
//
// Files are written into a temporary sibling; Commit() gives it its name in one
// step. Without Commit() the destructor removes what was written. Not
// thread-safe.
//
//   auto out = OutputDirectory::Create("models/small", /*replace=*/false);
//   WriteFiles(out->path());
//   absl::Status s = out->Commit();
#ifndef SVDSERVE_TOOLS_COMPRESS_OUTPUT_DIRECTORY_H_
#define SVDSERVE_TOOLS_COMPRESS_OUTPUT_DIRECTORY_H_

#include <filesystem>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace svdserve {

class OutputDirectory {
 public:
  // ALREADY_EXISTS if there is something at `target` and `replace` is false.
  // With `replace`, only a model's directory is replaced: one with a
  // config.json, or an empty one; anything else is FAILED_PRECONDITION.
  static absl::StatusOr<OutputDirectory> Create(const std::string& target,
                                                bool replace);

  OutputDirectory(OutputDirectory&& other) noexcept;
  OutputDirectory(const OutputDirectory&) = delete;
  OutputDirectory& operator=(const OutputDirectory&) = delete;
  ~OutputDirectory();

  // Where to write until Commit().
  const std::filesystem::path& path() const { return temporary_; }

  // Flushes all files to the disk and renames the directory to the target.
  absl::Status Commit();

 private:
  OutputDirectory(std::filesystem::path target, std::filesystem::path temporary,
                  bool replace);

  std::filesystem::path target_;
  std::filesystem::path temporary_;  // empty: moved from
  bool replace_;
};

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_OUTPUT_DIRECTORY_H_
