// A backend and a tokenizer for tests of what is between them.
#ifndef SVDSERVE_TESTS_ENGINE_FAKES_H_
#define SVDSERVE_TESTS_ENGINE_FAKES_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "engine/device/backend.h"
#include "engine/text/tokenizer.h"

namespace svdserve {

// Row i of a batch's output is {sum of ids, tokens, first id, 0, ...}. An id of
// kNanId makes its row NaN; kPoisonId makes a launch fail as the input's fault.
class FakeBackend : public Backend {
 public:
  static constexpr int32_t kNanId = 90;
  static constexpr int32_t kPoisonId = 91;

  FakeBackend(int width, uint64_t arena_bytes, int slots = 1)
      : width_(width), slots_(slots), pending_(slots) {
    info_.name = "fake";
    info_.arena_bytes = arena_bytes;
    info_.full_speed_tokens = 16384;
  }

  const BackendInfo& info() const override { return info_; }
  PlanTarget target() const override { return {}; }
  int slots() const override { return slots_; }

  absl::Status Launch(int slot, const Plan& plan,
                      const PackedBatch& batch) override {
    AwaitOpen();
    if (plan.peak_bytes > info_.arena_bytes) ++plans_too_large;
    ++launches;
    largest_batch = std::max(largest_batch.load(), batch.sequences());
    for (const int32_t id : batch.ids) {
      if (id == kPoisonId) return absl::InvalidArgumentError("a poisoned id");
    }
    if (lose) {
      lost_ = true;
      return absl::UnavailableError("the fake device was lost");
    }
    if (failures_left > 0) {
      --failures_left;
      return absl::UnavailableError("the fake device is gone");
    }
    if (on_launch) on_launch(batch);
    pending_[slot] = Compute(batch);
    return absl::OkStatus();
  }

  absl::Status Collect(int slot, BatchOutput* output) override {
    if (collect_failures_left > 0) {
      --collect_failures_left;
      return absl::InternalError("the fake device lost its results");
    }
    *output = std::move(pending_[slot]);
    return absl::OkStatus();
  }
  uint64_t TouchedBytes() override { return 0; }
  bool lost() const override { return lost_; }

  // While closed, launches wait, as if a batch took for ever.
  void Close() {
    absl::MutexLock lock(&mu_);
    open_ = false;
  }
  void Open() {
    absl::MutexLock lock(&mu_);
    open_ = true;
  }
  // Waits until a launch waits.
  void AwaitBusy() {
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(&busy_));
  }

  std::atomic<int> launches{0};
  std::atomic<int> largest_batch{0};  // in sequences
  std::atomic<int> failures_left{0};
  std::atomic<int> collect_failures_left{0};
  std::atomic<int> plans_too_large{0};
  std::atomic<bool> lose{false};  // the next launch loses the device
  std::function<void(const PackedBatch&)> on_launch;  // set before use

 private:
  void AwaitOpen() {
    absl::MutexLock lock(&mu_);
    busy_ = true;
    mu_.Await(absl::Condition(&open_));
    busy_ = false;
  }

  BatchOutput Compute(const PackedBatch& batch) const {
    BatchOutput output;
    output.width = width_;
    output.values.assign(batch.sequences() * width_, 0);
    for (int i = 0; i < batch.sequences(); ++i) {
      float* row = output.values.data() + i * width_;
      row[1] =
          static_cast<float>(batch.cu_seqlens[i + 1] - batch.cu_seqlens[i]);
      row[2] = static_cast<float>(batch.ids[batch.cu_seqlens[i]]);
      for (int t = batch.cu_seqlens[i]; t < batch.cu_seqlens[i + 1]; ++t) {
        row[0] += static_cast<float>(batch.ids[t]);
        if (batch.ids[t] == kNanId) {
          row[0] = std::numeric_limits<float>::quiet_NaN();
        }
      }
    }
    return output;
  }

  const int width_;
  const int slots_;
  BackendInfo info_;
  std::atomic<bool> lost_{false};
  std::vector<BatchOutput> pending_;  // by slot
  absl::Mutex mu_;
  bool open_ ABSL_GUARDED_BY(mu_) = true;
  bool busy_ ABSL_GUARDED_BY(mu_) = false;
};

// One token a byte: id = byte modulo 80, so that "a" is 17. Adds no special
// tokens; a pair follows its text with type 1.
class FakeTokenizer : public Tokenizer {
 public:
  explicit FakeTokenizer(int vocab_size) : vocab_size_(vocab_size) {}

  absl::Status Encode(std::string_view text,
                      std::optional<std::string_view> pair,
                      const EncodeOptions& options,
                      Encoding* out) const override {
    ++encoded;
    if (on_encode) on_encode();
    out->Clear();
    Append(text, 0, out);
    if (pair) Append(*pair, 1, out);
    const int excess = static_cast<int>(out->ids.size()) - options.max_tokens;
    if (!options.truncate || options.max_tokens == 0 || excess <= 0) {
      return absl::OkStatus();
    }
    if (options.side == TruncationSide::kLeft) {
      out->ids.erase(out->ids.begin(), out->ids.begin() + excess);
    }
    out->ids.resize(options.max_tokens);
    out->type_ids.resize(options.max_tokens);
    return absl::OkStatus();
  }

  int vocab_size() const override { return vocab_size_; }
  int32_t TokenToId(std::string_view) const override { return -1; }
  std::string_view IdToToken(int32_t) const override { return ""; }

  mutable std::atomic<int> encoded{0};
  std::function<void()> on_encode;  // set before use

 private:
  static void Append(std::string_view text, uint8_t type, Encoding* out) {
    for (const char c : text) {
      out->ids.push_back(static_cast<unsigned char>(c) % 80);
      out->type_ids.push_back(type);
    }
  }
  const int vocab_size_;
};

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_ENGINE_FAKES_H_
