// The one block of memory that a backend's batches live in.
//
// Allocated and touched once, at construction; never grows. Not thread-safe by
// itself: a plan gives each worker its own ranges.
//
//   Arena arena(plan.peak_bytes);
//   float* x = reinterpret_cast<float*>(arena.data() + buffer.offset);
#ifndef SVDSERVE_ENGINE_DEVICE_ARENA_H_
#define SVDSERVE_ENGINE_DEVICE_ARENA_H_

#include <cstddef>
#include <cstdint>
#include <memory>

namespace svdserve {

class Arena {
 public:
  // Throws std::bad_alloc if there is no such memory.
  explicit Arena(uint64_t bytes);

  std::byte* data() { return memory_.get(); }
  uint64_t bytes() const { return bytes_; }

  // The end of the highest byte that was ever written, found by looking for
  // what no longer holds the pattern that construction left. Reads the bytes
  // above the last result only.
  uint64_t TouchedBytes();

  // Fills everything with `pattern`; for tests that look for touched bytes.
  void Fill(std::byte pattern);

 private:
  struct Free {
    void operator()(std::byte* memory) const;
  };
  uint64_t bytes_;
  std::byte untouched_;
  uint64_t touched_bytes_ = 0;
  std::unique_ptr<std::byte, Free> memory_;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_DEVICE_ARENA_H_
