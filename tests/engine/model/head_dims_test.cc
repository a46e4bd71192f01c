// Heads that are not as wide as hidden / heads: version 2 of the format.
#include <string>

#include "engine/model/model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/model/tiny_test.h"

namespace svdserve {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Two heads of 32 and 48 for queries and values, where 16 is the usual width.
class HeadDimsTest : public TinyTest {
 protected:
  HeadDimsTest() {
    tiny_ = TinyCheckpoint(kHeads);
    tiny_.metadata["svdserve.format"] = "2";
    SetQueryAndKey(64);
    SetValue(96);
  }
  void SetQueryAndKey(int width) {
    for (const std::string& name : {query_, key_}) {
      tiny_.Add(name + ".weight", {width, kHidden});
      tiny_.Add(name + ".bias", {width});
    }
  }
  void SetValue(int width) {
    tiny_.Add(value_ + ".weight", {width, kHidden});
    tiny_.Add(value_ + ".bias", {width});
    tiny_.Add(output_ + ".weight", {kHidden, width});
  }

  static constexpr int kHeads = 2;
  static constexpr int kHidden = 32;
  const std::string key_ = "encoder.layer.0.attention.self.key";
  const std::string value_ = "encoder.layer.0.attention.self.value";
  const std::string output_ = "encoder.layer.0.attention.output.dense";
};

TEST_F(HeadDimsTest, AreReadFromTheShapes) {
  const Model model = Load();
  EXPECT_THAT(model.shape.layers,
              ElementsAre(LayerShape{.query_dim = 32, .value_dim = 48}));
  EXPECT_EQ(model.shape.head_dim, 16);
  EXPECT_EQ(model.shape.query_dim(model.shape.layers[0]), 32);
  EXPECT_EQ(model.shape.value_dim(model.shape.layers[0]), 48);
  EXPECT_THAT(model.layers[0].attention_output.weight.shape(),
              ElementsAre(32, 96));
  EXPECT_THAT(model.layers[0].key.bias.shape(), ElementsAre(64));
}

TEST_F(HeadDimsTest, ValuesAloneMayDiffer) {
  SetQueryAndKey(32);
  const Model model = Load();
  EXPECT_THAT(model.shape.layers, ElementsAre(LayerShape{.value_dim = 48}));
  EXPECT_EQ(model.shape.query_dim(model.shape.layers[0]), 16);
}

TEST_F(HeadDimsTest, MatricesMayBeFactored) {
  const auto factor = [&](const std::string& name, int in, int rank, int out) {
    tiny_.Factor(name, {in, rank}, {rank, out});
    tiny_.metadata["svdserve.format"] = "2";
  };
  factor(key_, 32, 32, 64);
  factor(output_, 96, 7, 32);
  EXPECT_THAT(
      Load().shape.layers,
      ElementsAre(LayerShape{
          .key = 32, .attention_output = 7, .query_dim = 32, .value_dim = 48}));
  factor(key_, 32, 33, 64);
  EXPECT_THAT(Refused(key_ + ".U"), HasSubstr("rank from 1 to 32"));
}

TEST_F(HeadDimsTest, UsualWidthsAreReadInThisVersionToo) {
  SetQueryAndKey(32);
  SetValue(32);
  EXPECT_THAT(Load().shape.layers, ElementsAre(LayerShape()));
}

TEST_F(HeadDimsTest, TheDenseEquivalentHasTheUsualOnes) {
  const Model reduced = Load();
  const auto usual = LoadModel(TinyCheckpoint(kHeads).Write());
  ASSERT_TRUE(usual.ok()) << usual.status();
  EXPECT_EQ(reduced.DenseEquivalentBytes(), usual->WeightBytes());
  // Columns more of query, key and value with their biases, rows of output.
  EXPECT_EQ(reduced.WeightBytes() - usual->WeightBytes(),
            4 * (2 * 32 * 33 + 64 * 33 + 64 * 32));
}

TEST_F(HeadDimsTest, NeedTheirVersion) {
  tiny_.metadata["svdserve.format"] = "1";
  EXPECT_THAT(Refused(query_ + ".weight"),
              AllOf(HasSubstr("has heads of width 32"), HasSubstr("(16)"),
                    HasSubstr("must say svdserve.format = \"2\"")));
  tiny_.metadata.clear();
  EXPECT_THAT(Refused(query_ + ".weight"), HasSubstr("\"2\""));
  SetQueryAndKey(32);
  EXPECT_THAT(Refused(value_ + ".weight"), HasSubstr("has heads of width 48"));
}

TEST_F(HeadDimsTest, OthersThanKernelsTakeAreRefused) {
  for (const int width : {0, 16, 33, 80, 288}) {
    SetQueryAndKey(width);
    EXPECT_THAT(Refused(query_ + ".weight"),
                AllOf(HasSubstr("output width of " + std::to_string(width)),
                      HasSubstr("for 2 heads; it must be 2 times 16"),
                      HasSubstr("a multiple of 16 up to 128")));
  }
  SetQueryAndKey(256);
  EXPECT_EQ(Load().shape.layers[0].query_dim, 128);
}

TEST_F(HeadDimsTest, MatricesMustAgree) {
  tiny_.Add(key_ + ".weight", {96, kHidden});
  EXPECT_THAT(Refused(key_ + ".weight"),
              AllOf(HasSubstr("heads of width 48"),
                    HasSubstr(query_ + ".weight\" has heads of width 32")));
  SetQueryAndKey(64);
  tiny_.Add(output_ + ".weight", {kHidden, 64});
  EXPECT_THAT(Refused(output_ + ".weight"),
              HasSubstr("its shape is [32, 64], expected [32, 96]"));
  SetValue(96);
  tiny_.Add(key_ + ".bias", {32});
  EXPECT_THAT(Refused(key_ + ".bias"), HasSubstr("expected [64]"));
}

}  // namespace
}  // namespace svdserve
