#include "tools/compress/calibrated.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
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

// Forms to try.
struct Choice {
  bool narrow_heads = false;
  FormAllocation allocation;
};

// A choice, made and judged.
struct Attempt {
  CalibratedResult result;
  std::vector<double> errors;  // of the held-out embeddings
};

double Mean(const std::vector<double>& values) {
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

// Narrower heads take more activation bytes than factors, which the GPU fuses,
// and other text will differ from the held-out text: what they gain counts if
// it is a twentieth of the error and two standard errors of the difference.
constexpr double kLeastGain = 0.05;

bool IsClearlyBetter(const std::vector<double>& errors,
                     const std::vector<double>& than) {
  std::vector<double> gains;
  for (size_t i = 0; i < errors.size(); ++i) {
    gains.push_back(than[i] - errors[i]);
  }
  const double mean = Mean(gains);
  for (double& gain : gains) gain = (gain - mean) * (gain - mean);
  const double count = static_cast<double>(gains.size());
  const double standard_error =
      std::sqrt(Mean(gains) / std::max(count - 1, 1.0));
  return mean > std::max(kLeastGain * Mean(than), 2 * standard_error);
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
      case Budget::Kind::kRatio: {
        const auto choices = ChoicesAt(options_.budget.value, HeadChoices());
        if (!choices.ok()) return choices.status();
        return BestOf(*choices, kProfileShare, 1);
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
  // Whether heads may be narrowed: what the method tries.
  std::vector<bool> HeadChoices() const;
  absl::StatusOr<FormAllocation> Allocate(double ratio,
                                          bool narrow_heads) const;
  // Those of `narrow_heads` that the ratio can have, each allocation once.
  absl::StatusOr<std::vector<Choice>> ChoicesAt(
      double ratio, const std::vector<bool>& narrow_heads) const;
  // The largest ratio that keeps to the bytes, or the least bytes there are.
  struct WithinBytes {
    std::optional<Choice> choice;
    double least = 0;
  };
  absl::StatusOr<WithinBytes> LargestWithin(double bytes,
                                            bool narrow_heads) const;
  absl::StatusOr<Attempt> Try(const Choice& choice, double begin, double end);
  // Of one or two. The work is from `begin` to `end` of all.
  absl::StatusOr<CalibratedResult> BestOf(const std::vector<Choice>& choices,
                                          double begin, double end);
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

std::vector<bool> Compression::HeadChoices() const {
  switch (options_.method) {
    case CalibratedMethod::kWhitened:
      return {false};
    case CalibratedMethod::kComponent:
      return {true};
    case CalibratedMethod::kAuto:
      return {false, true};
  }
  return {};
}

// Forms that the GPU runs fused, unless even the largest are below the ratio.
absl::StatusOr<FormAllocation> Compression::Allocate(double ratio,
                                                     bool narrow_heads) const {
  AllowedForms allowed = {
      .attention_factors = options_.method != CalibratedMethod::kComponent,
      .narrow_heads = narrow_heads,
      .fused = !narrow_heads};
  absl::StatusOr<FormAllocation> allocation =
      AllocateForms(profiles_, sizes_, allowed, ratio);
  if (!allocation.ok() || !allowed.fused) return allocation;
  const auto layers = static_cast<double>(model_.layers.size());
  const double budget =
      ratio * layers * LayerParameters(sizes_.layer, KindRanks{});
  if (allocation->most_parameters >= budget) return allocation;
  allowed.fused = false;
  return AllocateForms(profiles_, sizes_, allowed, ratio);
}

absl::StatusOr<std::vector<Choice>> Compression::ChoicesAt(
    double ratio, const std::vector<bool>& narrow_heads) const {
  std::vector<Choice> choices;
  absl::Status refused;
  for (const bool narrow : narrow_heads) {
    absl::StatusOr<FormAllocation> allocation = Allocate(ratio, narrow);
    if (!allocation.ok()) {
      refused = allocation.status();
    } else if (choices.empty() ||
               choices.back().allocation.forms != allocation->forms) {
      choices.push_back({narrow, *std::move(allocation)});
    }
  }
  if (choices.empty()) return refused;
  return choices;
}

absl::StatusOr<Attempt> Compression::Try(const Choice& choice, double begin,
                                         double end) {
  const double layers = static_cast<double>(model_.layers.size());
  const std::vector<LayerForm>& forms = choice.allocation.forms;
  absl::StatusOr<std::vector<CompressedLayer>> compressed = CompressEncoder(
      model_, forms, calibration_.fit,
      [&](int layer) {
        // The last steps are evaluation.
        const double share = (layer + 1) / (layers + 1);
        return Report(begin + (end - begin) * share);
      },
      team_);
  if (!compressed.ok()) return compressed.status();
  absl::StatusOr<std::vector<double>> errors =
      EmbeddingErrors(model_, *compressed, calibration_.held_out, team_);
  if (!errors.ok()) return errors.status();
  const absl::StatusOr<double> bytes =
      ActivationBytesPerToken(ShapeWith(model_.shape, forms));
  if (!bytes.ok()) return bytes.status();
  Attempt attempt;
  attempt.result.forms = forms;
  attempt.result.layers = *std::move(compressed);
  attempt.result.kept = {choice.narrow_heads, 1 - Mean(*errors), *bytes};
  attempt.errors = *std::move(errors);
  return attempt;
}

absl::StatusOr<CalibratedResult> Compression::BestOf(
    const std::vector<Choice>& choices, double begin, double end) {
  const bool one = choices.size() == 1;
  const double middle = one ? end : (begin + end) / 2;
  absl::StatusOr<Attempt> first = Try(choices.front(), begin, middle);
  if (!first.ok()) return first.status();
  if (one) return std::move(first->result);
  absl::StatusOr<Attempt> second = Try(choices.back(), middle, end);
  if (!second.ok()) return second.status();
  const bool better = IsClearlyBetter(second->errors, first->errors);
  CalibratedResult& kept = better ? second->result : first->result;
  kept.rejected = better ? first->result.kept : second->result.kept;
  return std::move(kept);
}

// From the highest ratio down: bytes need not fall with each step.
absl::StatusOr<Compression::WithinBytes> Compression::LargestWithin(
    double bytes, bool narrow_heads) const {
  WithinBytes result{.choice = {},
                     .least = std::numeric_limits<double>::infinity()};
  for (int hundredths = kHighestRatio; hundredths >= kLowestRatio;
       --hundredths) {
    absl::StatusOr<FormAllocation> allocation =
        Allocate(Ratio(hundredths), narrow_heads);
    if (!allocation.ok()) break;  // too small a ratio
    const absl::StatusOr<double> needed =
        ActivationBytesPerToken(ShapeWith(model_.shape, allocation->forms));
    if (!needed.ok()) return needed.status();
    result.least = std::min(result.least, *needed);
    if (*needed > bytes) continue;
    result.choice = {narrow_heads, *std::move(allocation)};
    break;
  }
  return result;
}

absl::StatusOr<CalibratedResult> Compression::WithinActivationBytes() {
  std::vector<Choice> choices;
  double least = std::numeric_limits<double>::infinity();
  for (const bool narrow_heads : HeadChoices()) {
    absl::StatusOr<WithinBytes> within =
        LargestWithin(options_.budget.value, narrow_heads);
    if (!within.ok()) return within.status();
    least = std::min(least, within->least);
    if (within->choice) choices.push_back(*std::move(within->choice));
  }
  if (!choices.empty()) return BestOf(choices, kProfileShare, 1);
  return absl::InvalidArgumentError(absl::StrFormat(
      "no ratio from %g to %g needs at most %g activation bytes a token; the "
      "least is %.0f",
      Ratio(kLowestRatio), Ratio(kHighestRatio), options_.budget.value, least));
}

absl::StatusOr<CalibratedResult> Compression::AtLeastCosine() {
  std::vector<double> predicted;
  int first = kHighestRatio + 1;
  while (first > kLowestRatio) {
    const absl::StatusOr<FormAllocation> allocation =
        Allocate(Ratio(first - 1), HeadChoices().back());
    if (!allocation.ok()) {  // too small a ratio
      if (predicted.empty()) return allocation.status();
      break;
    }
    predicted.insert(predicted.begin(), allocation->predicted_loss);
    --first;
  }
  RatioSearch search(1 - options_.budget.value, first, std::move(predicted));
  std::vector<bool> narrow_heads = HeadChoices();
  std::optional<CalibratedResult> best;
  double cosine = 0;
  double begin = kSearchProfileShare;
  while (const std::optional<int> hundredths = search.Next()) {
    const double end = begin + (1 - begin) / 3;
    const auto choices = ChoicesAt(Ratio(*hundredths), narrow_heads);
    if (!choices.ok()) return choices.status();
    absl::StatusOr<CalibratedResult> result = BestOf(*choices, begin, end);
    if (!result.ok()) return result;
    begin = end;
    narrow_heads = {result->kept.narrow_heads};  // as at the first ratio
    cosine = result->kept.held_out_cosine;
    search.Measured(*hundredths, 1 - cosine);
    if (search.Found() == *hundredths) best = *std::move(result);
  }
  if (best) return *std::move(best);
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
