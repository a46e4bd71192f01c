#include "tools/evaluate/spectra.h"

#include <lapacke.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/model.h"
#include "kernels/team.h"
#include "tools/compress/linear_algebra.h"
#include "tools/evaluate/model_facts.h"

namespace svdserve {
namespace {

// A report is read by people: four digits are plenty, and take half the bytes.
double Rounded(float value) {
  constexpr int kDigits = 4;
  if (value == 0) return 0;
  const int exponent = static_cast<int>(std::floor(std::log10(value)));
  const double unit = std::pow(10, kDigits - 1 - exponent);
  return std::round(value * unit) / unit;
}

absl::StatusOr<std::vector<double>> SingularValues(const Linear& linear) {
  std::vector<float> weight = linear.weight.ToF32();  // [out, in]
  std::vector<float> values(std::min(linear.in, linear.out));
  const lapack_int code = LAPACKE_sgesdd(LAPACK_COL_MAJOR, 'N', linear.in,
                                         linear.out, weight.data(), linear.in,
                                         values.data(), nullptr, 1, nullptr, 1);
  if (code != 0) {
    return absl::InternalError(
        absl::StrCat("singular values: LAPACK's sgesdd returned ", code));
  }
  std::vector<double> rounded(values.size());
  std::transform(values.begin(), values.end(), rounded.begin(), Rounded);
  return rounded;
}

}  // namespace

absl::StatusOr<std::vector<Spectrum>> SpectraOf(const std::string& directory,
                                                int threads) {
  const absl::StatusOr<Model> model = LoadModel(directory);
  if (!model.ok()) return model.status();
  std::vector<Spectrum> spectra;
  std::vector<const Linear*> matrices;
  for (size_t i = 0; i < model->layers.size(); ++i) {
    for (const EncoderMatrix& kind : kEncoderMatrices) {
      const Linear& linear = model->layers[i].*kind.linear;
      if (linear.rank != 0) continue;
      spectra.push_back({static_cast<int>(i), kind.name, {}});
      matrices.push_back(&linear);
    }
  }
  KeepLapackSingleThreaded();
  kernels::Team team(threads, "spectra");
  std::vector<absl::Status> statuses(matrices.size());
  team.ParallelFor(static_cast<int>(matrices.size()), [&](int, int i) {
    auto values = SingularValues(*matrices[i]);
    statuses[i] = values.status();
    if (values.ok()) spectra[i].values = *std::move(values);
  });
  for (const absl::Status& status : statuses) {
    if (!status.ok()) return status;
  }
  return spectra;
}

}  // namespace svdserve
