// A test of what LoadModel() makes of a bent TinyCheckpoint.
#ifndef SVDSERVE_TESTS_ENGINE_MODEL_TINY_TEST_H_
#define SVDSERVE_TESTS_ENGINE_MODEL_TINY_TEST_H_

#include <string>
#include <utility>

#include "engine/model/model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/model/tiny_checkpoint.h"

namespace svdserve {

class TinyTest : public testing::Test {
 protected:
  Model Load() {
    absl::StatusOr<Model> model = LoadModel(tiny_.Write());
    EXPECT_TRUE(model.ok()) << model.status();
    return model.ok() ? *std::move(model) : Model();
  }
  absl::Status Status() { return LoadModel(tiny_.Write()).status(); }
  // The message of an INVALID_ARGUMENT that names the weight file and `tensor`.
  std::string Refused(const std::string& tensor) {
    const std::string directory = tiny_.Write();
    const absl::Status status = LoadModel(directory).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(
        std::string(status.message()),
        testing::AllOf(testing::HasSubstr(directory + "/model.safetensors"),
                       testing::HasSubstr("tensor \"" + tensor + "\"")));
    return std::string(status.message());
  }

  TinyCheckpoint tiny_;
  const std::string query_ = TinyCheckpoint::kQuery;
  const std::string ffn_in_ = TinyCheckpoint::kFfnIn;
};

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_ENGINE_MODEL_TINY_TEST_H_
