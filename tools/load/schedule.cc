#include "tools/load/schedule.h"

namespace svdserve {

ArrivalSchedule::ArrivalSchedule(Arrivals arrivals, double rate, uint64_t seed)
    : arrivals_(arrivals), rate_(rate), random_(seed), gap_(rate) {}

double ArrivalSchedule::Next() {
  // The first of a uniform schedule is at 0, and no rounding adds up.
  if (arrivals_ == Arrivals::kUniform) {
    return static_cast<double>(sent_++) / rate_;
  }
  now_ += gap_(random_);
  return now_;
}

}  // namespace svdserve
