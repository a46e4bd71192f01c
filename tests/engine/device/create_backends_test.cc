// Which device runs a model, and what is said of it.
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/device/random_model.h"

namespace svdserve {
namespace {

using ::testing::HasSubstr;

// On a machine without a GPU, as those of CI are.
class CreateBackendsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (CountCudaDevices().ok()) GTEST_SKIP() << "there is a GPU";
  }
  const Model model_ = RandomModel({});
};

TEST_F(CreateBackendsTest, WithoutAGpuTheCpuComputesAndSaysWhy) {
  const auto backends = CreateBackends(model_, {.threads = 1});
  ASSERT_TRUE(backends.ok()) << backends.status();
  ASSERT_EQ(backends->size(), 1);
  EXPECT_EQ(backends->front()->info().name, "cpu");
  EXPECT_EQ(backends->front()->info().dtype, "float32");
  EXPECT_EQ(backends->front()->info().reason,
            CountCudaDevices().status().message());
}

TEST_F(CreateBackendsTest, AGpuThatIsAskedForMustBeThere) {
  const auto backends = CreateBackends(model_, {.device = DeviceChoice::kCuda});
  EXPECT_EQ(backends.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(backends.status().message()),
              HasSubstr("a GPU was asked for, but "));
}

TEST_F(CreateBackendsTest, TheCpuCanBeAskedFor) {
  const auto backends = CreateBackends(model_, {.compute = ComputeType::kF32,
                                                .device = DeviceChoice::kCpu,
                                                .threads = 1});
  ASSERT_TRUE(backends.ok()) << backends.status();
  EXPECT_THAT(backends->front()->info().reason, HasSubstr("configuration"));
}

TEST_F(CreateBackendsTest, ACpuHasNoFloat16) {
  const auto backends =
      CreateBackends(model_, {.compute = ComputeType::kF16, .threads = 1});
  EXPECT_EQ(backends.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace svdserve
