// How many processors this process may use.
#ifndef SVDSERVE_ENGINE_DEVICE_CPU_COUNT_H_
#define SVDSERVE_ENGINE_DEVICE_CPU_COUNT_H_

namespace svdserve {

// Processors of the affinity mask, or fewer if the control group's CPU quota
// (cgroup v2) is smaller. At least 1.
int UsableCpus();

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_DEVICE_CPU_COUNT_H_
