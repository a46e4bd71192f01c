#include "tests/engine/device/allocation_counter.h"

#include <link.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace {

std::atomic<long> allocations{0};
std::atomic<long> apart{0};

// The code of the library that is counted apart.
std::atomic<uintptr_t> apart_begin{0};
std::atomic<uintptr_t> apart_end{0};

int FindCode(dl_phdr_info* info, size_t, void* library) {
  if (std::strstr(info->dlpi_name, static_cast<const char*>(library)) ==
      nullptr) {
    return 0;
  }
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    if (header.p_type != PT_LOAD || (header.p_flags & PF_X) == 0) continue;
    apart_begin = info->dlpi_addr + header.p_vaddr;
    apart_end = apart_begin + header.p_memsz;
  }
  return 1;
}

void Count(const void* caller) {
  const auto address = reinterpret_cast<uintptr_t>(caller);
  if (address >= apart_begin && address < apart_end) {
    ++apart;
  } else {
    ++allocations;
  }
}

}  // namespace

#define COUNT() Count(__builtin_return_address(0))

// glibc's own functions under the names that everybody calls.
extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier)
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* memory, size_t size);
void* __libc_memalign(size_t alignment, size_t size);
// NOLINTEND(bugprone-reserved-identifier)

void* malloc(size_t size) {
  COUNT();
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  COUNT();
  return __libc_calloc(count, size);
}
void* realloc(void* memory, size_t size) {
  COUNT();
  return __libc_realloc(memory, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  COUNT();
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** memory, size_t alignment, size_t size) {
  COUNT();
  *memory = __libc_memalign(alignment, size);
  return *memory == nullptr ? ENOMEM : 0;
}
}

// Replaced too, so that the return address is the caller's and not the C++
// library's.
[[gnu::noinline]] void* operator new(size_t size) {
  COUNT();
  void* memory = __libc_malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void* operator new[](size_t size) {
  COUNT();
  void* memory = __libc_malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete[](void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete[](void* memory, size_t) noexcept {
  std::free(memory);
}

namespace svdserve {

long Allocations() { return allocations; }

void CountApart(const char* library) {
  dl_iterate_phdr(FindCode, const_cast<char*>(library));
}

long AllocationsApart() { return apart; }

}  // namespace svdserve
