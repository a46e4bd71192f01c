// One device that runs plans.
//
// A backend owns the packed weights and one arena of fixed size; nothing is
// allocated between Launch() and the end of Collect(). It is driven by one
// thread, the device's worker. A device with asynchronous execution has more
// than one slot, so that the copies of one batch overlap the compute of
// another; the CPU has one slot and computes in Launch().
//
//   CHECK_OK(backend->Launch(0, plan, batch));
//   CHECK_OK(backend->Collect(0, &output));
#ifndef SVDSERVE_ENGINE_DEVICE_BACKEND_H_
#define SVDSERVE_ENGINE_DEVICE_BACKEND_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/model.h"
#include "engine/plan/plan.h"

namespace svdserve {

// What happens to one output row on the device.
struct OutputOptions {
  bool normalize = true;  // to unit length, after the cut; embeddings only
  int dimensions = 0;     // keep the first n values; 0 keeps all
};

// Inputs of a batch, back to back, without padding.
struct PackedBatch {
  std::vector<int32_t> ids;            // [tokens]
  std::vector<uint8_t> type_ids;       // [tokens]
  std::vector<int32_t> cu_seqlens;     // [sequences + 1], first 0
  std::vector<OutputOptions> options;  // [sequences]

  int sequences() const { return static_cast<int>(options.size()); }
  int tokens() const { return static_cast<int>(ids.size()); }
  BatchShape Shape() const;
};

// Row i holds the output of sequence i: the embedding (cut, then normalised) or
// the raw logits; values past `dimensions` are zero.
struct BatchOutput {
  int width = 0;
  std::vector<float> values;  // [sequences, width]
};

struct BackendInfo {
  std::string name;           // "cpu", "cuda"
  std::string reason;         // why it was chosen
  std::string dtype;          // "float32", "bfloat16", "float16"
  std::string mode;           // "strict" or "fast": what Mode says, as it is
  uint64_t weight_bytes = 0;  // as packed for the device
  uint64_t arena_bytes = 0;
  // Tokens of a batch beyond which the device gets no faster.
  int full_speed_tokens = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual const BackendInfo& info() const = 0;
  virtual PlanTarget target() const = 0;
  virtual int slots() const = 0;
  // Starts a batch. The plan must have been made for target() and at most
  // arena_bytes; plan and batch must stay alive until Collect().
  virtual absl::Status Launch(int slot, const Plan& plan,
                              const PackedBatch& batch) = 0;
  // Waits for the batch in `slot` and copies its outputs.
  virtual absl::Status Collect(int slot, BatchOutput* output) = 0;
  // The end of the highest arena byte that any batch has touched, measured in
  // the arena itself, not taken from plans. Not while a batch is in flight;
  // takes time in proportion to the arena.
  virtual uint64_t TouchedBytes() = 0;

  // Thread-safe. The device will not run another batch in this process:
  // launches fail with UNAVAILABLE.
  virtual bool lost() const { return false; }
  // Thread-safe. What the device's memory holds beside weights and arena:
  // context, kernels, graphs, other processes; 0 where it has no own memory.
  virtual uint64_t OtherDeviceBytes() const { return 0; }
};

// kAuto: float32 on a CPU, bfloat16 on a GPU.
enum class ComputeType { kAuto, kF32, kBF16, kF16 };

// kAuto: the GPUs if there are any that run the model, else the CPU.
enum class DeviceChoice { kAuto, kCpu, kCuda };

// kStrict: same text, same bits, whatever it was batched with. kFast: a batch
// of few tokens may sum otherwise than one of many, where that is faster; the
// same batch gives the same bits still. A device that has nothing to gain, as a
// CPU, is strict.
enum class Mode { kStrict, kFast };

struct BackendOptions {
  ComputeType compute = ComputeType::kAuto;
  Mode mode = Mode::kStrict;
  DeviceChoice device = DeviceChoice::kAuto;
  std::vector<int> devices = {};  // which GPUs; empty = all visible ones
  int threads = 0;                // CPU compute threads; 0 = all cores
  uint64_t arena_bytes = 0;       // 0 = a default that suits the model
  // What the arena leaves free on a GPU, for graphs and for others.
  uint64_t memory_reserve_bytes = uint64_t{512} << 20;
};

// The backends that the options ask for and this machine has: the CPU, or one
// for each GPU, alike in target and arena. info().reason says why.
absl::StatusOr<std::vector<std::unique_ptr<Backend>>> CreateBackends(
    const Model& model, const BackendOptions& options);

// The CPU backend (oneDNN + Highway).
absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(
    const Model& model, const BackendOptions& options);

// The GPUs that this process sees; UNAVAILABLE says why there is none.
absl::StatusOr<int> CountCudaDevices();

// One GPU: the first of options.devices, or number 0.
absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(
    const Model& model, const BackendOptions& options);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_DEVICE_BACKEND_H_
