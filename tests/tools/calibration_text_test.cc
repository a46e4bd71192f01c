#include "tools/compress/calibration_text.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <set>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/tools/tiny_model.h"

namespace svdserve {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CalibrationTextTest : public testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& text) {
    fs::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name, std::ios::binary) << text;
    return root_ / name;
  }
  static CalibrationText ReadOrDie(const std::string& path, int count = 1000,
                                   uint64_t seed = 1) {
    const auto text = ReadCalibrationText(path, count, seed);
    EXPECT_TRUE(text.ok()) << text.status();
    return text.ok() ? *text : CalibrationText();
  }

  const fs::path root_ = FreshDirectory();
};

TEST_F(CalibrationTextTest, OneTextALineWithoutEmptyOnes) {
  CalibrationText text =
      ReadOrDie(Write("t", "first text\n\n  \n second \nlast"));
  std::sort(text.texts.begin(), text.texts.end());
  EXPECT_THAT(text.texts, ElementsAre("first text", "last", "second"));
  EXPECT_EQ(text.source, (root_ / "t").string());
}

TEST_F(CalibrationTextTest, ReadsAllFilesBelowADirectory) {
  Write("d/a", "one text\n");
  Write("d/below/b", "another\n");
  const CalibrationText text = ReadOrDie(root_ / "d");
  EXPECT_EQ(text.texts.size(), 2);
}

TEST_F(CalibrationTextTest, FilesThatAreNoTextAreRefusedAndPassedOver) {
  const std::string binary(
      "\x7f"
      "ELF\0\0text\n",
      11);
  const std::string path = Write("d/program", binary);
  const absl::Status refusal = ReadCalibrationText(path, 10, 1).status();
  EXPECT_EQ(refusal.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(refusal.message(), HasSubstr("program: holds a zero byte"));
  EXPECT_THAT(ReadCalibrationText(root_ / "d", 10, 1).status().message(),
              HasSubstr("holds no text"));
  Write("d/a", "one text\n");
  EXPECT_THAT(ReadOrDie(root_ / "d").texts, ElementsAre("one text"));
}

TEST_F(CalibrationTextTest, SplitsLongLinesBetweenWords) {
  std::string line;
  for (int i = 0; i < 1000; ++i) absl::StrAppend(&line, "word", i, " ");
  const CalibrationText text = ReadOrDie(Write("t", line));
  EXPECT_GT(text.texts.size(), 5);
  size_t bytes = 0;
  for (const std::string& part : text.texts) {
    EXPECT_LE(part.size(), 1200);
    EXPECT_TRUE(part.starts_with("word")) << part;
    EXPECT_TRUE(std::isdigit(part.back())) << part;
    bytes += part.size() + 1;
  }
  EXPECT_EQ(bytes, line.size());
}

TEST_F(CalibrationTextTest, ASeedGivesOneSampleAndAnotherAnother) {
  std::string lines;
  for (int i = 0; i < 5000; ++i) absl::StrAppend(&lines, "text ", i, "\n");
  const std::string path = Write("t", lines);
  const auto first = ReadOrDie(path, 100, 1).texts;
  EXPECT_EQ(first.size(), 100);
  EXPECT_EQ(std::set(first.begin(), first.end()).size(), 100);
  EXPECT_EQ(ReadOrDie(path, 100, 1).texts, first);
  EXPECT_NE(ReadOrDie(path, 100, 2).texts, first);
}

TEST_F(CalibrationTextTest, TheDefaultIsThere) {
  const CalibrationText text = ReadOrDie("", 200);
  EXPECT_GE(text.texts.size(), 100);
  EXPECT_THAT(text.source, HasSubstr("/usr/share"));
}

TEST_F(CalibrationTextTest, RefusesWhatIsNotThereOrEmpty) {
  const auto absent = ReadCalibrationText(root_ / "none", 10, 1).status();
  EXPECT_EQ(absent.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(absent.message(), HasSubstr("none"));
  const auto empty = ReadCalibrationText(Write("t", "\n \n"), 10, 1).status();
  EXPECT_EQ(empty.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(empty.message(), HasSubstr("holds no text"));
}

}  // namespace
}  // namespace svdserve
