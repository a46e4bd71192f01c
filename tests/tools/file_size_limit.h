// A limit on the size of files, in place of a full disk.
//
//   FileSizeLimit limit(20000);  // bytes; lifted at the end of the scope
#ifndef SVDSERVE_TESTS_TOOLS_FILE_SIZE_LIMIT_H_
#define SVDSERVE_TESTS_TOOLS_FILE_SIZE_LIMIT_H_

#include <sys/resource.h>

#include <csignal>

#include "gtest/gtest.h"

namespace svdserve {

// Of the whole process: one at a time, and no other thread that writes.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    EXPECT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit_), 0);
    old_handler_ = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {.rlim_cur = bytes, .rlim_max = old_limit_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  ~FileSizeLimit() {
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &old_limit_), 0);
    std::signal(SIGXFSZ, old_handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit old_limit_ = {};
  void (*old_handler_)(int) = SIG_DFL;
};

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_TOOLS_FILE_SIZE_LIMIT_H_
