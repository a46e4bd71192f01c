// Nothing is allocated between Launch() and the end of Collect(), on any
// thread: every allocation of the process is counted. The one exception is
// what oneDNN allocates within a call of its own (it makes and drops an
// argument table for each execution); such calls are told by their return
// address and counted apart.
#include <link.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <random>

#include "gtest/gtest.h"
#include "tests/engine/device/random_model.h"

namespace {

std::atomic<long> allocations{0};
std::atomic<long> onednn_allocations{0};

// Where oneDNN's code lies; set before the first batch runs.
std::atomic<uintptr_t> onednn_begin{0};
std::atomic<uintptr_t> onednn_end{0};

int FindOneDnn(dl_phdr_info* info, size_t, void*) {
  if (std::strstr(info->dlpi_name, "libdnnl") == nullptr) return 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    if (header.p_type != PT_LOAD || (header.p_flags & PF_X) == 0) continue;
    onednn_begin = info->dlpi_addr + header.p_vaddr;
    onednn_end = onednn_begin + header.p_memsz;
  }
  return 1;
}

void Count(const void* caller) {
  const auto address = reinterpret_cast<uintptr_t>(caller);
  if (address >= onednn_begin && address < onednn_end) {
    ++onednn_allocations;
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
namespace {

class AllocationTest : public ::testing::TestWithParam<ComputeType> {};

TEST(AllocationCounterTest, SeesNewAndMalloc) {
  const long before = allocations;
  auto* value = new std::vector<int>(10);
  const long after = allocations;
  delete value;
  EXPECT_EQ(after - before, 2);
}

TEST_P(AllocationTest, RunningAllocatesNothing) {
  const Model model =
      RandomModel({.layers = VariedLayers(), .head_widths = {20}});
  dl_iterate_phdr(FindOneDnn, nullptr);
  auto backend = CreateCpuBackend(model, {.compute = GetParam(), .threads = 2});
  if (absl::IsUnimplemented(backend.status())) {
    GTEST_SKIP() << backend.status();
  }
  ASSERT_TRUE(backend.ok()) << backend.status();
  const Planner planner(model.shape, (*backend)->target(),
                        (*backend)->info().arena_bytes);
  std::mt19937 random(41);
  BatchOutput output;
  int batches = 0;
  output.values.reserve(100 * model.shape.output_width());
  // The first batches warm up: oneDNN keeps some memory for each thread.
  for (int sequences : {100, 100, 100, 1, 3, 100}) {
    std::vector<int> lengths(sequences, 1 + sequences % 64);
    const PackedBatch batch = BatchOf(RandomInputs(random, lengths));
    const auto plan = planner.MakePlan(batch.Shape());
    ASSERT_TRUE(plan.ok());
    const long before = allocations;
    const absl::Status launched = (*backend)->Launch(0, *plan, batch);
    const absl::Status collected = (*backend)->Collect(0, &output);
    const long after = allocations;
    EXPECT_TRUE(launched.ok() && collected.ok());
    if (++batches > 3) {
      EXPECT_EQ(after - before, 0) << sequences << " sequences";
    }
  }
  RecordProperty("onednn_allocations", std::to_string(onednn_allocations));
}

INSTANTIATE_TEST_SUITE_P(ComputeTypes, AllocationTest,
                         ::testing::Values(ComputeType::kF32,
                                           ComputeType::kBF16),
                         [](const auto& info) {
                           return info.param == ComputeType::kF32 ? "f32"
                                                                  : "bf16";
                         });

}  // namespace
}  // namespace svdserve
