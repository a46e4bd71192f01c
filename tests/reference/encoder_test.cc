#include "tests/reference/encoder.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "engine/model/model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/golden/golden.h"

namespace svdserve {
namespace {

using ::testing::Each;
using ::testing::Lt;
using ::testing::SizeIs;

double LargestError(const std::vector<double>& a,
                    const std::vector<double>& b) {
  double largest = a.size() == b.size() ? 0 : INFINITY;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    largest = std::max(largest, std::abs(a[i] - b[i]));
  }
  return largest;
}

class GoldenTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    golden_ = ReadGoldenModel(GetParam());
    absl::StatusOr<Model> model = LoadModel(golden_.directory);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }

  // Of all golden inputs.
  std::vector<double> ErrorsOf(Precision precision) const {
    const ReferenceEncoder encoder(model_, precision);
    std::vector<double> errors;
    for (const GoldenInput& input : golden_.inputs) {
      errors.push_back(
          LargestError(encoder.Run(input.ids, input.type_ids,
                                   {.normalize = model_.config.normalize}),
                       input.output));
    }
    return errors;
  }

  GoldenModel golden_;
  Model model_;
};

TEST_P(GoldenTest, ExactAgreesWithHuggingFace) {
  ASSERT_FALSE(golden_.inputs.empty());
  // The golden numbers have nine digits.
  EXPECT_THAT(ErrorsOf(Precision::kF64), Each(Lt(1e-7)));
}

TEST_P(GoldenTest, PlainF32IsNear) {
  EXPECT_THAT(ErrorsOf(Precision::kF32), Each(Lt(1e-5)));
}

TEST_P(GoldenTest, PlainBF16IsNearButNotExact) {
  const std::vector<double> errors = ErrorsOf(Precision::kBF16);
  EXPECT_THAT(errors, Each(Lt(0.3)));
  EXPECT_GT(*std::max_element(errors.begin(), errors.end()), 1e-4);
}

TEST_P(GoldenTest, HiddenStatesEndInTheOutput) {
  const ReferenceEncoder encoder(model_, Precision::kF64);
  const GoldenInput& input = golden_.inputs[3];
  const auto states = encoder.Hidden(input.ids, input.type_ids);
  ASSERT_THAT(states, SizeIs(model_.layers.size() + 1));
  for (const auto& state : states) {
    ASSERT_THAT(state, SizeIs(input.ids.size() * model_.shape.hidden));
  }
  if (!model_.head.empty() || model_.config.pooling != Pooling::kCls) return;
  const auto output = encoder.Run(input.ids, input.type_ids, {});
  EXPECT_TRUE(std::equal(output.begin(), output.end(), states.back().begin()));
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTest,
                         testing::ValuesIn(GoldenModelNames()),
                         [](const auto& info) { return info.param; });

TEST(ReferenceEncoder, CutsBeforeItNormalizes) {
  const GoldenModel golden = ReadGoldenModel("mean_normalize");
  absl::StatusOr<Model> model = LoadModel(golden.directory);
  ASSERT_TRUE(model.ok()) << model.status();
  const ReferenceEncoder encoder(*model, Precision::kF64);
  const GoldenInput& input = golden.inputs[5];
  const auto whole = encoder.Run(input.ids, input.type_ids, {});
  const auto cut = encoder.Run(input.ids, input.type_ids,
                               {.normalize = true, .dimensions = 5});
  ASSERT_THAT(cut, SizeIs(5));
  double length = 0;
  for (int i = 0; i < 5; ++i) length += whole[i] * whole[i];
  for (int i = 0; i < 5; ++i) {
    EXPECT_NEAR(cut[i], whole[i] / std::sqrt(length), 1e-12);
  }
}

}  // namespace
}  // namespace svdserve
