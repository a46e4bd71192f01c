// Tells waiting work that its caller went away. Cheap to copy and to ask.
#ifndef SVDSERVE_ENGINE_SCHEDULE_CANCELLATION_H_
#define SVDSERVE_ENGINE_SCHEDULE_CANCELLATION_H_

#include <atomic>
#include <memory>

namespace svdserve {

// Thread-safe. A default token is never cancelled.
class CancellationToken {
 public:
  CancellationToken() = default;
  bool cancelled() const {
    return flag_ != nullptr && flag_->load(std::memory_order_acquire);
  }

 private:
  friend class CancellationSource;
  explicit CancellationToken(std::shared_ptr<const std::atomic<bool>> flag)
      : flag_(std::move(flag)) {}
  std::shared_ptr<const std::atomic<bool>> flag_;
};

class CancellationSource {
 public:
  CancellationSource() : flag_(std::make_shared<std::atomic<bool>>(false)) {}
  void Cancel() { flag_->store(true, std::memory_order_release); }
  CancellationToken token() const { return CancellationToken(flag_); }

 private:
  std::shared_ptr<std::atomic<bool>> flag_;
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_SCHEDULE_CANCELLATION_H_
