// Every golden model on the CUDA kernels against the exact outputs: the error
// is at most twice that of a plain implementation in the same precision.
#include <string>
#include <tuple>
#include <vector>

#include "engine/model/model.h"
#include "gtest/gtest.h"
#include "tests/engine/device/cuda_fixture.h"
#include "tests/engine/device/random_model.h"
#include "tests/golden/golden.h"
#include "tests/reference/encoder.h"

namespace svdserve {
namespace {

class GoldenCudaTest
    : public ::testing::TestWithParam<std::tuple<std::string, ComputeType>> {};

TEST_P(GoldenCudaTest, ErrorIsAtMostTwiceThatOfAPlainImplementation) {
  const auto& [name, compute] = GetParam();
  const GoldenModel golden = ReadGoldenModel(name);
  const auto model = LoadModel(golden.directory);
  ASSERT_TRUE(model.ok()) << model.status();
  PoisonedCuda backend(*model, {.compute = compute});
  ASSERT_TRUE(backend.status().ok()) << backend.status();

  PackedBatch batch;
  for (const GoldenInput& input : golden.inputs) {
    AddSequence(&batch, input.ids, input.type_ids,
                {.normalize = model->config.normalize});
  }
  const Rows rows = backend.Run(batch);
  ASSERT_EQ(rows.size(), golden.inputs.size());

  const ReferenceEncoder plain(*model, Precision::kBF16);
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
  // float16 has three bits more than the plain implementation's bfloat16.
  EXPECT_LE(ours, compute == ComputeType::kF16 ? theirs / 4 : 2 * theirs);
  RecordProperty("error", std::to_string(ours));
  RecordProperty("plain_error", std::to_string(theirs));
}

INSTANTIATE_TEST_SUITE_P(
    AllModels, GoldenCudaTest,
    ::testing::Combine(::testing::ValuesIn(GoldenModelNames()),
                       ::testing::Values(ComputeType::kBF16,
                                         ComputeType::kF16)),
    [](const auto& info) {
      const bool bf16 = std::get<1>(info.param) == ComputeType::kBF16;
      return std::get<0>(info.param) + (bf16 ? "_in_bf16" : "_in_f16");
    });

}  // namespace
}  // namespace svdserve
