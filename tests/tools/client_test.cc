// What the client commands read and write.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "tools/client/inputs.h"
#include "tools/client/outputs.h"

namespace svdserve {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string WriteFile(const std::string& name, const std::string& content) {
  const std::string path = ::testing::TempDir() + "/" + name;
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

std::vector<std::string> ReadTexts(const ClientInputOptions& options) {
  absl::StatusOr<InputReader> reader = InputReader::Open(options);
  std::vector<std::string> texts;
  v1::Input input;
  while (reader.ok() && reader->Next(&input).value_or(false)) {
    texts.push_back(input.text());
  }
  return texts;
}

// The message of the first error that reading `options` meets.
std::string ReadError(const ClientInputOptions& options) {
  absl::StatusOr<InputReader> reader = InputReader::Open(options);
  if (!reader.ok()) return std::string(reader.status().message());
  v1::Input input;
  while (true) {
    const absl::StatusOr<bool> more = reader->Next(&input);
    if (!more.ok()) return std::string(more.status().message());
    if (!*more) return "";
  }
}

TEST(InputReaderTest, TakesTheArguments) {
  EXPECT_THAT(ReadTexts({.texts = {"a b", ""}}), ElementsAre("a b", ""));
}

TEST(InputReaderTest, TakesOneTextALine) {
  const std::string file = WriteFile("lines.txt", "one\r\n\nthree");
  EXPECT_THAT(ReadTexts({.file = file}), ElementsAre("one", "", "three"));
}

TEST(InputReaderTest, TakesJsonLinesByTheFilesName) {
  const std::string file =
      WriteFile("inputs.jsonl", "\"one\"\n{\"text\": \"two\\nlines\"}\n");
  EXPECT_THAT(ReadTexts({.file = file}), ElementsAre("one", "two\nlines"));
}

TEST(InputReaderTest, GroupsInputsIntoBatches) {
  absl::StatusOr<InputReader> reader =
      InputReader::Open({.texts = {"a", "b", "c"}});
  ASSERT_TRUE(reader.ok()) << reader.status();
  google::protobuf::RepeatedPtrField<v1::Input> inputs;
  EXPECT_TRUE(*reader->NextBatch(2, &inputs));
  EXPECT_EQ(inputs.size(), 2);
  EXPECT_TRUE(*reader->NextBatch(2, &inputs));
  EXPECT_EQ(inputs.size(), 1);
  EXPECT_FALSE(*reader->NextBatch(2, &inputs));
}

TEST(InputReaderTest, NamesTheLineThatIsWrong) {
  EXPECT_THAT(ReadError({.file = WriteFile("bad.jsonl", "\"a\"\n{\"x\": 1}")}),
              HasSubstr("bad.jsonl: line 2: wrong JSON; expected"));
  EXPECT_THAT(ReadError({.file = WriteFile("bad.txt", "a\nb\nc\xff")}),
              HasSubstr("bad.txt: line 3 is not valid UTF-8"));
}

TEST(InputReaderTest, SaysWhatIsWrongWithTheSource) {
  EXPECT_THAT(ReadError({.texts = {"a"}, .file = "b"}), HasSubstr("not both"));
  EXPECT_THAT(ReadError({.file = "/nonexistent/file"}),
              HasSubstr("cannot read /nonexistent/file"));
}

TEST(ParseJsonInputTest, TakesPairsAndIds) {
  absl::StatusOr<v1::Input> pair =
      ParseJsonInput(R"({"text": "a", "pair": "b"})");
  ASSERT_TRUE(pair.ok()) << pair.status();
  EXPECT_EQ(pair->pair().first(), "a");
  EXPECT_EQ(pair->pair().second(), "b");

  absl::StatusOr<v1::Input> ids =
      ParseJsonInput(R"({"ids": [101, 102], "type_ids": [0, 1]})");
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_THAT(ids->tokens().ids(), ElementsAre(101, 102));
  EXPECT_THAT(ids->tokens().type_ids(), ElementsAre(0, 1));
}

TEST(ParseJsonInputTest, RefusesEverythingElse) {
  for (const char* line :
       {"", "plain", "1", "[]", "{}", R"({"text": 1})", R"({"ids": [-1]})",
        R"({"ids": [4294967296]})", R"({"ids": "a"})",
        R"({"text": "a", "pair": 2})", R"({"text": "a", "ids": [1]})",
        R"({"ids": [1], "type_ids": [0.5]})"}) {
    EXPECT_FALSE(ParseJsonInput(line).ok()) << line;
  }
}

TEST(TokenizeOptionsTest, AreThoseOfTheFlags) {
  const v1::TokenizeOptions tokenize =
      TokenizeOptionsOf({.truncate = true, .side = "left", .prompt = "query"});
  EXPECT_TRUE(tokenize.truncate());
  EXPECT_EQ(tokenize.truncation_side(), v1::TRUNCATION_SIDE_LEFT);
  EXPECT_EQ(tokenize.prompt_name(), "query");
  EXPECT_FALSE(TokenizeOptionsOf({}).has_prompt_name());
}

TEST(ToTextTest, CutsLongListsAndNestsObjects) {
  OrderedJson json = {{"index", 0}, {"seconds", {{"total", 0.5}}}};
  json["embedding"] = std::vector<int>(384, 1);
  EXPECT_EQ(ToText(json),
            "index 0  seconds (total 0.5)  embedding [1, 1, 1, 1, ... 384 "
            "values]");
}

TEST(ResultWriterTest, WritesJsonLinesAndCountsErrors) {
  const std::string file = ::testing::TempDir() + "/out.jsonl";
  absl::StatusOr<ResultWriter> out = ResultWriter::Open({.file = file});
  ASSERT_TRUE(out.ok()) << out.status();
  out->Write({{"index", 0}});
  out->Write({{"index", 1}, {"error", {{"code", "INVALID_ARGUMENT"}}}});
  EXPECT_TRUE(out->Close().ok());
  EXPECT_EQ(out->errors(), 1);
  std::ifstream written(file);
  std::string line;
  std::getline(written, line);
  EXPECT_EQ(line, R"({"index":0})");
  std::getline(written, line);
  EXPECT_EQ(line, R"({"index":1,"error":{"code":"INVALID_ARGUMENT"}})");
}

TEST(ResultWriterTest, SaysThatAFileCannotBeWritten) {
  EXPECT_THAT(ResultWriter::Open({.file = "/nonexistent/x"}).status().message(),
              HasSubstr("cannot write /nonexistent/x"));
}

}  // namespace
}  // namespace svdserve
