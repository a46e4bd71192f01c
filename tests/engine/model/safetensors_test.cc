#include "engine/model/safetensors.h"

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/model/tiny_checkpoint.h"

namespace svdserve {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

class SafetensorsTest : public testing::Test {
 protected:
  void SetUp() override { path_ = FreshDirectory("safetensors") + "/f"; }

  // A file with this header, its length as given, and `data_bytes` of data.
  std::string OpenError(const std::string& header, int data_bytes,
                        int64_t length = -1) {
    const uint64_t stated = length < 0 ? header.size() : length;
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &stated, 8);
    WriteFile(path_, bytes + header + std::string(data_bytes, 'x'));
    const absl::Status status = SafetensorsFile::Open(path_).status();
    EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  }

  std::string path_;
};

std::string Entry(const std::string& name, const std::string& dtype,
                  const std::string& shape, const std::string& offsets) {
  return absl::StrCat("\"", name, "\":{\"dtype\":\"", dtype,
                      "\",\"shape\":", shape, ",\"data_offsets\":", offsets,
                      "}");
}

std::string Header(const std::vector<std::string>& entries) {
  return absl::StrCat("{", absl::StrJoin(entries, ","), "}");
}

TEST_F(SafetensorsTest, ReadsWhatItWrites) {
  const Tensor floats = Tensor::FromF32({2, 3}, {1, 2, 3, 4, 5, 6});
  std::map<std::string, RawTensor> tensors;
  tensors["b"] = ToRawTensor(floats);
  tensors["a"] = {"I64", {1}, floats.bytes(), 8};
  tensors["none"] = {"F16", {0, 7}, floats.bytes(), 0};
  ASSERT_TRUE(WriteSafetensors(path_, tensors, {{"key", "value"}}).ok());

  const auto file = SafetensorsFile::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(file->metadata(), ElementsAre(Pair("key", "value")));
  EXPECT_EQ(file->entries().size(), 3);
  const auto raw = file->Read("b");
  ASSERT_TRUE(raw.ok()) << raw.status();
  const auto tensor = ToTensor(*raw);
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_THAT(tensor->shape(), ElementsAre(2, 3));
  EXPECT_THAT(tensor->ToF32(), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_EQ(file->Read("none")->byte_size, 0);
}

TEST_F(SafetensorsTest, AlignsDataAndLeavesNoTemporaryFile) {
  ASSERT_TRUE(WriteSafetensors(path_, {{"w", SomeWeights({5})}}, {}).ok());
  const std::string bytes = ReadFile(path_);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  EXPECT_EQ((header + 8) % 64, 0);
  EXPECT_EQ(bytes.size(), 8 + header + 20);
  const std::filesystem::path folder =
      std::filesystem::path(path_).parent_path();
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1);
}

TEST_F(SafetensorsTest, ReplacesAFileOnlyByAWholeOne) {
  ASSERT_TRUE(WriteSafetensors(path_, {{"w", SomeWeights({5})}}, {}).ok());
  const auto old = SafetensorsFile::Open(path_);
  ASSERT_TRUE(WriteSafetensors(path_, {{"v", SomeWeights({6})}}, {}).ok());
  EXPECT_TRUE(old->Read("w").ok());  // the old file lives as long as it is open
  EXPECT_TRUE(SafetensorsFile::Open(path_)->Read("v").ok());
}

TEST_F(SafetensorsTest, ReportsWhatCannotBeWritten) {
  const absl::Status status = WriteSafetensors("/no/such/place/f", {}, {});
  EXPECT_THAT(std::string(status.message()), HasSubstr("/no/such/place/f"));
}

TEST_F(SafetensorsTest, MissingFileIsNotFound) {
  const absl::Status status = SafetensorsFile::Open(path_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
}

TEST_F(SafetensorsTest, DirectoryIsRefused) {
  const absl::Status status =
      SafetensorsFile::Open(testing::TempDir()).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("not a regular file"));
}

TEST_F(SafetensorsTest, TruncationAfterOpenIsAnError) {
  ASSERT_TRUE(WriteSafetensors(path_, {{"w", SomeWeights({500})}}, {}).ok());
  const auto file = SafetensorsFile::Open(path_);
  ASSERT_TRUE(file.ok());
  std::filesystem::resize_file(path_, 300);
  EXPECT_THAT(std::string(file->Read("w").status().message()),
              AllOf(HasSubstr(path_), HasSubstr("\"w\"")));
}

TEST_F(SafetensorsTest, HeaderLengthLies) {
  EXPECT_THAT(OpenError("{}", 0, 1000), HasSubstr("claims a header of 1000"));
  EXPECT_THAT(OpenError("{}", 0, INT64_MAX), HasSubstr("claims a header"));
  EXPECT_THAT(OpenError(std::string(9 << 20, ' '), 0),
              HasSubstr("longer than the allowed"));
  WriteFile(path_, "1234567");
  EXPECT_THAT(std::string(SafetensorsFile::Open(path_).status().message()),
              HasSubstr("too short"));
}

TEST_F(SafetensorsTest, HeaderIsNotJson) {
  EXPECT_THAT(OpenError("{\"a\":", 0), HasSubstr("not valid JSON"));
  EXPECT_THAT(OpenError("{} x", 0), HasSubstr("not valid JSON"));
  EXPECT_THAT(OpenError("[]", 0), HasSubstr("not an object"));
  EXPECT_THAT(OpenError(std::string(1000, '['), 0), HasSubstr("nested deeper"));
}

TEST_F(SafetensorsTest, EntriesAreMalformed) {
  EXPECT_THAT(OpenError("{\"a\":1}", 0), HasSubstr("tensor \"a\""));
  EXPECT_THAT(OpenError(Header({Entry("a", "F31", "[1]", "[0,4]")}), 4),
              HasSubstr("dtype \"F31\" is not known"));
  EXPECT_THAT(OpenError(Header({Entry("a", "F32", "[-1]", "[0,4]")}), 4),
              HasSubstr("shape is not a list of sizes"));
  EXPECT_THAT(OpenError(Header({Entry("a", "F32", "[1]", "[0,4,8]")}), 4),
              HasSubstr("not a pair"));
  EXPECT_THAT(OpenError("{\"__metadata__\":{\"k\":1}}", 0),
              HasSubstr("__metadata__.k"));
}

TEST_F(SafetensorsTest, OffsetsDoNotFit) {
  EXPECT_THAT(OpenError(Header({Entry("a", "F32", "[2]", "[0,8]")}), 7),
              HasSubstr("do not lie within the 7 bytes"));
  EXPECT_THAT(OpenError(Header({Entry("a", "F32", "[1]", "[8,4]")}), 8),
              HasSubstr("do not lie within"));
  EXPECT_THAT(OpenError(Header({Entry("a", "F32", "[3]", "[0,8]")}), 8),
              HasSubstr("size that shape and dtype need"));
}

TEST_F(SafetensorsTest, ShapesDoNotOverflow) {
  EXPECT_THAT(
      OpenError(Header({Entry("a", "F32", "[4611686018427387904,4,4294967296]",
                              "[0,0]")}),
                0),
      HasSubstr("size that shape and dtype need"));
}

TEST_F(SafetensorsTest, EveryByteBelongsToOneTensor) {
  const std::string a = Entry("a", "U8", "[4]", "[0,4]");
  EXPECT_THAT(OpenError(Header({a, Entry("b", "U8", "[4]", "[2,6]")}), 6),
              AllOf(HasSubstr("\"b\""), HasSubstr("overlap")));
  EXPECT_THAT(OpenError(Header({a, Entry("b", "U8", "[1]", "[5,6]")}), 6),
              HasSubstr("1 bytes before it belong to no tensor"));
  EXPECT_THAT(OpenError(Header({a}), 6),
              HasSubstr("last 2 bytes belong to no tensor"));
}

TEST_F(SafetensorsTest, NamesOccurOnce) {
  const std::string a = Entry("a", "U8", "[1]", "[0,1]");
  EXPECT_THAT(OpenError(Header({a, a}), 1),
              HasSubstr("key \"a\" occurs twice"));
}

TEST_F(SafetensorsTest, OnlyFloatsBecomeTensors) {
  const RawTensor raw{"F64", {1}, SomeWeights({2}).bytes, 8};
  EXPECT_THAT(std::string(ToTensor(raw).status().message()),
              HasSubstr("dtype is F64, expected F32, F16 or BF16"));
}

}  // namespace
}  // namespace svdserve
