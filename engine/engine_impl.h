// The engine, put together from its parts, so that tests can put in their own.
//
//   absl::StatusOr<std::unique_ptr<Engine>> engine =
//       MakeEngine(options, {.backends = ..., .tokenizer = ..., ...});
#ifndef SVDSERVE_ENGINE_ENGINE_IMPL_H_
#define SVDSERVE_ENGINE_ENGINE_IMPL_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/device/backend.h"
#include "engine/engine.h"
#include "engine/model/model.h"
#include "engine/observer.h"
#include "engine/schedule/clock.h"
#include "engine/text/tokenizer.h"

namespace svdserve {

struct EngineParts {
  // One a device; alike in target and arena.
  std::vector<std::unique_ptr<Backend>> backends;
  std::unique_ptr<const Tokenizer> tokenizer;
  ModelConfig config;
  ModelShape shape;
  int type_vocab = 2;
  uint64_t weight_bytes = 0;
  uint64_t dense_equivalent_weight_bytes = 0;
  Observer* observer = nullptr;  // may be null
  Clock* clock = RealClock();
};

// Checks that the parts fit together, warms up and starts the threads.
// `options.model_directory` and `options.backend` are not looked at.
absl::StatusOr<std::unique_ptr<Engine>> MakeEngine(const EngineOptions& options,
                                                   EngineParts parts);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_ENGINE_IMPL_H_
