#include "tools/compress/output_model.h"

#include <fstream>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tools/compress/convert.h"
#include "tools/compress/model_files.h"

namespace svdserve {
namespace {

namespace fs = std::filesystem;

// The error of a tensor that cannot be rounded names it.
absl::StatusOr<RawTensor> RoundTensor(const std::string& name,
                                      const Tensor& tensor, DType dtype) {
  absl::StatusOr<RawTensor> rounded =
      Round(tensor.ToF32(), tensor.shape(), dtype);
  if (rounded.ok()) return rounded;
  return absl::Status(rounded.status().code(),
                      absl::StrCat("tensor \"", name, "\": ",
                                   std::string(rounded.status().message())));
}

// A tensor that is not replaced: as it is, or rounded to `dtype`.
absl::StatusOr<RawTensor> Convert(const SafetensorsFile& file,
                                  const std::string& name,
                                  std::optional<DType> dtype) {
  absl::StatusOr<RawTensor> raw = file.Read(name);
  if (!raw.ok() || !dtype.has_value() || raw->dtype == DTypeName(*dtype)) {
    return raw;
  }
  absl::StatusOr<Tensor> tensor = ToTensor(*raw);
  if (!tensor.ok()) return raw;  // integers: nothing to round
  absl::StatusOr<RawTensor> rounded = RoundTensor(name, *tensor, *dtype);
  if (rounded.ok()) return rounded;
  return absl::Status(
      rounded.status().code(),
      absl::StrCat(file.path(), ": ", std::string(rounded.status().message())));
}

// Integers, such as old checkpoints' position ids, are no parameters.
int64_t Parameters(const RawTensor& raw) {
  absl::StatusOr<Tensor> tensor = ToTensor(raw);
  return tensor.ok() ? tensor->size() : 0;
}

// The tensors of the output file, under the names that the input has. Adds up
// the parameters of those that are no matrices of the encoder.
absl::StatusOr<std::map<std::string, RawTensor>> OutputTensors(
    const Checkpoint& checkpoint, const Replacements& replacements,
    std::optional<DType> dtype, CompressionReport* report) {
  std::set<std::string> matrices;
  for (const MatrixReport& matrix : report->matrices) {
    matrices.insert(absl::StrCat(matrix.name, ".weight"));
  }
  std::map<std::string, RawTensor> tensors;
  for (const auto& [canonical, location] : checkpoint.tensors()) {
    const bool counted = !matrices.contains(canonical);
    const std::string& name = location.original_name;
    const auto found = replacements.find(canonical);
    if (found == replacements.end()) {
      absl::StatusOr<RawTensor> tensor =
          Convert(checkpoint.files()[location.file], name, dtype);
      if (!tensor.ok()) return tensor.status();
      if (counted) report->other_parameters += Parameters(*tensor);
      tensors[name] = *std::move(tensor);
      continue;
    }
    const std::string stem = name.substr(0, name.rfind('.') + 1);
    for (const auto& [part, tensor] : found->second) {
      if (counted) report->other_parameters += Parameters(tensor);
      tensors[absl::StrCat(stem, part)] = tensor;
    }
  }
  return tensors;
}

absl::Status WriteText(const fs::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (file) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat(path.string(), ": cannot be written; is the disk full?"));
}

}  // namespace

absl::Status Replace(const std::string& name, const Linear& dense,
                     const Linear& linear, std::optional<DType> dtype,
                     Replacements* replacements) {
  const auto add = [&](const std::string& of, const std::string& part,
                       const Tensor& tensor, DType stored) {
    const std::string full = absl::StrCat(name, ".", part);
    absl::StatusOr<RawTensor> raw =
        RoundTensor(full, tensor, dtype.value_or(stored));
    if (!raw.ok()) return raw.status();
    (*replacements)[absl::StrCat(name, ".", of)][part] = *std::move(raw);
    return absl::OkStatus();
  };
  const DType stored = dense.weight.dtype();
  if (linear.rank == 0) {
    absl::Status status = add("weight", "weight", linear.weight, stored);
    if (!status.ok()) return status;
  } else {
    absl::Status status = add("weight", "U", linear.u, stored);
    if (!status.ok()) return status;
    status = add("weight", "V", linear.v, stored);
    if (!status.ok()) return status;
  }
  return add("bias", "bias", linear.bias, dense.bias.dtype());
}

absl::Status WriteModel(const std::string& input, const Checkpoint& checkpoint,
                        const Replacements& replacements,
                        std::optional<DType> dtype,
                        const std::filesystem::path& directory,
                        CompressionReport* report) {
  auto tensors = OutputTensors(checkpoint, replacements, dtype, report);
  if (!tensors.ok()) return tensors.status();
  SafetensorsMetadata metadata = checkpoint.files().front().metadata();
  metadata[kFormatKey] =
      std::string(report->HasNarrowHeads() ? kHeadDimsVersion : kFormatVersion);
  absl::Status status = CopyModelFiles(input, directory);
  if (!status.ok()) return status;
  status =
      WriteSafetensors(directory / "model.safetensors", *tensors, metadata);
  if (!status.ok()) return status;
  return WriteText(directory / "compression.json", report->ToJson());
}

}  // namespace svdserve
