// The methods that look at activations: from a dense model and a budget to
// compressed layers.
#ifndef SVDSERVE_TOOLS_COMPRESS_CALIBRATED_H_
#define SVDSERVE_TOOLS_COMPRESS_CALIBRATED_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model.h"
#include "tools/compress/budget.h"
#include "tools/compress/calibration.h"
#include "tools/compress/encoder_compression.h"
#include "tools/compress/layer_form.h"
#include "tools/compress/report.h"

namespace svdserve {

// How matrices may change.
enum class CalibratedMethod {
  kWhitened,   // two factors
  kComponent,  // attention: narrower heads; feed-forward: two factors
  kAuto,       // whichever loses less at the same cost
};

struct CalibratedOptions {
  CalibratedMethod method = CalibratedMethod::kAuto;
  Budget budget;
  int threads = 0;  // 0: one per processor
  // With the share of the work that is done; returns false to stop.
  std::function<bool(double share)> progress;
};

struct CalibratedResult {
  std::vector<LayerForm> forms;         // [layers]
  std::vector<CompressedLayer> layers;  // [layers]
  Candidate kept;
  std::optional<Candidate> rejected;  // if `auto` compared two
};

// CANCELLED if `progress` says so; INVALID_ARGUMENT if no ratio that the method
// can reach keeps to the budget. The result does not depend on `threads`.
absl::StatusOr<CalibratedResult> CompressCalibrated(
    const Model& model, const Calibration& calibration,
    const CalibratedOptions& options);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_CALIBRATED_H_
