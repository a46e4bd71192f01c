#include "tools/compress/compress.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/checkpoint.h"
#include "engine/model/model.h"
#include "engine/model/safetensors.h"
#include "tools/compress/convert.h"
#include "tools/compress/factoring.h"
#include "tools/compress/method.h"
#include "tools/compress/model_files.h"
#include "tools/compress/output_directory.h"

namespace svdserve {
namespace {

namespace fs = std::filesystem;

// Replacing the output must not remove the input.
absl::Status CheckInputIsSafe(const CompressOptions& options) {
  std::error_code error;
  const fs::path in = fs::weakly_canonical(options.input, error);
  if (error) return absl::ErrnoToStatus(error.value(), options.input);
  const fs::path out = fs::weakly_canonical(options.output, error);
  if (error) return absl::ErrnoToStatus(error.value(), options.output);
  const auto [i, o] =
      std::mismatch(in.begin(), in.end(), out.begin(), out.end());
  if (o != out.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the input ", options.input, " is, or lies in, the output ",
                   options.output, "; give another output"));
}

absl::Status CheckDense(const std::vector<Factoring>& matrices,
                        const std::string& input) {
  for (const Factoring& matrix : matrices) {
    if (matrix.linear->rank == 0) continue;
    return absl::FailedPreconditionError(
        absl::StrCat(input, " is compressed already (", matrix.report.name,
                     " has rank ", matrix.linear->rank,
                     "); compress the dense model that it was made from"));
  }
  return absl::OkStatus();
}

// A tensor that is not factored: as it is, or rounded to `dtype`.
absl::StatusOr<RawTensor> Convert(const SafetensorsFile& file,
                                  const std::string& name,
                                  std::optional<DType> dtype) {
  absl::StatusOr<RawTensor> raw = file.Read(name);
  if (!raw.ok() || !dtype.has_value() || raw->dtype == DTypeName(*dtype)) {
    return raw;
  }
  absl::StatusOr<Tensor> tensor = ToTensor(*raw);
  if (!tensor.ok()) return raw;  // integers: nothing to round
  absl::StatusOr<RawTensor> rounded =
      Round(tensor->ToF32(), tensor->shape(), *dtype);
  if (rounded.ok()) return rounded;
  return absl::Status(rounded.status().code(),
                      absl::StrCat(file.path(), ": tensor \"", name, "\": ",
                                   std::string(rounded.status().message())));
}

// Integers, such as old checkpoints' position ids, are no parameters.
int64_t Parameters(const RawTensor& raw) {
  absl::StatusOr<Tensor> tensor = ToTensor(raw);
  return tensor.ok() ? tensor->size() : 0;
}

// The tensors of the output file, under the names that the input has. Adds up
// the parameters of those that are no matrices of the encoder.
absl::StatusOr<std::map<std::string, RawTensor>> OutputTensors(
    const Checkpoint& checkpoint, const std::vector<Factoring>& matrices,
    std::optional<DType> dtype, int64_t* other_parameters) {
  std::map<std::string, const Factoring*> by_name;
  for (const Factoring& matrix : matrices) {
    by_name[absl::StrCat(matrix.report.name, ".weight")] = &matrix;
  }
  std::map<std::string, RawTensor> tensors;
  for (const auto& [canonical, location] : checkpoint.tensors()) {
    const std::string& name = location.original_name;
    const auto found = by_name.find(canonical);
    if (found != by_name.end() && found->second->report.rank > 0) {
      const size_t stem = name.size() - std::string_view("weight").size();
      tensors[name.substr(0, stem).append("U")] = found->second->u;
      tensors[name.substr(0, stem).append("V")] = found->second->v;
      continue;
    }
    absl::StatusOr<RawTensor> tensor =
        Convert(checkpoint.files()[location.file], name, dtype);
    if (!tensor.ok()) return tensor.status();
    if (found == by_name.end()) *other_parameters += Parameters(*tensor);
    tensors[name] = *std::move(tensor);
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

absl::Status WriteModel(const CompressOptions& options,
                        const Checkpoint& checkpoint,
                        const std::vector<Factoring>& matrices,
                        const fs::path& directory, CompressionReport* report) {
  auto tensors = OutputTensors(checkpoint, matrices, options.dtype,
                               &report->other_parameters);
  if (!tensors.ok()) return tensors.status();
  SafetensorsMetadata metadata = checkpoint.files().front().metadata();
  metadata[kFormatKey] = std::string(kFormatVersion);
  absl::Status status = CopyModelFiles(options.input, directory);
  if (!status.ok()) return status;
  status =
      WriteSafetensors(directory / "model.safetensors", *tensors, metadata);
  if (!status.ok()) return status;
  return WriteText(directory / "compression.json", report->ToJson());
}

}  // namespace

absl::StatusOr<CompressionReport> CompressModel(
    const CompressOptions& options) {
  absl::StatusOr<std::unique_ptr<Method>> method = MakeMethod(options.method);
  if (!method.ok()) return method.status();
  if (absl::Status s = CheckRatio(options.ratio); !s.ok()) return s;
  if (absl::Status s = CheckInputIsSafe(options); !s.ok()) return s;
  // Checks names, shapes, types and values of everything.
  absl::StatusOr<Model> model = LoadModel(options.input);
  if (!model.ok()) return model.status();
  absl::StatusOr<Checkpoint> checkpoint =
      Checkpoint::Open(options.input, *model->architecture);
  if (!checkpoint.ok()) return checkpoint.status();

  absl::Status status = CheckDense(ListMatrices(*model, {}), options.input);
  if (!status.ok()) return status;
  absl::StatusOr<KindRanks> ranks =
      AllocateRanks(SizesOf(model->layers.front()), options.ratio);
  if (!ranks.ok()) return ranks.status();
  absl::StatusOr<OutputDirectory> output =
      OutputDirectory::Create(options.output, options.force);
  if (!output.ok()) return output.status();

  std::vector<Factoring> matrices = ListMatrices(*model, *ranks);
  status = FactorAll(**method,
                     {.dtype = options.dtype,
                      .threads = options.threads,
                      .progress = options.progress},
                     &matrices);
  if (!status.ok()) return status;

  CompressionReport report;
  report.method = options.method;
  if (options.dtype.has_value()) report.dtype = DTypeName(*options.dtype);
  report.requested_ratio = options.ratio;
  report.ranks = *ranks;
  for (const Factoring& matrix : matrices) {
    report.matrices.push_back(matrix.report);
  }
  status = WriteModel(options, *checkpoint, matrices, output->path(), &report);
  if (!status.ok()) return status;
  if (options.progress && !options.progress(1)) {
    return absl::CancelledError("interrupted; nothing was written");
  }
  if (status = output->Commit(); !status.ok()) return status;
  return report;
}

}  // namespace svdserve
