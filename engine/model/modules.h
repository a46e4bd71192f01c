// What a sentence-transformers directory says beside the encoder: modules.json
// and the files that it points to, the longest input and the prompts.
#ifndef SVDSERVE_ENGINE_MODEL_MODULES_H_
#define SVDSERVE_ENGINE_MODEL_MODULES_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model.h"

namespace svdserve {

struct DenseModule {
  std::string directory;  // that holds its config.json and weights
  int in = 0;
  int out = 0;
  bool bias = true;
  HeadActivation activation = HeadActivation::kIdentity;
};

struct SentenceModules {
  bool listed = false;  // there is a modules.json
  // A cross-encoder: modules.json lists the transformer alone.
  bool transformer_only = false;
  Pooling pooling = Pooling::kMean;
  std::vector<DenseModule> dense;
  bool normalize = false;
  std::optional<int> max_tokens;  // special tokens included
  std::map<std::string, std::string> prompts;
  std::string default_prompt;
};

// Without a modules.json: mean pooling, and nothing behind it. `hidden` is the
// encoder's width, which the modules must agree with.
absl::StatusOr<SentenceModules> ReadSentenceModules(
    const std::string& directory, int hidden);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_MODEL_MODULES_H_
