#include "engine/schedule/byte_budget.h"

#include <utility>

namespace svdserve {

Reservation::Reservation(Reservation&& other) noexcept
    : budget_(std::exchange(other.budget_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  if (this == &other) return *this;
  Release();
  budget_ = std::exchange(other.budget_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  return *this;
}

void Reservation::Release() {
  if (budget_ != nullptr) budget_->Return(bytes_);
  budget_ = nullptr;
  bytes_ = 0;
}

std::optional<Reservation> ByteBudget::TryReserve(uint64_t bytes) {
  uint64_t before = reserved_.load(std::memory_order_relaxed);
  do {
    if (bytes > limit_ - before) return std::nullopt;
  } while (!reserved_.compare_exchange_weak(before, before + bytes,
                                            std::memory_order_relaxed));
  uint64_t peak = peak_.load(std::memory_order_relaxed);
  while (peak < before + bytes &&
         !peak_.compare_exchange_weak(peak, before + bytes,
                                      std::memory_order_relaxed)) {
  }
  return Reservation(this, bytes);
}

}  // namespace svdserve
