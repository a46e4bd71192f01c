// What the system and the allocator know of this process.
#ifndef SVDSERVE_SERVER_PROCESS_STATS_H_
#define SVDSERVE_SERVER_PROCESS_STATS_H_

#include <cstdint>

namespace svdserve {

struct ProcessStats {
  uint64_t resident_bytes = 0;
  uint64_t heap_bytes = 0;        // allocated; not what malloc keeps for later
  double cpu_seconds = 0;         // user and system
  double start_time_seconds = 0;  // since the Unix epoch
};

// Zero where /proc cannot be read.
ProcessStats ReadProcessStats();

}  // namespace svdserve

#endif  // SVDSERVE_SERVER_PROCESS_STATS_H_
