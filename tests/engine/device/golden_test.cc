// Every golden model, in fp32 and bfloat16, against the exact outputs: the
// error is at most twice that of a plain implementation in the same precision.
#include "tests/golden/golden.h"

#include <string>
#include <tuple>
#include <vector>

#include "engine/model/model.h"
#include "gtest/gtest.h"
#include "tests/engine/device/random_model.h"
#include "tests/reference/encoder.h"

namespace svdserve {
namespace {

class GoldenTest
    : public ::testing::TestWithParam<std::tuple<std::string, ComputeType>> {};

PackedBatch BatchOfGolden(const GoldenModel& golden, const Model& model) {
  PackedBatch batch;
  for (const GoldenInput& input : golden.inputs) {
    AddSequence(&batch, input.ids, input.type_ids,
                {.normalize = model.config.normalize});
  }
  return batch;
}

TEST_P(GoldenTest, ErrorIsAtMostTwiceThatOfAPlainImplementation) {
  const auto& [name, compute] = GetParam();
  const GoldenModel golden = ReadGoldenModel(name);
  const auto model = LoadModel(golden.directory);
  ASSERT_TRUE(model.ok()) << model.status();
  PoisonedBackend backend(*model, {.compute = compute, .threads = 2});
  if (absl::IsUnimplemented(backend.status()) &&
      compute == ComputeType::kBF16) {
    GTEST_SKIP() << backend.status();
  }
  ASSERT_TRUE(backend.status().ok()) << backend.status();

  const PackedBatch batch = BatchOfGolden(golden, *model);
  const Planner planner(model->shape, backend->target(),
                        backend->info().arena_bytes);
  const auto rows = backend.Run(planner, batch);
  ASSERT_EQ(rows.size(), golden.inputs.size());

  const ReferenceEncoder plain(*model, compute == ComputeType::kBF16
                                           ? Precision::kBF16
                                           : Precision::kF32);
  std::vector<double> exact_values, plain_values, our_values;
  for (int i = 0; i < rows.size(); ++i) {
    const GoldenInput& input = golden.inputs[i];
    const std::vector<double> plain_row = plain.Run(
        input.ids, input.type_ids, {.normalize = model->config.normalize});
    exact_values.insert(exact_values.end(), input.output.begin(),
                        input.output.end());
    plain_values.insert(plain_values.end(), plain_row.begin(), plain_row.end());
    our_values.insert(our_values.end(), rows[i].begin(), rows[i].end());
  }
  ASSERT_EQ(our_values.size(), exact_values.size());
  const double ours = RmsError(our_values, exact_values);
  const double theirs = RmsError(plain_values, exact_values);
  EXPECT_LE(ours, 2 * theirs);
  RecordProperty("error", std::to_string(ours));
  RecordProperty("plain_error", std::to_string(theirs));
}

INSTANTIATE_TEST_SUITE_P(
    AllModels, GoldenTest,
    ::testing::Combine(::testing::ValuesIn(GoldenModelNames()),
                       ::testing::Values(ComputeType::kF32,
                                         ComputeType::kBF16)),
    [](const auto& info) {
      const bool bf16 = std::get<1>(info.param) == ComputeType::kBF16;
      return std::get<0>(info.param) + (bf16 ? "_in_bf16" : "_in_f32");
    });

}  // namespace
}  // namespace svdserve
