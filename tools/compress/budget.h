// What a compressed model may cost, or must keep.
#ifndef SVDSERVE_TOOLS_COMPRESS_BUDGET_H_
#define SVDSERVE_TOOLS_COMPRESS_BUDGET_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/model_shape.h"
#include "tools/compress/layer_form.h"

namespace svdserve {

struct Budget {
  enum class Kind {
    kRatio,            // share of the encoder's weight-matrix parameters
    kActivationBytes,  // per token, see ActivationBytesPerToken()
    kCosine,           // least mean cosine on held-out calibration text
  };
  Kind kind = Kind::kRatio;
  double value = 0.5;
};

const char* BudgetName(Budget::Kind kind);  // as the option of the command

// INVALID_ARGUMENT if the value makes no sense.
absl::Status CheckBudget(const Budget& budget);

// The model's shape with layers of these forms.
ModelShape ShapeWith(const ModelShape& dense,
                     const std::vector<LayerForm>& forms);

// Peak activation bytes a token, in 16 bits, of 32 inputs of 256 tokens (or the
// model's longest) as an H100 runs them: what `svdctl inspect --device cuda
// --plan 32x256` prints.
absl::StatusOr<double> ActivationBytesPerToken(const ModelShape& shape);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_BUDGET_H_
