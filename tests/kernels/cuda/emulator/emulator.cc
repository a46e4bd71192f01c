#include "tests/kernels/cuda/emulator/emulator.h"

#include <sys/mman.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "tests/kernels/cuda/emulator/fiber.h"

#if defined(__SANITIZE_ADDRESS__)
#define SVDSERVE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SVDSERVE_ASAN 1
#endif
#endif

#ifdef SVDSERVE_ASAN
#include <sanitizer/asan_interface.h>
#endif

uint3 threadIdx{};
uint3 blockIdx{};
dim3 blockDim;
dim3 gridDim;

namespace svdserve::cuda::emulator {
namespace {

constexpr int kLanes = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;
constexpr int kMaxThreads = 1024;
constexpr size_t kStackBytes = size_t{256} << 10;
constexpr size_t kPageBytes = 4096;
constexpr size_t kSharedAlignment = 1024;
constexpr size_t kGuardBytes = 4096;     // before and after shared memory
constexpr unsigned char kPoison = 0xff;  // NaN in every type

constexpr char kRuns[] = "runs";
constexpr char kBarrier[] = "__syncthreads()";
constexpr char kExit[] = "the kernel's end";

struct Copy {
  void* shared;
  const void* global;  // null: zeros
  int group;
};

struct Thread {
  Fiber fiber;
  const char* place = kRuns;  // where it waits
  std::vector<Copy> copies;   // not done yet
  int groups = 0;             // committed
  bool waited = false;        // for prior kernels
};

struct Warp {
  uint32_t ready = kAllLanes;
  uint32_t arrived = 0;  // in `operation`
  const Operation* operation = nullptr;
  void* arguments[kLanes];
};

struct Grid {
  const char* name = "";
  int threads = 0;
  int shared_bytes = 0;
  const std::function<void()>* body = nullptr;
  bool waits = false;
};

// The block that runs. Warps and lanes take turns upwards in one block and
// downwards in the next, so that a missing barrier shows in one of them.
struct Block {
  Grid grid;
  Fiber host;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<unsigned char> memory;
  unsigned char* shared = nullptr;
  int current = 0;
  int at_barrier = 0;
  int exited = 0;
  bool downwards = false;
};

// Fibers cannot outlive or share it: launches hold `launching`.
Block block;
std::mutex launching;
int shared_limit = 227 << 10;
int shared_peak = 0;
uint64_t blocks_run = 0;

Thread& Current() { return block.threads[block.current]; }
Warp& CurrentWarp() { return block.warps[block.current / kLanes]; }
uint32_t CurrentBit() { return 1u << block.current % kLanes; }

[[noreturn]] void DieAt(int thread, const char* message, const char* place) {
  std::fprintf(stderr,
               "\nCUDA emulator: %s %s\n  kernel: %s\n  block (%u, %u, %u) "
               "thread %d\n",
               message, place, block.grid.name, blockIdx.x, blockIdx.y,
               blockIdx.z, thread);
  std::abort();
}

// Two threads wait for each other: shows one of each place.
[[noreturn]] void DieDivergent(int first, int end) {
  const char* place = block.threads[first].place;
  for (int i = first + 1; i < end; ++i) {
    if (block.threads[i].place == place) continue;
    std::fprintf(stderr, "\nCUDA emulator: thread %d is at %s meanwhile\n", i,
                 block.threads[i].place);
    break;
  }
  DieAt(first, "threads diverge; this one is at", place);
}

// ---- Whose turn it is ----

// The next set bit after `lane`, around the warp; `ready` is not zero.
int NextLane(uint32_t ready, int lane) {
  for (int i = 1;; ++i) {
    const int next = (lane + (block.downwards ? kLanes - i : i)) % kLanes;
    if (ready >> next & 1) return next;
  }
}

// The next thread that can run; -1: all have ended.
int NextThread() {
  const int warps = static_cast<int>(block.warps.size());
  const int lane = block.current % kLanes;
  const int warp = block.current / kLanes;
  for (int i = 0; i < warps; ++i) {
    const int next = (warp + (block.downwards ? warps - i : i)) % warps;
    const Warp& candidate = block.warps[next];
    if (candidate.ready != 0) {
      return next * kLanes + NextLane(candidate.ready, i == 0 ? lane
                                                       : block.downwards
                                                           ? 0
                                                           : kLanes - 1);
    }
    if (candidate.arrived != 0) {
      DieDivergent(next * kLanes, (next + 1) * kLanes);
    }
  }
  if (block.exited == block.grid.threads) return -1;
  DieDivergent(0, block.grid.threads);
}

void SwitchTo(int next, bool ends) {
  Fiber& from = Current().fiber;
  if (next < 0) {
    SwitchFiber(from, block.host, ends);
    return;
  }
  block.current = next;
  threadIdx.x = next;
  SwitchFiber(from, Current().fiber, ends);
}

// Until someone makes this thread ready again.
void Wait(const char* place) {
  const int self = block.current;
  Current().place = place;
  CurrentWarp().ready &= ~CurrentBit();
  SwitchTo(NextThread(), false);
  block.threads[self].place = kRuns;
}

void ThreadMain() {
  FiberStarted();
  (*block.grid.body)();
  Current().place = kExit;
  if (!Current().copies.empty()) Die("copies that nobody waits for at");
  if (block.grid.waits && !Current().waited) {
    Die("a thread that did not wait for prior kernels is at");
  }
  CurrentWarp().ready &= ~CurrentBit();
  ++block.exited;
  SwitchTo(NextThread(), true);
}

// ---- Blocks ----

// Stacks of all fibers: each begins with a page that must not be touched.
void MakeStacks() {
  if (!block.threads.empty()) return;
  block.threads.resize(kMaxThreads);
  const size_t bytes = kMaxThreads * kStackBytes;
  void* stacks = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stacks == MAP_FAILED) Die("no memory for stacks");
  for (int i = 0; i < kMaxThreads; ++i) {
    std::byte* stack = static_cast<std::byte*>(stacks) + i * kStackBytes;
    mprotect(stack, kPageBytes, PROT_NONE);
    block.threads[i].fiber.stack = stack;
    block.threads[i].fiber.stack_bytes = kStackBytes;
  }
}

#ifdef SVDSERVE_ASAN
void SetGuard(unsigned char* guard) {
  ASAN_POISON_MEMORY_REGION(guard, kGuardBytes);
}
void CheckGuard(const unsigned char* /*guard*/) {}
void DropGuards() {
  ASAN_UNPOISON_MEMORY_REGION(block.memory.data(), block.memory.size());
}
#else
constexpr unsigned char kGuard = 0xa5;

void SetGuard(unsigned char* guard) { std::memset(guard, kGuard, kGuardBytes); }
void CheckGuard(const unsigned char* guard) {
  for (size_t i = 0; i < kGuardBytes; ++i) {
    if (guard[i] != kGuard) Die("wrote outside its shared memory; found at");
  }
}
void DropGuards() {}
#endif

void MakeShared() {
  DropGuards();
  const size_t bytes = block.grid.shared_bytes;
  block.memory.resize(bytes + 2 * kGuardBytes + kSharedAlignment);
  const uintptr_t first =
      reinterpret_cast<uintptr_t>(block.memory.data()) + kGuardBytes;
  block.shared =
      block.memory.data() + kGuardBytes +
      (kSharedAlignment - first % kSharedAlignment) % kSharedAlignment;
  SetGuard(block.shared - kGuardBytes);
  SetGuard(block.shared + bytes);
}

void RunBlock() {
  if (block.grid.shared_bytes > 0) {
    std::memset(block.shared, kPoison, block.grid.shared_bytes);
  }
  for (Warp& warp : block.warps) warp = Warp();
  for (int i = 0; i < block.grid.threads; ++i) {
    Thread& thread = block.threads[i];
    thread.place = kRuns;
    thread.groups = 0;
    thread.waited = false;
    PrepareFiber(thread.fiber, ThreadMain);
  }
  block.at_barrier = 0;
  block.exited = 0;
  block.downwards = blocks_run++ % 2 == 1;
  block.current = block.downwards ? block.grid.threads - 1 : 0;
  threadIdx = {static_cast<unsigned>(block.current), 0, 0};
  SwitchFiber(block.host, Current().fiber);
  CheckGuard(block.shared - kGuardBytes);
  CheckGuard(block.shared + block.grid.shared_bytes);
}

}  // namespace

cudaError_t Run(const char* name, dim3 grid, int threads, int shared_bytes,
                const std::function<void()>& body, bool waits) {
  std::lock_guard<std::mutex> lock(launching);
  shared_peak = std::max(shared_peak, shared_bytes);
  if (shared_bytes < 0 || shared_bytes > shared_limit) {
    return cudaErrorInvalidValue;
  }
  if (grid.x == 0 || grid.x > 0x7fffffff || grid.y == 0 || grid.y > 65535 ||
      grid.z == 0 || grid.z > 65535 || threads <= 0 || threads > kMaxThreads) {
    return cudaErrorInvalidConfiguration;
  }
  block.grid = {name, threads, shared_bytes, &body, waits};
  if (threads % kLanes != 0) Die("a block is not whole warps, but");
  MakeStacks();
  MakeShared();
  block.warps.resize(threads / kLanes);
  gridDim = grid;
  blockDim = dim3(threads);
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        RunBlock();
      }
    }
  }
  DropGuards();
  return cudaSuccess;
}

void SetSharedLimit(int bytes) { shared_limit = bytes; }

int TakeSharedPeak() { return std::exchange(shared_peak, 0); }

unsigned char* SharedMemory() { return block.shared; }

void WaitForPriorKernels() {
  if (Current().waited) Die("waits for prior kernels a second time; a thread");
  Current().waited = true;
}

void LetNextKernelStart() {
  if (!Current().waited) Die("lets the next kernel start too early; a thread");
}

void Die(const char* message) {
  DieAt(block.current, message, Current().place);
}

void CheckShared(const void* pointer, int bytes, const char* what) {
  const auto* first = static_cast<const unsigned char*>(pointer);
  if (reinterpret_cast<uintptr_t>(pointer) % 16 != 0) {
    DieAt(block.current, "an address that is no multiple of 16 in", what);
  }
  if (first < block.shared ||
      first + bytes > block.shared + block.grid.shared_bytes) {
    DieAt(block.current, "an address outside shared memory in", what);
  }
}

void CopyAsync16(void* shared, const void* global) {
  CheckShared(shared, 16, "CopyAsync16()");
  if (reinterpret_cast<uintptr_t>(global) % 16 != 0) {
    DieAt(block.current, "a source that is no multiple of 16 in",
          "CopyAsync16()");
  }
  std::memset(shared, kPoison, 16);
  Current().copies.push_back({shared, global, Current().groups});
}

void CopyCommit() { ++Current().groups; }

void CopyWait(int pending) {
  Thread& thread = Current();
  size_t done = 0;
  for (; done < thread.copies.size(); ++done) {
    const Copy& copy = thread.copies[done];
    if (copy.group >= thread.groups - pending) break;
    if (copy.global == nullptr) {
      std::memset(copy.shared, 0, 16);
    } else {
      std::memcpy(copy.shared, copy.global, 16);
    }
  }
  thread.copies.erase(thread.copies.begin(), thread.copies.begin() + done);
}

void Collective(const Operation& operation, void* lane) {
  Warp& warp = CurrentWarp();
  if (warp.arrived == 0) warp.operation = &operation;
  if (warp.operation != &operation) {
    Current().place = operation.name;
    DieDivergent(block.current / kLanes * kLanes,
                 (block.current / kLanes + 1) * kLanes);
  }
  warp.arguments[block.current % kLanes] = lane;
  warp.arrived |= CurrentBit();
  if (warp.arrived != kAllLanes) {
    Wait(operation.name);
    return;
  }
  operation.run(warp.arguments);
  warp.arrived = 0;
  warp.ready = kAllLanes;
}

}  // namespace svdserve::cuda::emulator

void __syncthreads() {
  using namespace svdserve::cuda::emulator;
  if (++block.at_barrier < block.grid.threads) {
    Wait(kBarrier);
    return;
  }
  block.at_barrier = 0;
  for (Warp& warp : block.warps) warp.ready = kAllLanes;
}

void __syncwarp(unsigned mask) {
  using namespace svdserve::cuda::emulator;
  static constexpr Operation kSyncWarp{"__syncwarp()", [](void* const*) {}};
  if (mask != kAllLanes) Die("part of a warp in __syncwarp();");
  Collective(kSyncWarp, nullptr);
}
