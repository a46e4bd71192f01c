// When an open-loop run sends: arrivals that do not wait for completions.
//
//   ArrivalSchedule schedule(Arrivals::kPoisson, /*rate=*/200, /*seed=*/1);
//   double seconds = schedule.Next();  // since the start, never decreasing
#ifndef SVDSERVE_TOOLS_LOAD_SCHEDULE_H_
#define SVDSERVE_TOOLS_LOAD_SCHEDULE_H_

#include <cstdint>
#include <random>

namespace svdserve {

// Poisson: independent arrivals, as from many users. Uniform: equal gaps.
enum class Arrivals { kPoisson, kUniform };

// Not thread-safe. The same arguments give the same times.
class ArrivalSchedule {
 public:
  ArrivalSchedule(Arrivals arrivals, double rate, uint64_t seed);

  double Next();

 private:
  const Arrivals arrivals_;
  const double rate_;  // arrivals a second

  std::mt19937_64 random_;
  std::exponential_distribution<double> gap_;
  int64_t sent_ = 0;
  double now_ = 0;
};

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_LOAD_SCHEDULE_H_
