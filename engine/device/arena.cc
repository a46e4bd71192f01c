#include "engine/device/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

namespace svdserve {
namespace {

// Huge pages where the system has them: fewer misses of the TLB.
constexpr uint64_t kPage = 2 << 20;

// Rare in what kernels write, and an ordinary small number to who reads it.
constexpr std::byte kUntouched{0xA5};

std::byte* Allocate(uint64_t bytes) {
  const uint64_t rounded =
      (std::max<uint64_t>(bytes, 1) + kPage - 1) / kPage * kPage;
  void* memory = std::aligned_alloc(kPage, rounded);
  if (memory == nullptr) throw std::bad_alloc();
  madvise(memory, rounded, MADV_HUGEPAGE);
  return static_cast<std::byte*>(memory);
}

}  // namespace

void Arena::Free::operator()(std::byte* memory) const { std::free(memory); }

Arena::Arena(uint64_t bytes) : bytes_(bytes), memory_(Allocate(bytes)) {
  Fill(kUntouched);
}

uint64_t Arena::TouchedBytes() {
  const std::byte* const memory = memory_.get();
  uint64_t end = bytes_;
  while (end > touched_bytes_ && memory[end - 1] == untouched_) --end;
  touched_bytes_ = end;
  return end;
}

void Arena::Fill(std::byte pattern) {
  std::memset(memory_.get(), static_cast<int>(pattern), bytes_);
  untouched_ = pattern;
  touched_bytes_ = 0;
}

}  // namespace svdserve
