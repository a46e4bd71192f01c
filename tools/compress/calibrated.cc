#include "tools/compress/calibrated.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "kernels/team.h"
#include "tools/compress/factoring.h"
#include "tools/compress/form_allocation.h"
#include "tools/compress/linear_algebra.h"
#include "tools/compress/profile.h"

namespace svdserve {
namespace {

// Curves need fewer tokens than factors.
constexpr int kProfileTokens = 16384;
// Floating-point operations that all weighing of a profile may take, about.
constexpr double kWeighingWork = 5e12;
constexpr int kFewestSampleTokens = 256;
constexpr int kMostSampleTokens = 2048;

// The ratios that a search looks at.
constexpr double kHighestRatio = 0.95;
constexpr double kLowestRatio = 0.05;
constexpr double kRatioStep = 0.01;

// The share of the work that is the profile, if one compression follows.
constexpr double kProfileShare = 0.3;

EncoderSizes SizesOfEncoder(const Model& model) {
  return {.layer = SizesOf(model.layers.front()),
          .heads = model.shape.heads,
          .head_dim = model.shape.head_dim};
}

AllowedForms Allowed(CalibratedMethod method) {
  return {.attention_factors = method != CalibratedMethod::kComponent,
          .narrow_heads = method != CalibratedMethod::kWhitened};
}

// Sequences of the batches, as many as fit into `tokens`.
TokenBatch FirstSequences(const std::vector<TokenBatch>& batches, int tokens) {
  TokenBatch sample;
  for (const TokenBatch& batch : batches) {
    for (int s = 0; s < batch.sequences(); ++s) {
      const int first = batch.offsets[s];
      const int last = batch.offsets[s + 1];
      if (sample.sequences() > 0 && sample.tokens() + last - first > tokens) {
        return sample;
      }
      Encoding encoding;
      encoding.ids.assign(batch.ids.begin() + first, batch.ids.begin() + last);
      encoding.type_ids.assign(batch.type_ids.begin() + first,
                               batch.type_ids.begin() + last);
      sample.Add(encoding);
    }
  }
  return sample;
}

// Eight weighings a layer, each through half of the layers.
int SampleTokens(const Model& model) {
  const double layers = static_cast<double>(model.layers.size());
  const double parameters =
      layers * LayerParameters(SizesOf(model.layers.front()), KindRanks{});
  const double tokens = kWeighingWork / (8 * layers * parameters);
  return static_cast<int>(
      std::clamp<double>(tokens, kFewestSampleTokens, kMostSampleTokens));
}

// One compression of a model, with what does not change from one attempt at a
// budget to the next.
class Compression {
 public:
  Compression(const Model& model, const Calibration& calibration,
              const CalibratedOptions& options)
      : model_(model),
        calibration_(calibration),
        options_(options),
        sizes_(SizesOfEncoder(model)),
        team_(Threads(options.threads), "compress") {}

  absl::StatusOr<CalibratedResult> Run() {
    if (absl::Status s = Profile(); !s.ok()) return s;
    switch (options_.budget.kind) {
      case Budget::Kind::kRatio:
        return BestAt(options_.budget.value, kProfileShare, 1);
      case Budget::Kind::kActivationBytes:
        return WithinActivationBytes();
      case Budget::Kind::kCosine:
        return AtLeastCosine();
    }
    return absl::InternalError("unknown budget");
  }

 private:
  static int Threads(int wanted) {
    return wanted > 0 ? wanted
                      : std::max<int>(1, std::thread::hardware_concurrency());
  }

  absl::Status Profile();
  absl::StatusOr<CalibratedResult> WithinActivationBytes();
  absl::StatusOr<CalibratedResult> AtLeastCosine();
  // The better one on held-out text, if `auto` narrows heads: with and without.
  // Its work is from `begin` to `end` of all.
  absl::StatusOr<CalibratedResult> BestAt(double ratio, double begin,
                                          double end);
  absl::StatusOr<CalibratedResult> Compress(const FormAllocation& allocation,
                                            double ratio, double begin,
                                            double end);
  absl::StatusOr<FormAllocation> Allocate(double ratio, bool narrow_heads);
  bool Report(double share) {
    return !options_.progress || options_.progress(share);
  }

  const Model& model_;
  const Calibration& calibration_;
  const CalibratedOptions& options_;
  const EncoderSizes sizes_;
  kernels::Team team_;
  std::vector<LayerProfile> profiles_;
};

absl::Status Compression::Profile() {
  std::vector<TokenBatch> part;
  int tokens = 0;
  for (const TokenBatch& batch : calibration_.fit) {
    if (tokens >= kProfileTokens) break;
    part.push_back(batch);
    tokens += batch.tokens();
  }
  const double layers = static_cast<double>(model_.layers.size());
  const double share =
      options_.budget.kind == Budget::Kind::kCosine ? 0.1 : kProfileShare;
  absl::StatusOr<std::vector<LayerProfile>> profiles = ProfileEncoder(
      model_, part, FirstSequences(calibration_.fit, SampleTokens(model_)),
      options_.method != CalibratedMethod::kWhitened,
      [&](int layer) { return Report(share * (layer + 1) / layers); }, team_);
  if (!profiles.ok()) return profiles.status();
  profiles_ = *std::move(profiles);
  return absl::OkStatus();
}

absl::StatusOr<FormAllocation> Compression::Allocate(double ratio,
                                                     bool narrow_heads) {
  AllowedForms allowed = Allowed(options_.method);
  allowed.narrow_heads = allowed.narrow_heads && narrow_heads;
  return AllocateForms(profiles_, sizes_, allowed, ratio);
}

absl::StatusOr<CalibratedResult> Compression::Compress(
    const FormAllocation& allocation, double ratio, double begin, double end) {
  const double layers = static_cast<double>(model_.layers.size());
  CalibratedResult result;
  result.forms = allocation.forms;
  result.ratio = ratio;
  absl::StatusOr<std::vector<CompressedLayer>> compressed = CompressEncoder(
      model_, allocation.forms, calibration_.fit,
      [&](int layer) {
        // The last steps are evaluation.
        const double share = (layer + 1) / (layers + 1);
        return Report(begin + (end - begin) * share);
      },
      team_);
  if (!compressed.ok()) return compressed.status();
  result.layers = *std::move(compressed);
  const absl::StatusOr<double> error =
      EmbeddingError(model_, result.layers, calibration_.held_out, team_);
  if (!error.ok()) return error.status();
  result.held_out_cosine = 1 - *error;
  return result;
}

absl::StatusOr<CalibratedResult> Compression::BestAt(double ratio, double begin,
                                                     double end) {
  const absl::StatusOr<FormAllocation> first = Allocate(ratio, true);
  if (!first.ok()) return first.status();
  std::optional<FormAllocation> second;
  if (options_.method == CalibratedMethod::kAuto) {
    absl::StatusOr<FormAllocation> factors = Allocate(ratio, false);
    if (factors.ok() && factors->forms != first->forms) {
      second = *std::move(factors);
    }
  }
  const double middle = second ? (begin + end) / 2 : end;
  absl::StatusOr<CalibratedResult> best =
      Compress(*first, ratio, begin, middle);
  if (!best.ok() || !second) return best;
  absl::StatusOr<CalibratedResult> other =
      Compress(*second, ratio, middle, end);
  if (!other.ok()) return other;
  return other->held_out_cosine > best->held_out_cosine ? other : best;
}

// From the highest ratio down: bytes need not fall with each step.
absl::StatusOr<CalibratedResult> Compression::WithinActivationBytes() {
  double least = 0;
  for (double ratio = kHighestRatio; ratio >= kLowestRatio;
       ratio -= kRatioStep) {
    const absl::StatusOr<FormAllocation> allocation = Allocate(ratio, true);
    if (!allocation.ok()) break;  // too small a ratio
    const absl::StatusOr<double> bytes =
        ActivationBytesPerToken(ShapeWith(model_.shape, allocation->forms));
    if (!bytes.ok()) return bytes.status();
    if (*bytes <= options_.budget.value) {
      return Compress(*allocation, ratio, kProfileShare, 1);
    }
    least = least == 0 ? *bytes : std::min(least, *bytes);
  }
  return absl::InvalidArgumentError(absl::StrFormat(
      "no ratio from %g to %g needs at most %g activation bytes a token; the "
      "least is %.0f",
      kLowestRatio, kHighestRatio, options_.budget.value, least));
}

absl::StatusOr<CalibratedResult> Compression::AtLeastCosine() {
  constexpr int kHalvings = 6;  // to a hundredth of the ratio
  constexpr double kStep = 0.9 / (kHalvings + 1);
  double begin = 0.1;
  absl::StatusOr<CalibratedResult> best =
      BestAt(kHighestRatio, begin, begin + kStep);
  if (!best.ok()) return best;
  if (best->held_out_cosine < options_.budget.value) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "a mean cosine of %g is not reached: ratio %g gives %.4f on held-out "
        "calibration text",
        options_.budget.value, kHighestRatio, best->held_out_cosine));
  }
  double low = kLowestRatio;
  double high = kHighestRatio;
  for (int i = 0; i < kHalvings; ++i) {
    begin += kStep;
    const double ratio = (low + high) / 2;
    absl::StatusOr<CalibratedResult> next = BestAt(ratio, begin, begin + kStep);
    if (absl::IsCancelled(next.status())) return next;
    if (next.ok() && next->held_out_cosine >= options_.budget.value) {
      best = std::move(next);
      high = ratio;
    } else {
      low = ratio;
    }
  }
  return best;
}

}  // namespace

absl::StatusOr<CalibratedResult> CompressCalibrated(
    const Model& model, const Calibration& calibration,
    const CalibratedOptions& options) {
  if (absl::Status s = CheckBudget(options.budget); !s.ok()) return s;
  KeepLapackSingleThreaded();
  return Compression(model, calibration, options).Run();
}

}  // namespace svdserve
