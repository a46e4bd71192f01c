#include "tools/inspect/inspect.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/tools/tiny_model.h"
#include "tools/compress/compress.h"

namespace svdserve {
namespace {

using ::testing::HasSubstr;

class InspectTest : public testing::Test {
 protected:
  InspectTest() { TinyModel().Write(root_ / "dense"); }

  Inspection InspectOrDie() {
    absl::StatusOr<Inspection> result = Inspect(options_);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *std::move(result) : Inspection();
  }

  const std::filesystem::path root_ = FreshDirectory();
  InspectOptions options_{
      .model = root_ / "dense", .plan = "", .backend = {.threads = 1}};
};

TEST_F(InspectTest, DenseModel) {
  const Inspection dense = InspectOrDie();
  EXPECT_EQ(dense.matrix_parameters, 2 * (4 * 64 * 64 + 2 * 64 * 128));
  EXPECT_EQ(dense.matrix_parameters, dense.dense_matrix_parameters);
  EXPECT_EQ(dense.stored_bytes, dense.dense_equivalent_bytes);
  EXPECT_THAT(dense.ToText(), HasSubstr("dense"));
  EXPECT_THAT(dense.ToText(), HasSubstr("2 heads of 32"));
}

TEST_F(InspectTest, CompressedModelAgreesWithItsReport) {
  const auto report = CompressModel(
      {.input = root_ / "dense", .output = root_ / "small", .method = "svd"});
  ASSERT_TRUE(report.ok()) << report.status();
  options_.model = root_ / "small";
  const Inspection small = InspectOrDie();
  EXPECT_EQ(small.matrix_parameters, report->kept_parameters());
  EXPECT_EQ(small.dense_matrix_parameters, report->dense_parameters());
  EXPECT_EQ(small.dense_equivalent_bytes - small.stored_bytes,
            4 * (report->dense_parameters() - report->kept_parameters()));
  const nlohmann::json json = nlohmann::json::parse(small.ToJson());
  EXPECT_EQ(json["ranks"].size(), 2);
  EXPECT_EQ(json["ranks"][1]["ffn_out"], report->forms[1].ranks[5]);
  EXPECT_FALSE(json.contains("plan"));
}

// Heads of 32 and 48 columns in the first layer, 16 and the usual 64 in the
// second; hidden 128.
TEST_F(InspectTest, HeadsOfOtherWidths) {
  options_.model = "tests/golden/models/narrow_heads_f16";
  options_.plan = "4x32";
  const Inspection cpu = InspectOrDie();
  EXPECT_EQ(cpu.dense_matrix_parameters, 2 * (4 * 128 * 128 + 2 * 128 * 96));
  const int first = 64 * 128 + 40 * (128 + 64) + 48 * (128 + 96) + 96 * 128;
  const int second = 24 * (128 + 32) + 32 * 128 + 128 * 128 + 56 * (128 + 128);
  EXPECT_EQ(cpu.matrix_parameters,
            first + second + 2 * (30 * (128 + 96) + 96 * 128));
  EXPECT_THAT(cpu.ToText(), HasSubstr("2 heads of 64"));
  EXPECT_THAT(cpu.ToText(),
              HasSubstr("heads of 32 (query, key) and 48 (value)"));
  const nlohmann::json json = nlohmann::json::parse(cpu.ToJson());
  EXPECT_EQ(json["head_dims"][1]["query"], 16);
  EXPECT_EQ(json["head_dims"][1]["value"], 64);
  options_.device = Device::kCuda;
  const Inspection gpu = InspectOrDie();
  EXPECT_EQ(gpu.plan->plan.steps[1].way, Way::kMixed);
}

TEST_F(InspectTest, PlansABatch) {
  options_.plan = "4x32";
  const Inspection result = InspectOrDie();
  ASSERT_TRUE(result.plan.has_value());
  EXPECT_GE(result.plan->plan.shape.tokens, 4 * 32);
  EXPECT_GT(result.plan->plan.peak_bytes, 0);
  EXPECT_LE(result.plan->plan.peak_bytes, result.plan->charged_bytes);
  EXPECT_THAT(result.ToText(), HasSubstr(result.plan->plan.ToString()));
  const nlohmann::json json = nlohmann::json::parse(result.ToJson());
  EXPECT_EQ(json["plan"]["peak_bytes"], result.plan->plan.peak_bytes);
  EXPECT_EQ(json["plan"]["buffers"].size(), result.plan->plan.buffers.size());
}

TEST_F(InspectTest, PlansForAGpuThatIsNotThere) {
  ASSERT_TRUE(CompressModel({.input = root_ / "dense",
                             .output = root_ / "small",
                             .method = "svd"})
                  .ok());
  options_.model = root_ / "small";
  options_.plan = "4x32";
  options_.device = Device::kCuda;
  const Inspection result = InspectOrDie();
  ASSERT_TRUE(result.plan.has_value());
  EXPECT_LE(result.plan->plan.peak_bytes, result.plan->charged_bytes);
  EXPECT_THAT(result.ToText(), HasSubstr("backend  cuda, bfloat16"));
  EXPECT_THAT(result.ToText(), HasSubstr("attention 0 f"));
  options_.backend.arena_bytes = 1000;
  EXPECT_THAT(Inspect(options_).status().message(), HasSubstr("1000"));
}

TEST_F(InspectTest, RefusesABatchThatIsNone) {
  for (const char* bad : {"32", "x", "0x8", "4x", "4x8x2", "-1x8", "4x33"}) {
    options_.plan = bad;
    const absl::Status status = Inspect(options_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(status.message(), HasSubstr(bad));
  }
}

TEST_F(InspectTest, AnArenaThatIsTooSmallIsAnError) {
  options_.plan = "4x32";
  options_.backend.arena_bytes = 1000;
  const absl::Status status = Inspect(options_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(status.message(), HasSubstr("1000"));
}

}  // namespace
}  // namespace svdserve
