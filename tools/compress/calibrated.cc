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
#include "tools/compress/ratio_search.h"

namespace svdserve {
namespace {

// Curves need fewer tokens than factors.
constexpr int kProfileTokens = 16384;
// Floating-point operations that all measurements of a profile may take, about.
constexpr double kProfileWork = 5e12;
constexpr int kFewestSampleTokens = 256;
constexpr int kMostSampleTokens = 2048;

// The ratios that a search looks at, in hundredths.
constexpr int kHighestRatio = 95;
constexpr int kLowestRatio = 5;
constexpr double Ratio(int hundredths) { return hundredths / 100.0; }

// The share of the work that is the profile, if one compression follows and if
// a search does.
constexpr double kProfileShare = 0.3;
constexpr double kSearchProfileShare = 0.1;

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

// Every measurement of a profile runs half of the layers, on average.
int SampleTokens(const Model& model) {
  const double layers = static_cast<double>(model.layers.size());
  const double parameters =
      layers * LayerParameters(SizesOf(model.layers.front()), KindRanks{});
  const double tokens =
      kProfileWork / (kMeasurementsPerLayer * layers * parameters);
  return static_cast<int>(
      std::clamp<double>(tokens, kFewestSampleTokens, kMostSampleTokens));
}

struct Attempt {
  CalibratedResult result;
  bool narrow_heads = false;  // whether its allocation was free to
};

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
      case Budget::Kind::kRatio: {
        absl::StatusOr<Attempt> attempt =
            BestAt(options_.budget.value, std::nullopt, kProfileShare, 1);
        if (!attempt.ok()) return attempt.status();
        return std::move(attempt->result);
      }
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
  // Without `narrow_heads`, `auto` tries both and keeps the better one on
  // held-out text. The work is from `begin` to `end` of all.
  absl::StatusOr<Attempt> BestAt(double ratio, std::optional<bool> narrow_heads,
                                 double begin, double end);
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
  const double share = options_.budget.kind == Budget::Kind::kCosine
                           ? kSearchProfileShare
                           : kProfileShare;
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

absl::StatusOr<Attempt> Compression::BestAt(double ratio,
                                            std::optional<bool> narrow_heads,
                                            double begin, double end) {
  const bool narrow = narrow_heads.value_or(true);
  const absl::StatusOr<FormAllocation> first = Allocate(ratio, narrow);
  if (!first.ok()) return first.status();
  std::optional<FormAllocation> second;
  if (!narrow_heads && options_.method == CalibratedMethod::kAuto) {
    absl::StatusOr<FormAllocation> factors = Allocate(ratio, false);
    if (factors.ok() && factors->forms != first->forms) {
      second = *std::move(factors);
    }
  }
  const double middle = second ? (begin + end) / 2 : end;
  absl::StatusOr<CalibratedResult> best =
      Compress(*first, ratio, begin, middle);
  if (!best.ok()) return best.status();
  if (!second) return Attempt{*std::move(best), narrow};
  absl::StatusOr<CalibratedResult> other =
      Compress(*second, ratio, middle, end);
  if (!other.ok()) return other.status();
  if (other->held_out_cosine > best->held_out_cosine) {
    return Attempt{*std::move(other), false};
  }
  return Attempt{*std::move(best), true};
}

// From the highest ratio down: bytes need not fall with each step.
absl::StatusOr<CalibratedResult> Compression::WithinActivationBytes() {
  double least = 0;
  for (int hundredths = kHighestRatio; hundredths >= kLowestRatio;
       --hundredths) {
    const double ratio = Ratio(hundredths);
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
      Ratio(kLowestRatio), Ratio(kHighestRatio), options_.budget.value, least));
}

absl::StatusOr<CalibratedResult> Compression::AtLeastCosine() {
  const double target = 1 - options_.budget.value;
  std::vector<double> predicted;
  int first = kHighestRatio + 1;
  while (first > kLowestRatio) {
    const absl::StatusOr<FormAllocation> allocation =
        Allocate(Ratio(first - 1), true);
    if (!allocation.ok()) {  // too small a ratio
      if (predicted.empty()) return allocation.status();
      break;
    }
    predicted.insert(predicted.begin(), allocation->predicted_loss);
    --first;
  }
  RatioSearch search(target, first, std::move(predicted));
  std::optional<Attempt> best;
  std::optional<bool> narrow_heads;  // as at the first ratio
  double cosine = 0;
  double begin = kSearchProfileShare;
  while (const std::optional<int> hundredths = search.Next()) {
    const double end = begin + (1 - begin) / 3;
    absl::StatusOr<Attempt> attempt =
        BestAt(Ratio(*hundredths), narrow_heads, begin, end);
    if (!attempt.ok()) return attempt.status();
    begin = end;
    narrow_heads = attempt->narrow_heads;
    cosine = attempt->result.held_out_cosine;
    search.Measured(*hundredths, 1 - cosine);
    if (search.Found() == *hundredths) best = *std::move(attempt);
  }
  if (best) return std::move(best->result);
  // The highest ratio was the last one.
  return absl::InvalidArgumentError(absl::StrFormat(
      "a mean cosine of %.10g is not reached: ratio %g gives %.10g on held-out "
      "calibration text",
      options_.budget.value, Ratio(kHighestRatio), cosine));
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
