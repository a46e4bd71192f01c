// What a model is, and how a batch of it would run: for `svdctl inspect`.
#ifndef SVDSERVE_TOOLS_INSPECT_INSPECT_H_
#define SVDSERVE_TOOLS_INSPECT_INSPECT_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "engine/device/backend.h"
#include "engine/model/model.h"
#include "engine/plan/plan.h"

namespace svdserve {

struct InspectOptions {
  std::string model;  // directory
  // If not empty, "SEQxLEN": plan a batch of SEQ inputs of LEN tokens.
  std::string plan;
  // kCuda: as an H100 would run it, whether or not there is one.
  Device device = Device::kCpu;
  BackendOptions backend;
};

// A batch as the device would run it.
struct PlanInspection {
  BackendInfo backend;
  Plan plan;
  uint64_t charged_bytes = 0;        // what admission reserves for the batch
  uint64_t minimum_arena_bytes = 0;  // for one input of the model's max_tokens
  uint64_t dense_bytes = 0;          // of PyTorch's dense forward, by formula
};

struct Inspection {
  ModelConfig config;
  ModelShape shape;
  uint64_t stored_bytes = 0;
  uint64_t dense_equivalent_bytes = 0;
  int64_t matrix_parameters = 0;  // of the encoder's weight matrices
  int64_t dense_matrix_parameters = 0;
  std::optional<PlanInspection> plan;

  std::string ToText() const;
  std::string ToJson() const;
};

absl::StatusOr<Inspection> Inspect(const InspectOptions& options);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_INSPECT_INSPECT_H_
