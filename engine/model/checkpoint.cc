#include "engine/model/checkpoint.h"

#include <cmath>
#include <filesystem>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/model/strict_json.h"

namespace svdserve {
namespace {

constexpr std::string_view kSingle = "model.safetensors";
constexpr std::string_view kIndex = "model.safetensors.index.json";

bool IsFactor(std::string_view name) {
  return name.ends_with(".U") || name.ends_with(".V");
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

bool Exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

// Neither file is there: says what is, and what to do.
absl::Status NoWeights(const std::string& directory) {
  if (!Exists(directory)) {
    return absl::NotFoundError(absl::StrCat(directory, ": no such directory"));
  }
  const std::string pickle = JoinPath(directory, "pytorch_model.bin");
  if (!Exists(pickle)) {
    return absl::NotFoundError(
        absl::StrCat(JoinPath(directory, std::string(kSingle)),
                     ": no such file, nor ", std::string(kIndex)));
  }
  return absl::UnimplementedError(absl::StrCat(
      pickle,
      ": pickled weights can run code and are not read; convert them once: "
      "python -c \"from transformers import AutoModel; AutoModel"
      ".from_pretrained('DIR').save_pretrained('DIR')\" (for a classifier: "
      "AutoModelForSequenceClassification)"));
}

// The shards that an index names, and which tensor lies where.
absl::StatusOr<std::map<std::string, std::string>> ReadIndex(
    const std::string& path) {
  absl::StatusOr<nlohmann::json> index = ReadStrictJson(path);
  if (!index.ok()) return index.status();
  if (!index->is_object() || !index->contains("weight_map") ||
      !(*index)["weight_map"].is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": \"weight_map\" is missing or not an object"));
  }
  std::map<std::string, std::string> shard_of;
  for (const auto& [name, shard] : (*index)["weight_map"].items()) {
    const std::string file = shard.is_string() ? shard.get<std::string>() : "";
    if (file.empty() || file.find('/') != std::string::npos ||
        !file.ends_with(".safetensors")) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor \"", name,
                       "\": is not mapped to a .safetensors file of the same "
                       "directory"));
    }
    shard_of[name] = file;
  }
  return shard_of;
}

bool AllFinite(const Tensor& tensor) {
  if (tensor.dtype() == DType::kF32) {
    const auto* values = reinterpret_cast<const uint32_t*>(tensor.data());
    for (int64_t i = 0; i < tensor.size(); ++i) {
      if ((values[i] & 0x7f800000) == 0x7f800000) return false;
    }
    return true;
  }
  const uint16_t exponent = tensor.dtype() == DType::kF16 ? 0x7c00 : 0x7f80;
  const auto* values = reinterpret_cast<const uint16_t*>(tensor.data());
  for (int64_t i = 0; i < tensor.size(); ++i) {
    if ((values[i] & exponent) == exponent) return false;
  }
  return true;
}

}  // namespace

std::string JoinPath(const std::string& directory, const std::string& name) {
  return (std::filesystem::path(directory) / name).string();
}

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& directory,
                                            const Architecture& architecture) {
  Checkpoint checkpoint;
  checkpoint.directory_ = directory;
  checkpoint.architecture_ = &architecture;
  const std::string single = JoinPath(directory, std::string(kSingle));
  if (Exists(single)) {
    absl::Status added = checkpoint.AddFile(single);
    if (!added.ok()) return added;
    return checkpoint;
  }
  const std::string index = JoinPath(directory, std::string(kIndex));
  if (!Exists(index)) return NoWeights(directory);

  auto shard_of = ReadIndex(index);
  if (!shard_of.ok()) return shard_of.status();
  std::set<std::string> shards;
  for (const auto& [name, shard] : *shard_of) shards.insert(shard);
  for (const std::string& shard : shards) {
    absl::Status added = checkpoint.AddFile(JoinPath(directory, shard));
    if (!added.ok()) return added;
  }
  for (const auto& [name, shard] : *shard_of) {
    const auto found =
        checkpoint.tensors_.find(architecture.CanonicalName(name));
    if (found == checkpoint.tensors_.end() ||
        checkpoint.files_[found->second.file].path() !=
            JoinPath(directory, shard)) {
      return absl::InvalidArgumentError(absl::StrCat(
          index, ": tensor \"", name, "\": is not in ", shard, " as stated"));
    }
  }
  if (shard_of->size() != checkpoint.tensors_.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        index, ": \"weight_map\" lists ", shard_of->size(),
        " tensors, but the shards hold ", checkpoint.tensors_.size()));
  }
  return checkpoint;
}

absl::Status Checkpoint::AddFile(const std::string& path) {
  absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(path);
  if (!file.ok()) return file.status();
  absl::Status format = CheckFormat(*file);
  if (!format.ok()) return format;
  const int index = static_cast<int>(files_.size());
  files_.push_back(*std::move(file));
  for (const auto& [name, entry] : files_.back().entries()) {
    const auto [it, added] =
        tensors_.try_emplace(architecture_->CanonicalName(name),
                             Location{.file = index, .original_name = name});
    if (!added) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor \"", name, "\": is also in ",
                       files_[it->second.file].path(), " as \"",
                       it->second.original_name, "\""));
    }
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::CheckFormat(const SafetensorsFile& file) const {
  const auto version = file.metadata().find(kFormatKey);
  if (version != file.metadata().end()) {
    if (version->second == kFormatVersion ||
        version->second == kHeadDimsVersion) {
      return absl::OkStatus();
    }
    return absl::UnimplementedError(
        absl::StrCat(file.path(), ": its metadata says ", kFormatKey, " = \"",
                     version->second, "\"; this program reads \"",
                     kFormatVersion, "\" and \"", kHeadDimsVersion, "\""));
  }
  for (const auto& [name, entry] : file.entries()) {
    if (!IsFactor(name)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": tensor \"", name,
                     "\": is a factor, but the file's metadata lacks ",
                     kFormatKey, " = \"", kFormatVersion, "\""));
  }
  return absl::OkStatus();
}

const SafetensorsEntry& Checkpoint::Entry(const std::string& name) const {
  const Location& location = tensors_.at(name);
  return files_[location.file].entries().at(location.original_name);
}

std::string Checkpoint::FormatOf(const std::string& name) const {
  const SafetensorsMetadata& metadata =
      files_[tensors_.at(name).file].metadata();
  const auto version = metadata.find(kFormatKey);
  return version == metadata.end() ? "" : version->second;
}

absl::Status Checkpoint::Error(const std::string& name,
                               const std::string& reason) const {
  const Location& location = tensors_.at(name);
  return absl::InvalidArgumentError(
      absl::StrCat(files_[location.file].path(), ": tensor \"",
                   location.original_name, "\": ", reason));
}

absl::StatusOr<Tensor> Checkpoint::Load(
    const std::string& name, const std::vector<int64_t>& shape) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return absl::InvalidArgumentError(absl::StrCat(
        files_.size() == 1 ? files_[0].path()
                           : JoinPath(directory_, std::string(kIndex)),
        ": tensor \"", OwnName(name), "\": is missing"));
  }
  if (Entry(name).shape != shape) {
    return Error(name,
                 absl::StrCat("its shape is ", ShapeText(Entry(name).shape),
                              ", expected ", ShapeText(shape)));
  }
  absl::StatusOr<RawTensor> raw =
      files_[found->second.file].Read(found->second.original_name);
  if (!raw.ok()) return raw.status();
  absl::StatusOr<Tensor> tensor = ToTensor(*raw);
  if (!tensor.ok()) return Error(name, std::string(tensor.status().message()));
  if (!AllFinite(*tensor)) return Error(name, "holds NaN or infinity");
  return tensor;
}

}  // namespace svdserve
