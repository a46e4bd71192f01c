// The whole engine on real checkpoints: text in, and out comes what Hugging
// Face computes, whatever an input was batched with.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/engine.h"
#include "tests/engine/schedule/task_maker.h"
#include "tests/golden/golden.h"

namespace svdserve {
namespace {

class EngineGoldenTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    golden_ = ReadGoldenModel(GetParam());
    EngineOptions options;
    options.model_directory = golden_.directory;
    options.backend.threads = 2;
    auto engine = Engine::Create(options, nullptr);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }

  std::shared_ptr<Ending> Submit(Input input, const std::string& prompt = "") {
    InputOptions options;
    options.prompt = prompt;
    options.output.normalize = engine_->model_config().normalize;
    auto ending = std::make_shared<Ending>();
    engine_->Submit(std::move(input), options, {},
                    [ending](absl::StatusOr<InputResult> result) {
                      ending->Set(std::move(result));
                    });
    return ending;
  }

  std::shared_ptr<Ending> SubmitIds(const GoldenInput& golden) {
    Input input;
    input.ids = golden.ids;
    input.type_ids = golden.type_ids;
    return Submit(std::move(input));
  }

  static std::vector<float> ValuesOf(const Ending& ending) {
    ending.Await();
    const absl::StatusOr<InputResult> result = ending.result();
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? result->values : std::vector<float>();
  }

  static void ExpectClose(const std::vector<float>& got,
                          const std::vector<double>& want) {
    ASSERT_EQ(got.size(), want.size());
    double largest = 0;
    for (const double value : want) {
      largest = std::max(largest, std::abs(value));
    }
    for (size_t i = 0; i < want.size(); ++i) {
      EXPECT_NEAR(got[i], want[i], 1e-4 * largest) << "value " << i;
    }
  }

  // The ids of a text are those of the golden only with the same prompt.
  bool TextGivesTheseIds(const GoldenInput& golden) const {
    const bool has_text = !golden.text.empty() || golden.pair.has_value();
    const bool other_prompt = golden.prompt.empty() && !golden.pair &&
                              !engine_->model_config().default_prompt.empty();
    return has_text && !other_prompt;
  }

  GoldenModel golden_;
  std::unique_ptr<Engine> engine_;
};

TEST_P(EngineGoldenTest, AgreesWithHuggingFace) {
  std::vector<std::shared_ptr<Ending>> together;
  for (const GoldenInput& input : golden_.inputs) {
    together.push_back(SubmitIds(input));
  }
  for (size_t i = 0; i < together.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "input " << i);
    ExpectClose(ValuesOf(*together[i]), golden_.inputs[i].output);
  }
}

TEST_P(EngineGoldenTest, MeasuresWhatWarmUpTouched) {
  const EngineGauges gauges = engine_->Gauges();
  EXPECT_GT(gauges.arena_touched_bytes, 0);
  EXPECT_LE(gauges.arena_touched_bytes, gauges.arena_peak_bytes);
  EXPECT_LE(gauges.arena_peak_bytes, gauges.arena_bytes);
}

TEST_P(EngineGoldenTest, TextAloneAndIdsInCompanyGiveTheSameBits) {
  std::vector<std::shared_ptr<Ending>> together;
  for (const GoldenInput& input : golden_.inputs) {
    together.push_back(SubmitIds(input));
  }
  for (const auto& ending : together) ending->Await();
  for (size_t i = 0; i < golden_.inputs.size(); ++i) {
    const GoldenInput& golden = golden_.inputs[i];
    if (!TextGivesTheseIds(golden)) continue;
    SCOPED_TRACE(testing::Message() << "input " << i << ": " << golden.text);
    Input input;
    input.text = golden.text;
    input.pair = golden.pair;
    const auto alone = Submit(std::move(input), golden.prompt);
    EXPECT_EQ(ValuesOf(*alone), ValuesOf(*together[i]));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EngineGoldenTest,
                         testing::ValuesIn(GoldenModelNames()),
                         [](const auto& info) { return info.param; });

TEST(EngineCreateTest, AMissingModelIsAnErrorThatNamesIt) {
  EngineOptions options;
  options.model_directory = "no/such/model";
  const auto engine = Engine::Create(options, nullptr);
  ASSERT_FALSE(engine.ok());
  EXPECT_NE(engine.status().message().find("no/such/model"),
            absl::string_view::npos);
}

}  // namespace
}  // namespace svdserve
