// A number of bytes that may be reserved at any one time.
//
// Thread-safe and lock-free. A reservation is taken in one atomic step: there
// is no way to ask first and take later, so the sum of all reservations never
// exceeds the limit, whatever the threads do. A Reservation gives its bytes
// back when it dies; the budget must outlive it.
//
//   std::optional<Reservation> bytes = budget.TryReserve(4096);
//   if (!bytes) return Refuse();
#ifndef SVDSERVE_ENGINE_SCHEDULE_BYTE_BUDGET_H_
#define SVDSERVE_ENGINE_SCHEDULE_BYTE_BUDGET_H_

#include <atomic>
#include <cstdint>
#include <optional>

namespace svdserve {

class ByteBudget;

// Movable; empty by default.
class Reservation {
 public:
  Reservation() = default;
  Reservation(Reservation&& other) noexcept;
  Reservation& operator=(Reservation&& other) noexcept;
  ~Reservation() { Release(); }

  uint64_t bytes() const { return bytes_; }
  void Release();

 private:
  friend class ByteBudget;
  Reservation(ByteBudget* budget, uint64_t bytes)
      : budget_(budget), bytes_(bytes) {}
  ByteBudget* budget_ = nullptr;
  uint64_t bytes_ = 0;
};

class ByteBudget {
 public:
  explicit ByteBudget(uint64_t limit) : limit_(limit) {}
  ByteBudget(const ByteBudget&) = delete;
  ByteBudget& operator=(const ByteBudget&) = delete;

  std::optional<Reservation> TryReserve(uint64_t bytes);

  uint64_t limit() const { return limit_; }
  uint64_t reserved() const {
    return reserved_.load(std::memory_order_relaxed);
  }
  // For reports only: it may have changed by the time it is read.
  uint64_t available() const { return limit_ - reserved(); }
  uint64_t peak() const { return peak_.load(std::memory_order_relaxed); }

 private:
  friend class Reservation;
  void Return(uint64_t bytes) {
    reserved_.fetch_sub(bytes, std::memory_order_relaxed);
  }

  const uint64_t limit_;
  std::atomic<uint64_t> reserved_{0};
  std::atomic<uint64_t> peak_{0};
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_SCHEDULE_BYTE_BUDGET_H_
