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
  Fill(std::byte{0});
}

void Arena::Fill(std::byte pattern) {
  std::memset(memory_.get(), static_cast<int>(pattern), bytes_);
}

}  // namespace svdserve
