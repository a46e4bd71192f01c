#include "server/process_stats.h"

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <ctime>
#include <fstream>

namespace svdserve {
namespace {

uint64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t total_pages = 0;
  uint64_t resident_pages = 0;
  statm >> total_pages >> resident_pages;
  return statm ? resident_pages * sysconf(_SC_PAGESIZE) : 0;
}

uint64_t HeapBytes() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

double Seconds(const timeval& time) {
  return time.tv_sec + 1e-6 * time.tv_usec;
}

double CpuSeconds() {
  rusage usage = {};
  if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
  return Seconds(usage.ru_utime) + Seconds(usage.ru_stime);
}

double NowSeconds() {
  timespec now = {};
  clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

// Taken while static objects are made: milliseconds after the true start,
// without the clock-tick arithmetic of /proc/self/stat.
const double kStartTime = NowSeconds();

}  // namespace

ProcessStats ReadProcessStats() {
  return {ResidentBytes(), HeapBytes(), CpuSeconds(), kStartTime};
}

}  // namespace svdserve
