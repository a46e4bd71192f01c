// Thousands of damaged checkpoints, the same in every run: each is refused with
// an error that names a file, or loads as a model that keeps its promises.
#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "engine/model/model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/engine/model/tiny_checkpoint.h"

namespace svdserve {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

TinyCheckpoint Bert() {
  TinyCheckpoint tiny;
  tiny.Factor(TinyCheckpoint::kFfnIn, {16, 5}, {5, 24});
  // A head of other widths, too.
  const std::string attention = "encoder.layer.0.attention.";
  tiny.Add(attention + "self.value.weight", {32, 16});
  tiny.Add(attention + "self.value.bias", {32});
  tiny.Add(attention + "output.dense.weight", {16, 32});
  tiny.metadata["svdserve.format"] = "2";
  return tiny;
}

TinyCheckpoint Roberta() {
  TinyCheckpoint tiny = TinyCheckpoint::Roberta();
  tiny.Factor(TinyCheckpoint::kQuery, {16, 5}, {5, 16});
  return tiny;
}

TinyCheckpoint DistilBert() {
  TinyCheckpoint tiny = TinyCheckpoint::DistilBert();
  tiny.Factor("transformer.layer.0.ffn.lin2", {24, 5}, {5, 16});
  return tiny;
}

struct Damaged {
  const char* name;
  TinyCheckpoint (*make)();
};

class DamageTest : public testing::TestWithParam<Damaged> {
 protected:
  void SetUp() override {
    directory_ = GetParam().make().Write();
    ASSERT_TRUE(LoadModel(directory_).ok());
  }

  // True if the model was refused.
  bool Check() {
    const absl::StatusOr<Model> model = LoadModel(directory_);
    if (!model.ok()) {
      EXPECT_THAT(std::string(model.status().message()),
                  HasSubstr(directory_ + "/"));
      return true;
    }
    EXPECT_EQ(model->layers.size(), model->shape.layers.size());
    EXPECT_EQ(model->embeddings.word.size(),
              int64_t{model->shape.vocab} * model->shape.hidden);
    EXPECT_EQ(model->embeddings.word.ToF32().size(),
              model->embeddings.word.size());
    return false;
  }

  std::string Path(const std::string& name) const {
    return directory_ + "/" + name;
  }
  int Random(int below) {
    return static_cast<int>(random_() % static_cast<uint64_t>(below));
  }
  // One to four small accidents.
  std::string Damage(std::string bytes, int range) {
    for (int i = Random(4); i >= 0; --i) {
      range = std::min(range, static_cast<int>(bytes.size()));
      const int at = Random(range);
      switch (Random(5)) {
        case 0:
          bytes[at] ^= static_cast<char>(1 << Random(8));
          break;
        case 1:
          bytes[at] = static_cast<char>(Random(256));
          break;
        case 2:
          bytes.insert(at, 1, "0123456789-,:\"{}[]e."[Random(20)]);
          break;
        case 3:
          bytes.erase(at, 1 + Random(3));
          break;
        case 4:
          bytes.replace(at, 2, bytes.substr(Random(range), Random(9)));
          break;
      }
    }
    return bytes;
  }

  std::string directory_;
  std::mt19937_64 random_{7};  // specified by the standard, alike everywhere
};

TEST_P(DamageTest, EveryTruncationIsRefused) {
  const std::string good = ReadFile(Path("model.safetensors"));
  for (size_t size = 0; size < good.size(); size += size < 100 ? 1 : 41) {
    WriteFile(Path("model.safetensors"), good.substr(0, size));
    EXPECT_TRUE(Check()) << size;
  }
}

TEST_P(DamageTest, DamagedHeaders) {
  const std::string good = ReadFile(Path("model.safetensors"));
  const int header = static_cast<int>(good.find("}}")) + 2;
  int refused = 0;
  for (int i = 0; i < 2500; ++i) {
    WriteFile(Path("model.safetensors"), Damage(good, header));
    refused += Check() ? 1 : 0;
  }
  EXPECT_GT(refused, 2400);  // what is left hit blanks, or changed nothing
}

TEST_P(DamageTest, DamagedData) {
  const std::string good = ReadFile(Path("model.safetensors"));
  const int header = static_cast<int>(good.find("}}")) + 2;
  for (int i = 0; i < 500; ++i) {
    std::string bent = good;
    for (int k = 0; k < 20; ++k) {
      bent[header + Random(static_cast<int>(good.size()) - header)] ^=
          static_cast<char>(1 << Random(8));
    }
    WriteFile(Path("model.safetensors"), bent);
    Check();  // numbers that stay finite are numbers
  }
}

TEST_P(DamageTest, DamagedConfig) {
  const std::string good = ReadFile(Path("config.json"));
  int refused = 0;
  for (int i = 0; i < 2000; ++i) {
    WriteFile(Path("config.json"), Damage(good, static_cast<int>(good.size())));
    refused += Check() ? 1 : 0;
  }
  EXPECT_GT(refused, 1500);
}

// Well-formed headers that lie: any field of any entry, replaced.
TEST_P(DamageTest, LyingHeaders) {
  const std::string good = ReadFile(Path("model.safetensors"));
  const size_t end = good.find("}}") + 2;
  const size_t data = (end + 63) / 64 * 64;
  const json header = json::parse(good.substr(8, end - 8));
  const std::vector<json> lies = {0,
                                  -1,
                                  1e300,
                                  INT64_MAX,
                                  UINT64_MAX,
                                  "F32",
                                  "F64",
                                  "x",
                                  nullptr,
                                  true,
                                  json::array(),
                                  {0},
                                  {0, 0},
                                  {16, 16},
                                  {16, 16, 1},
                                  {INT64_MAX, 2},
                                  {0, UINT64_MAX},
                                  {UINT64_MAX, 0},
                                  {1, 4},
                                  {64, 0},
                                  json::object()};
  int loaded = 0;
  for (const auto& [name, entry] : header.items()) {
    for (const auto& [field, value] : entry.items()) {
      for (const json& lie : lies) {
        if (lie == value) continue;
        json bent = header;
        bent[name][field] = lie;
        const std::string text = bent.dump();
        std::string length(8, '\0');
        for (int i = 0; i < 8; ++i) length[i] = text.size() >> (8 * i);
        WriteFile(Path("model.safetensors"), length + text + good.substr(data));
        loaded += Check() ? 0 : 1;
      }
    }
  }
  EXPECT_EQ(loaded, 0);
}

INSTANTIATE_TEST_SUITE_P(Architectures, DamageTest,
                         testing::Values(Damaged{"bert", Bert},
                                         Damaged{"roberta", Roberta},
                                         Damaged{"distilbert", DistilBert}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace svdserve
