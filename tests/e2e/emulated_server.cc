// The rest is svdserve as it is: it has two emulated GPUs. SIGUSR1 breaks GPU
// 0, SIGUSR2 GPU 1: its next batch ends with an error that loses the device.
#include <pthread.h>

#include <csignal>
#include <thread>

#include "tests/engine/device/emulated/emulated_gpus.h"

namespace svdserve {
namespace {

// No handler could take the faults' lock, so that a thread waits for signals.
// It leaves all others, those that stop the server among them, to the server.
void BreakOnSignals() {
  sigset_t ours;
  sigemptyset(&ours);
  sigaddset(&ours, SIGUSR1);
  sigaddset(&ours, SIGUSR2);
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread([ours] {
    int signal = 0;
    while (sigwait(&ours, &signal) == 0) {
      FaultsOf(signal == SIGUSR1 ? 0 : 1)
          .Inject(Faults::kWait, 1, cudaErrorIllegalAddress);
    }
  }).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_sigmask(SIG_BLOCK, &ours, nullptr);
}

// Before main().
[[maybe_unused]] const bool prepared = [] {
  EmulatedGpus() = {{.index = 0}, {.index = 1}};
  BreakOnSignals();
  return true;
}();

}  // namespace
}  // namespace svdserve
