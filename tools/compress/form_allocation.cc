#include "tools/compress/form_allocation.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"

namespace svdserve {
namespace {

constexpr int kStep = 16;
constexpr int kSmallStep = 8;
constexpr int kMaxFfnRank = 320;
constexpr int kBisections = 100;

// What a unit may become. Only the unit's own fields of `form` count.
struct Choice {
  int64_t parameters = 0;
  double loss = 0;
  LayerForm form;
};
using Unit = std::vector<Choice>;

constexpr int Index(MatrixKind kind) { return static_cast<int>(kind); }

// 8 or 16, 32, ... as long as factors are smaller than the matrix; then dense,
// if it may be or nothing else is there.
std::vector<int> RankChoices(const MatrixSize& size, bool factors, bool dense,
                             int max_rank) {
  std::vector<int> ranks;
  if (factors) {
    const auto pays = [&](int rank) {
      return size.parameters(rank) < size.dense_parameters();
    };
    if (!pays(kStep) && pays(kSmallStep)) ranks.push_back(kSmallStep);
    for (int rank = kStep; rank <= max_rank && pays(rank); rank += kStep) {
      ranks.push_back(rank);
    }
  }
  if (dense || ranks.empty()) ranks.push_back(0);
  return ranks;
}

Unit MatrixUnit(MatrixKind kind, const LossCurve& curve, const MatrixSize& size,
                bool dense) {
  Unit unit;
  for (const int rank : RankChoices(size, true, dense, kMaxFfnRank)) {
    Choice choice = {size.parameters(rank), curve.At(rank), {}};
    choice.form.ranks[Index(kind)] = rank;
    unit.push_back(choice);
  }
  return unit;
}

// Two matrices with a width of heads between them.
struct Pair {
  MatrixKind first, second;
  int LayerForm::*width;
  const LossCurve& narrow;
};

Unit PairUnit(const Pair& pair, const LayerProfile& profile,
              const EncoderSizes& sizes, const AllowedForms& allowed) {
  constexpr int kAny = std::numeric_limits<int>::max();
  const MatrixSize& first = sizes.layer[Index(pair.first)];
  const MatrixSize& second = sizes.layer[Index(pair.second)];
  const auto ranks = [&](MatrixKind kind, const MatrixSize& size) {
    const bool dense = !allowed.fused || kind == MatrixKind::kAttentionOutput;
    return RankChoices(size, allowed.attention_factors, dense, kAny);
  };
  Unit unit;
  for (const int a : ranks(pair.first, first)) {
    for (const int b : ranks(pair.second, second)) {
      Choice choice = {first.parameters(a) + second.parameters(b),
                       profile.matrices[Index(pair.first)].At(a) +
                           profile.matrices[Index(pair.second)].At(b),
                       {}};
      choice.form.ranks[Index(pair.first)] = a;
      choice.form.ranks[Index(pair.second)] = b;
      unit.push_back(choice);
    }
  }
  if (!allowed.narrow_heads || pair.narrow.lost.empty()) return unit;
  for (int width = kStep; width < sizes.head_dim; width += kStep) {
    Choice choice = {0, pair.narrow.At(width), {}};
    choice.form.*pair.width = width;
    const LayerSizes narrow = SizesIn(choice.form, sizes.layer, sizes.heads);
    choice.parameters = narrow[Index(pair.first)].dense_parameters() +
                        narrow[Index(pair.second)].dense_parameters();
    unit.push_back(choice);
  }
  return unit;
}

// Four units a layer, in the order of its matrices.
std::vector<Unit> MakeUnits(const std::vector<LayerProfile>& profiles,
                            const EncoderSizes& sizes,
                            const AllowedForms& allowed) {
  std::vector<Unit> units;
  for (const LayerProfile& profile : profiles) {
    units.push_back(PairUnit({MatrixKind::kQuery, MatrixKind::kKey,
                              &LayerForm::query_dim, profile.query_key},
                             profile, sizes, allowed));
    units.push_back(PairUnit({MatrixKind::kValue, MatrixKind::kAttentionOutput,
                              &LayerForm::value_dim, profile.value_output},
                             profile, sizes, allowed));
    for (const MatrixKind kind : {MatrixKind::kFfnIn, MatrixKind::kFfnOut}) {
      units.push_back(MatrixUnit(kind, profile.matrices[Index(kind)],
                                 sizes.layer[Index(kind)], !allowed.fused));
    }
  }
  return units;
}

// Each unit's best choice at this price of a parameter; of equals the smaller.
std::vector<const Choice*> ChooseAt(const std::vector<Unit>& units,
                                    double price) {
  std::vector<const Choice*> chosen;
  for (const Unit& unit : units) {
    const auto cost = [price](const Choice& c) {
      return c.loss + price * static_cast<double>(c.parameters);
    };
    chosen.push_back(&*std::min_element(
        unit.begin(), unit.end(), [&](const Choice& a, const Choice& b) {
          const double first = cost(a);
          const double second = cost(b);
          return first != second ? first < second : a.parameters < b.parameters;
        }));
  }
  return chosen;
}

int64_t Sum(const std::vector<const Choice*>& chosen) {
  int64_t parameters = 0;
  for (const Choice* choice : chosen) parameters += choice->parameters;
  return parameters;
}

// Spends what is left on the largest decrease of loss a parameter, again and
// again.
void Improve(const std::vector<Unit>& units, int64_t budget,
             std::vector<const Choice*>* chosen) {
  int64_t spare = budget - Sum(*chosen);
  for (;;) {
    double best = 0;
    size_t where = 0;
    const Choice* better = nullptr;
    for (size_t u = 0; u < units.size(); ++u) {
      const Choice& now = *(*chosen)[u];
      for (const Choice& choice : units[u]) {
        const int64_t more = choice.parameters - now.parameters;
        const double gain = now.loss - choice.loss;
        if (more > spare || gain <= 0) continue;
        const double rate =
            gain / static_cast<double>(std::max<int64_t>(more, 1));
        if (rate > best) {
          best = rate;
          where = u;
          better = &choice;
        }
      }
    }
    if (better == nullptr) return;
    spare -= better->parameters - (*chosen)[where]->parameters;
    (*chosen)[where] = better;
  }
}

// A unit's choice into its layer's form.
void Merge(const LayerForm& from, LayerForm* form) {
  for (int k = 0; k < kMatrixKinds; ++k) {
    form->ranks[k] = std::max(form->ranks[k], from.ranks[k]);
  }
  form->query_dim = std::max(form->query_dim, from.query_dim);
  form->value_dim = std::max(form->value_dim, from.value_dim);
}

}  // namespace

absl::StatusOr<FormAllocation> AllocateForms(
    const std::vector<LayerProfile>& profiles, const EncoderSizes& sizes,
    const AllowedForms& allowed, double ratio) {
  if (absl::Status s = CheckRatio(ratio); !s.ok()) return s;
  const std::vector<Unit> units = MakeUnits(profiles, sizes, allowed);
  const int64_t dense =
      LayerParameters(sizes.layer, KindRanks{}) * profiles.size();
  const auto budget = static_cast<int64_t>(std::floor(ratio * dense));
  // A price at which nothing but the smallest is chosen.
  double dear = 0;
  for (const Unit& unit : units) {
    for (const Choice& choice : unit) dear = std::max(dear, choice.loss);
  }
  dear = 2 * dear + 1;
  const int64_t least = Sum(ChooseAt(units, dear));
  if (least > budget) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "ratio %g is too small for this model and method: the smallest form of "
        "every matrix keeps %.4f; give at least that",
        ratio, std::ceil(1e4 * least / dense) / 1e4));
  }
  double cheap = 0;
  for (int i = 0; i < kBisections; ++i) {
    // Prices differ by orders of magnitude: halve their logarithms.
    const double price = std::sqrt(std::max(cheap, dear * 1e-18) * dear);
    (Sum(ChooseAt(units, price)) <= budget ? dear : cheap) = price;
  }
  std::vector<const Choice*> chosen = ChooseAt(units, dear);
  Improve(units, budget, &chosen);

  FormAllocation allocation;
  allocation.forms.resize(profiles.size());
  const size_t per_layer = units.size() / profiles.size();
  for (size_t u = 0; u < units.size(); ++u) {
    Merge(chosen[u]->form, &allocation.forms[u / per_layer]);
    allocation.predicted_loss += chosen[u]->loss;
  }
  allocation.parameters = Sum(chosen);
  for (const Unit& unit : units) {
    allocation.most_parameters +=
        std::ranges::max(unit, {}, &Choice::parameters).parameters;
  }
  return allocation;
}

}  // namespace svdserve
