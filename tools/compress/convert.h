// Rounding of stored tensors to another floating-point type.
#ifndef SVDSERVE_TOOLS_COMPRESS_CONVERT_H_
#define SVDSERVE_TOOLS_COMPRESS_CONVERT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/safetensors.h"
#include "engine/model/tensor.h"

namespace svdserve {

// "F32", "F16" or "BF16", in any case.
absl::StatusOr<DType> ParseDType(const std::string& name);

// To the nearest value, ties to even. OUT_OF_RANGE if a finite value is too
// large for `dtype`; the caller's error names the tensor.
absl::StatusOr<RawTensor> Round(const std::vector<float>& values,
                                std::vector<int64_t> shape, DType dtype);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_CONVERT_H_
