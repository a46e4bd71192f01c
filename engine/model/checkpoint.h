// The weight files of one directory, as one map from name to tensor:
// model.safetensors, or the shards that model.safetensors.index.json lists.
//
// Names are canonical: as BertModel spells them, whatever the architecture's
// own are. Immutable after Open(); thread-safe.
//
//   auto checkpoint = Checkpoint::Open("models/minilm", *config.architecture);
//   auto t = checkpoint->Load("embeddings.word_embeddings.weight", {v, h});
#ifndef SVDSERVE_ENGINE_MODEL_CHECKPOINT_H_
#define SVDSERVE_ENGINE_MODEL_CHECKPOINT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/architecture.h"
#include "engine/model/safetensors.h"

namespace svdserve {

// FORMAT.md: the key of the safetensors metadata, and its values.
inline constexpr char kFormatKey[] = "svdserve.format";
inline constexpr char kFormatVersion[] = "1";
// Where heads are not as wide as hidden / heads.
inline constexpr char kHeadDimsVersion[] = "2";

class Checkpoint {
 public:
  struct Location {
    int file = 0;               // index into files()
    std::string original_name;  // in the file
  };

  static absl::StatusOr<Checkpoint> Open(const std::string& directory,
                                         const Architecture& architecture);

  const std::vector<SafetensorsFile>& files() const { return files_; }
  const std::map<std::string, Location>& tensors() const { return tensors_; }
  bool Has(const std::string& name) const { return tensors_.contains(name); }
  // Of a tensor that exists.
  const SafetensorsEntry& Entry(const std::string& name) const;

  // What the metadata of its file gives for kFormatKey, or "".
  std::string FormatOf(const std::string& name) const;

  // Reads a weight of exactly this shape, in F32, F16 or BF16, all finite.
  absl::StatusOr<Tensor> Load(const std::string& name,
                              const std::vector<int64_t>& shape) const;

  // INVALID_ARGUMENT "FILE: tensor "NAME": REASON", for a tensor that exists.
  // Messages have the names of the file.
  absl::Status Error(const std::string& name, const std::string& reason) const;
  // As this architecture's files spell it, for messages.
  std::string OwnName(const std::string& name) const {
    return architecture_->OwnName(name);
  }

 private:
  absl::Status AddFile(const std::string& path);
  absl::Status CheckFormat(const SafetensorsFile& file) const;

  std::string directory_;
  const Architecture* architecture_ = nullptr;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, Location> tensors_;  // by canonical name
};

// Joins with one slash.
std::string JoinPath(const std::string& directory, const std::string& name);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_MODEL_CHECKPOINT_H_
