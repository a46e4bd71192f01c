// A fork-join team of threads for one device's compute.
//
// A Team of n is the calling thread (worker 0) and n - 1 threads of its own
// (workers 1 to n - 1), named "NAME/worker". Between loops the threads spin for
// some tens of microseconds, then sleep. ParallelFor() may be called from one
// thread at a time, never from within a loop, allocates nothing and returns
// when every index is done. Which worker gets which index is not determined:
// results must not depend on it.
//
//   Team team(2, "cpu0");
//   team.ParallelFor(tiles, [&](int worker, int tile) { ... });
#ifndef SVDSERVE_KERNELS_TEAM_H_
#define SVDSERVE_KERNELS_TEAM_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace svdserve::kernels {

class Team {
 public:
  // `threads` >= 1. May throw std::system_error if threads cannot be started.
  Team(int threads, const char* name);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return static_cast<int>(threads_.size()) + 1; }

  // Calls fn(worker, index) once for each index in [0, count). Workers take
  // `grain` neighbouring indices at a time. fn must not throw.
  template <typename Fn>
  void ParallelFor(int count, int grain, Fn&& fn) {
    using F = std::remove_reference_t<Fn>;
    Run(count, grain,
        {[](void* context, int worker, int index) {
           (*static_cast<F*>(context))(worker, index);
         },
         const_cast<void*>(static_cast<const void*>(&fn))});
  }
  template <typename Fn>
  void ParallelFor(int count, Fn&& fn) {
    ParallelFor(count, 1, fn);
  }

 private:
  struct Body {
    void (*call)(void* context, int worker, int index) = nullptr;
    void* context = nullptr;
  };

  void Run(int count, int grain, Body body);
  void WaitForWorkers();
  void TakeIndices(int worker);
  void WorkerLoop(int worker);

  std::vector<std::thread> threads_;

  // The loop in progress; written while no worker is in a loop.
  int count_ = 0;
  int grain_ = 1;
  Body body_;

  // Workers join a loop while it is open; Run() closes it when its indices are
  // taken, so that a thread that wakes too late delays nobody.
  alignas(64) std::atomic<uint32_t> state_{0};
  alignas(64) std::atomic<int> next_{0};       // first index not taken
  alignas(64) std::atomic<uint32_t> left_{0};  // times a worker left a loop
  std::atomic<bool> stop_{false};
};

}  // namespace svdserve::kernels

#endif  // SVDSERVE_KERNELS_TEAM_H_
