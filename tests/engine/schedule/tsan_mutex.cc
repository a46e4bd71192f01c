// Tells ThreadSanitizer what absl's locks order. Distributions ship abseil as a
// shared library that is not instrumented, so the sanitizer cannot see that an
// absl::Mutex was taken and reports everything that it guards. These
// definitions come before the library's: each calls the library's own and notes
// what it means. Part of tests that are built with -fsanitize=thread only.
#include <dlfcn.h>

#include <cstdlib>
#include <string>

#include "absl/base/config.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
}

#define SVDSERVE_TEXT_OF(name) #name
#define SVDSERVE_NAME_OF(name) SVDSERVE_TEXT_OF(name)

namespace {

// The library's function. `name` is its mangled name after the namespace, with
// '@' where the namespace is referred to again.
template <typename Function>
Function Library(std::string name) {
  std::string scope;
  std::string again = "S_";
#if ABSL_OPTION_USE_INLINE_NAMESPACE
  scope = SVDSERVE_NAME_OF(ABSL_OPTION_INLINE_NAMESPACE_NAME);
  scope.insert(0, std::to_string(scope.size()));
  again = "S0_";
#endif
  for (size_t at; (at = name.find('@')) != std::string::npos;) {
    name.replace(at, 1, again);
  }
  const std::string symbol = "_ZN4absl" + scope + name;
  void* const found = dlsym(RTLD_NEXT, symbol.c_str());
  if (found == nullptr) std::abort();
  return reinterpret_cast<Function>(found);
}

// The library may call other threads' conditions while it holds the lock.
class IgnoreReads {
 public:
  IgnoreReads() { AnnotateIgnoreReadsBegin(__FILE__, __LINE__); }
  ~IgnoreReads() { AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
};

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

void Mutex::Lock() {
  static const auto real = Library<void (*)(Mutex*)>("5Mutex4LockEv");
  real(this);
  __tsan_acquire(this);
}

void Mutex::Unlock() {
  static const auto real = Library<void (*)(Mutex*)>("5Mutex6UnlockEv");
  __tsan_release(this);
  const IgnoreReads ignore;
  real(this);
}

#if ABSL_LTS_RELEASE_VERSION >= 20240116  // all waits come here, inline

bool Mutex::AwaitCommon(const Condition& condition,
                        synchronization_internal::KernelTimeout timeout) {
  static const auto real = Library<bool (*)(
      Mutex*, const Condition&, synchronization_internal::KernelTimeout)>(
      "5Mutex11AwaitCommonERKN@9ConditionE"
      "N@24synchronization_internal13KernelTimeoutE");
  __tsan_release(this);
  bool met;
  {
    const IgnoreReads ignore;
    met = real(this, condition, timeout);
  }
  __tsan_acquire(this);
  return met;
}

bool CondVar::WaitCommon(Mutex* mu,
                         synchronization_internal::KernelTimeout timeout) {
  static const auto real = Library<bool (*)(
      CondVar*, Mutex*, synchronization_internal::KernelTimeout)>(
      "7CondVar10WaitCommonEPN@5MutexE"
      "N@24synchronization_internal13KernelTimeoutE");
  __tsan_release(mu);
  const bool timed_out = real(this, mu, timeout);
  __tsan_acquire(mu);
  return timed_out;
}

#else

void Mutex::Await(const Condition& condition) {
  static const auto real = Library<void (*)(Mutex*, const Condition&)>(
      "5Mutex5AwaitERKN@9ConditionE");
  __tsan_release(this);
  {
    const IgnoreReads ignore;
    real(this, condition);
  }
  __tsan_acquire(this);
}

void CondVar::Wait(Mutex* mu) {
  static const auto real =
      Library<void (*)(CondVar*, Mutex*)>("7CondVar4WaitEPN@5MutexE");
  __tsan_release(mu);
  real(this, mu);
  __tsan_acquire(mu);
}

bool CondVar::WaitWithTimeout(Mutex* mu, Duration timeout) {
  static const auto real = Library<bool (*)(CondVar*, Mutex*, Duration)>(
      "7CondVar15WaitWithTimeoutEPN@5MutexEN@8DurationE");
  __tsan_release(mu);
  const bool timed_out = real(this, mu, timeout);
  __tsan_acquire(mu);
  return timed_out;
}

bool CondVar::WaitWithDeadline(Mutex* mu, Time deadline) {
  static const auto real = Library<bool (*)(CondVar*, Mutex*, Time)>(
      "7CondVar16WaitWithDeadlineEPN@5MutexEN@4TimeE");
  __tsan_release(mu);
  const bool timed_out = real(this, mu, deadline);
  __tsan_acquire(mu);
  return timed_out;
}

#endif

ABSL_NAMESPACE_END
}  // namespace absl
