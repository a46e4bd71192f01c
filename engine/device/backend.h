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
  std::string name;           // "cpu"
  std::string reason;         // why it was chosen
  std::string dtype;          // "float32", "bfloat16"
  std::string mode;           // "strict"
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
};

enum class ComputeType { kF32, kBF16 };

struct BackendOptions {
  ComputeType compute = ComputeType::kF32;
  int threads = 0;           // CPU compute threads; 0 = all cores
  uint64_t arena_bytes = 0;  // 0 = a default that suits the model
};

// The CPU backend (oneDNN + Highway).
absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(
    const Model& model, const BackendOptions& options);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_DEVICE_BACKEND_H_
