#include "tools/compress/compress.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/checkpoint.h"
#include "engine/model/model.h"
#include "tools/compress/calibrated.h"
#include "tools/compress/factoring.h"
#include "tools/compress/method.h"
#include "tools/compress/output_directory.h"
#include "tools/compress/output_model.h"

namespace svdserve {
namespace {

namespace fs = std::filesystem;

// Whether `path` is `directory` or lies below it; both canonical.
bool LiesIn(const fs::path& path, const fs::path& directory) {
  const auto [p, d] = std::mismatch(path.begin(), path.end(), directory.begin(),
                                    directory.end());
  return d == directory.end();
}

// Replacing the output must not remove the input, and the input stays as it is.
absl::Status CheckInputIsSafe(const CompressOptions& options) {
  std::error_code error;
  const fs::path in = fs::weakly_canonical(options.input, error);
  if (error) return absl::ErrnoToStatus(error.value(), options.input);
  const fs::path out = fs::weakly_canonical(options.output, error);
  if (error) return absl::ErrnoToStatus(error.value(), options.output);
  if (LiesIn(in, out)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the input ", options.input, " is, or lies in, the output ",
        options.output, "; give another output"));
  }
  if (LiesIn(out, in)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the output ", options.output, " lies in the input ",
                     options.input, "; give another output"));
  }
  return absl::OkStatus();
}

absl::Status CheckDense(const Model& model, const std::string& input) {
  const auto refuse = [&](const std::string& why) {
    return absl::FailedPreconditionError(
        absl::StrCat(input, " is compressed already (", why,
                     "); compress the dense model that it was made from"));
  };
  for (const LayerShape& layer : model.shape.layers) {
    if (layer.query_dim == 0 && layer.value_dim == 0) continue;
    return refuse("its heads have other widths than the dense model's");
  }
  for (const Factoring& matrix : ListMatrices(model, {})) {
    if (matrix.linear->rank == 0) continue;
    return refuse(
        absl::StrCat(matrix.report.name, " has rank ", matrix.linear->rank));
  }
  return absl::OkStatus();
}

// By name; svd is none of them.
absl::StatusOr<CalibratedMethod> ParseCalibratedMethod(
    const std::string& name) {
  if (name == "auto") return CalibratedMethod::kAuto;
  if (name == "whitened") return CalibratedMethod::kWhitened;
  if (name == "component") return CalibratedMethod::kComponent;
  return absl::InvalidArgumentError(
      absl::StrCat("method \"", name,
                   "\" is unknown; known: auto, whitened, component, svd"));
}

// Fits overfit with few tokens (README.md); small models can afford more.
int DefaultTokens(const Model& model) {
  constexpr double kWork = 1.4e12;  // tokens times parameters
  constexpr int kFewest = 16384;
  constexpr int kMost = 65536;
  const double parameters =
      static_cast<double>(model.layers.size()) *
      LayerParameters(SizesOf(model.layers.front()), KindRanks{});
  return static_cast<int>(
      std::clamp<double>(kWork / parameters, kFewest, kMost));
}

// What a method hands over: the report without sizes of other tensors, and the
// tensors.
struct Compressed {
  CompressionReport report;
  Replacements replacements;
};

Budget BudgetOf(const CompressOptions& options) {
  return options.budget.value_or(Budget{Budget::Kind::kRatio, options.ratio});
}

absl::StatusOr<Compressed> CompressBySvd(const CompressOptions& options,
                                         const Model& model) {
  const Budget budget = BudgetOf(options);
  if (budget.kind != Budget::Kind::kRatio) {
    return absl::InvalidArgumentError(
        absl::StrCat("method svd takes a ratio, not ", BudgetName(budget.kind),
                     ": it looks at no activations"));
  }
  absl::StatusOr<std::unique_ptr<Method>> method = MakeMethod("svd");
  if (!method.ok()) return method.status();
  absl::StatusOr<KindRanks> ranks =
      AllocateRanks(SizesOf(model.layers.front()), budget.value);
  if (!ranks.ok()) return ranks.status();
  std::vector<Factoring> matrices = ListMatrices(model, *ranks);
  absl::Status status = FactorAll(**method,
                                  {.dtype = options.dtype,
                                   .threads = options.threads,
                                   .progress = options.progress},
                                  &matrices);
  if (!status.ok()) return status;
  Compressed result;
  result.report.forms.assign(model.layers.size(), {.ranks = *ranks});
  for (const Factoring& matrix : matrices) {
    result.report.matrices.push_back(matrix.report);
    if (matrix.report.rank == 0) continue;
    auto& parts =
        result.replacements[absl::StrCat(matrix.report.name, ".weight")];
    parts["U"] = matrix.u;
    parts["V"] = matrix.v;
  }
  return result;
}

absl::StatusOr<Compressed> CompressByCalibration(const CompressOptions& options,
                                                 CalibratedMethod method,
                                                 const Model& model) {
  CalibrationOptions text = options.calibration;
  if (text.tokens == 0) text.tokens = DefaultTokens(model);
  absl::StatusOr<Calibration> calibration =
      LoadCalibration(options.input, model, text);
  if (!calibration.ok()) return calibration.status();
  const absl::StatusOr<CalibratedResult> made =
      CompressCalibrated(model, *calibration,
                         {.method = method,
                          .budget = BudgetOf(options),
                          .threads = options.threads,
                          .progress = options.progress});
  if (!made.ok()) return made.status();

  Compressed result;
  result.report.forms = made->forms;
  result.report.calibration = {
      .source = calibration->source,
      .seed = text.seed,
      .fit_tokens = calibration->fit_tokens(),
      .held_out_tokens = calibration->held_out_tokens(),
      .kept = made->kept,
      .rejected = made->rejected,
      .held_out_texts = std::move(calibration->held_out_texts)};
  std::vector<Factoring> matrices = ListMatrices(model, KindRanks{});
  for (size_t i = 0; i < matrices.size(); ++i) {
    const CompressedLayer& layer = made->layers[i / kMatrixKinds];
    const int kind = static_cast<int>(i % kMatrixKinds);
    const Linear& linear = LinearOf(layer.layer, static_cast<MatrixKind>(kind));
    MatrixReport& report = matrices[i].report;
    report.rank = linear.rank;
    report.size = {.in = linear.in, .out = linear.out};
    report.relative_error = layer.output_errors[kind];
    absl::Status status = Replace(report.name, *matrices[i].linear, linear,
                                  options.dtype, &result.replacements);
    if (!status.ok()) return status;
    result.report.matrices.push_back(report);
  }
  return result;
}

}  // namespace

absl::StatusOr<CompressionReport> CompressModel(
    const CompressOptions& options) {
  const bool svd = options.method == "svd";
  absl::StatusOr<CalibratedMethod> method = CalibratedMethod::kAuto;
  if (!svd) method = ParseCalibratedMethod(options.method);
  if (!method.ok()) return method.status();
  if (absl::Status s = CheckBudget(BudgetOf(options)); !s.ok()) return s;
  if (absl::Status s = CheckInputIsSafe(options); !s.ok()) return s;
  // Checks names, shapes, types and values of everything.
  absl::StatusOr<Model> model = LoadModel(options.input);
  if (!model.ok()) return model.status();
  absl::StatusOr<Checkpoint> checkpoint =
      Checkpoint::Open(options.input, *model->architecture);
  if (!checkpoint.ok()) return checkpoint.status();
  absl::Status status = CheckDense(*model, options.input);
  if (!status.ok()) return status;
  absl::StatusOr<OutputDirectory> output =
      OutputDirectory::Create(options.output, options.force);
  if (!output.ok()) return output.status();

  absl::StatusOr<Compressed> made =
      svd ? CompressBySvd(options, *model)
          : CompressByCalibration(options, *method, *model);
  if (!made.ok()) return made.status();
  CompressionReport& report = made->report;
  report.method = options.method;
  report.budget = BudgetOf(options);
  if (options.dtype.has_value()) report.dtype = DTypeName(*options.dtype);
  const absl::StatusOr<double> bytes =
      ActivationBytesPerToken(ShapeWith(model->shape, report.forms));
  if (!bytes.ok()) return bytes.status();
  report.activation_bytes_per_token = *bytes;
  const absl::StatusOr<double> dense_bytes =
      ActivationBytesPerToken(model->shape);
  if (!dense_bytes.ok()) return dense_bytes.status();
  report.dense_activation_bytes_per_token = *dense_bytes;
  status = WriteModel(options.input, *checkpoint, made->replacements,
                      options.dtype, output->path(), &report);
  if (!status.ok()) return status;
  if (options.progress && !options.progress(1)) {
    return absl::CancelledError("interrupted; nothing was written");
  }
  if (status = output->Commit(); !status.ok()) return status;
  return report;
}

}  // namespace svdserve
