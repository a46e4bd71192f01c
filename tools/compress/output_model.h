// The files of a compressed model.
#ifndef SVDSERVE_TOOLS_COMPRESS_OUTPUT_MODEL_H_
#define SVDSERVE_TOOLS_COMPRESS_OUTPUT_MODEL_H_

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/checkpoint.h"
#include "engine/model/model.h"
#include "engine/model/safetensors.h"
#include "tools/compress/report.h"

namespace svdserve {

// What becomes of a tensor of the input, by its canonical name: tensors by the
// last part of their names ("U" and "V" in place of "weight").
using Replacements = std::map<std::string, std::map<std::string, RawTensor>>;

// Adds what replaces matrix `name` (without ".weight") and its bias, in the
// types that the dense matrix has, or in `dtype`.
absl::Status Replace(const std::string& name, const Linear& dense,
                     const Linear& linear, std::optional<DType> dtype,
                     Replacements* replacements);

// Writes model.safetensors, compression.json and copies of everything else into
// `directory`. Counts the report's other_parameters.
absl::Status WriteModel(const std::string& input, const Checkpoint& checkpoint,
                        const Replacements& replacements,
                        std::optional<DType> dtype,
                        const std::filesystem::path& directory,
                        CompressionReport* report);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_OUTPUT_MODEL_H_
