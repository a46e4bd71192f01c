#include "engine/device/cpu_count.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <string>
#include <thread>

namespace svdserve {
namespace {

int AffinityCpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
  // More processors than a fixed-size mask holds.
  return static_cast<int>(std::thread::hardware_concurrency());
}

// cpu.max reads "QUOTA PERIOD" in microseconds, or "max PERIOD".
int QuotaCpus() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  double quota = 0;
  double period = 0;
  if (!(file >> quota >> period) || period <= 0) {
    return std::numeric_limits<int>::max();
  }
  return static_cast<int>(std::ceil(quota / period));
}

}  // namespace

int UsableCpus() { return std::max(1, std::min(AffinityCpus(), QuotaCpus())); }

}  // namespace svdserve
