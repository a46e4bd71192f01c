// A file that appears complete or not at all.
#ifndef SVDSERVE_TOOLS_EVALUATE_OUTPUT_FILE_H_
#define SVDSERVE_TOOLS_EVALUATE_OUTPUT_FILE_H_

#include <string>

#include "absl/status/status.h"

namespace svdserve {

// Whether WriteWhole(path, ...) could work: the directory is there and may be
// written to, and `path` is a file or nothing. For the time before long work.
absl::Status CheckWritable(const std::string& path);

// Writes a new file beside `path`, then puts it in its place. On an error
// `path` is as it was.
absl::Status WriteWhole(const std::string& path, const std::string& contents);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_EVALUATE_OUTPUT_FILE_H_
