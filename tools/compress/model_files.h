// The files of a model's directory that are not weights of the encoder.
#ifndef SVDSERVE_TOOLS_COMPRESS_MODEL_FILES_H_
#define SVDSERVE_TOOLS_COMPRESS_MODEL_FILES_H_

#include <filesystem>

#include "absl/status/status.h"

namespace svdserve {

// Copies configuration, tokenizer, licence and README, and the directories of
// sentence-transformers' modules (with the weights of Dense modules). Weights
// of the transformer in any format stay behind. Links are copied as files.
absl::Status CopyModelFiles(const std::filesystem::path& from,
                            const std::filesystem::path& to);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_MODEL_FILES_H_
