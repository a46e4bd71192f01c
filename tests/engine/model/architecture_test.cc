// The table of architectures, and models of each of them.
#include "engine/model/architecture.h"

#include <string>
#include <vector>

#include "engine/model/model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/model/tiny_checkpoint.h"

namespace svdserve {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kLayer[] = "transformer.layer.0.";

const Architecture& Find(const std::string& model_type) {
  const Architecture* found = FindArchitecture(model_type);
  EXPECT_NE(found, nullptr) << model_type;
  return *found;
}

Model Load(const TinyCheckpoint& tiny) {
  absl::StatusOr<Model> model = LoadModel(tiny.Write());
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? *std::move(model) : Model();
}

std::string Refusal(const TinyCheckpoint& tiny) {
  const absl::Status status = LoadModel(tiny.Write()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}

TEST(Architecture, IsFoundByModelType) {
  EXPECT_EQ(Find("xlm-roberta").model_type, "xlm-roberta");
  for (const char* other : {"", "xlm-roberta-xl", "longformer", "BERT"}) {
    EXPECT_EQ(FindArchitecture(other), nullptr) << other;
  }
  EXPECT_EQ(ServedModelTypes(), "bert, roberta, xlm-roberta, distilbert");
}

TEST(Architecture, NamesBecomeThoseOfBert) {
  const Architecture& bert = Find("bert");
  EXPECT_EQ(bert.CanonicalName("bert.embeddings.LayerNorm.gamma"),
            "embeddings.LayerNorm.weight");
  EXPECT_EQ(bert.CanonicalName("encoder.layer.3.output.dense.U"),
            "encoder.layer.3.output.dense.U");
  EXPECT_EQ(bert.CanonicalName("roberta.pooler.dense.bias"),
            "roberta.pooler.dense.bias");
  EXPECT_EQ(Find("roberta").CanonicalName("roberta.encoder.layer.0.x"),
            "encoder.layer.0.x");
  EXPECT_EQ(Find("xlm-roberta").CanonicalName("roberta.pooler.dense.bias"),
            "pooler.dense.bias");
  const Architecture& distil = Find("distilbert");
  EXPECT_EQ(
      distil.CanonicalName("distilbert.transformer.layer.11.ffn.lin2.weight"),
      "encoder.layer.11.output.dense.weight");
  EXPECT_EQ(distil.CanonicalName("transformer.layer.0.sa_layer_norm.bias"),
            "encoder.layer.0.attention.output.LayerNorm.bias");
}

TEST(Architecture, NamesThatAreNoPartStay) {
  for (const char* name :
       {"classifier.weight", "transformer.layer.", "transformer.layer.0",
        "transformer.layer.0.", "transformer.layer.0.ffn.lin1",
        "transformer.layer.0.ffn.lin12.bias", "transformer.layer.0.lora.A",
        "vocab_layer_norm.weight", ""}) {
    EXPECT_EQ(Find("distilbert").CanonicalName(name), name);
  }
}

TEST(Architecture, OwnNamesAreTheOtherWay) {
  for (const char* type : {"bert", "roberta", "xlm-roberta", "distilbert"}) {
    for (const char* name :
         {"encoder.layer.7.attention.self.key.V", "embeddings.LayerNorm.bias",
          "encoder.layer.0.output.LayerNorm.weight", "classifier.bias"}) {
      const Architecture& architecture = Find(type);
      EXPECT_EQ(architecture.CanonicalName(architecture.OwnName(name)), name);
    }
  }
  EXPECT_EQ(Find("distilbert").OwnName("encoder.layer.7.attention.self.key.V"),
            "transformer.layer.7.attention.k_lin.V");
}

TEST(LoadRoberta, DropsThePositionsBeforeTheFirst) {
  for (TinyCheckpoint tiny :
       {TinyCheckpoint::Roberta(), TinyCheckpoint::XlmRoberta()}) {
    const std::vector<float> all = ToTensor(SomeWeights({6, 16}))->ToF32();
    Model model = Load(tiny);
    EXPECT_EQ(model.config.max_tokens, 4);
    EXPECT_EQ(model.shape.max_positions, 4);
    EXPECT_EQ(model.shape.type_vocab, 1);
    EXPECT_THAT(model.embeddings.position.shape(), ElementsAre(4, 16));
    EXPECT_EQ(model.embeddings.position.ToF32(),
              std::vector<float>(all.begin() + 32, all.end()));
    tiny.config["pad_token_id"] = 0;
    model = Load(tiny);
    EXPECT_EQ(model.config.max_tokens, 5);
    EXPECT_EQ(model.embeddings.position.ToF32(),
              std::vector<float>(all.begin() + 16, all.end()));
  }
}

TEST(LoadRoberta, CountsAllPositionsAgainstTheConfiguration) {
  TinyCheckpoint tiny = TinyCheckpoint::Roberta();
  tiny.Add("embeddings.position_embeddings.weight", {4, 16});
  EXPECT_THAT(Refusal(tiny),
              HasSubstr("its shape is [4, 16], expected [6, 16]"));
}

TEST(LoadRoberta, IgnoresHeadsOfOtherTasks) {
  TinyCheckpoint tiny = TinyCheckpoint::Roberta();
  tiny.config["architectures"] = {"RobertaForMaskedLM"};
  tiny.Rename("encoder.", "roberta.encoder.");
  tiny.Rename("embeddings.", "roberta.embeddings.");
  tiny.Add("roberta.pooler.dense.weight", {16, 16});
  tiny.Add("lm_head.decoder.weight", {8, 16});
  EXPECT_EQ(Load(tiny).layers.size(), 1);
  tiny.config["model_type"] = "xlm-roberta";
  tiny.config["architectures"] = {"XLMRobertaForMaskedLM"};
  EXPECT_EQ(Load(tiny).layers.size(), 1);
  tiny.Add("cls.predictions.bias", {8});  // BERT's
  EXPECT_THAT(Refusal(tiny), HasSubstr("not part of this architecture"));
}

TEST(LoadRoberta, ClassifierHasTwoParts) {
  TinyCheckpoint tiny = TinyCheckpoint::Roberta();
  tiny.config["architectures"] = {"RobertaForSequenceClassification"};
  tiny.Add("roberta.pooler.dense.weight", {16, 16});  // unused, in old files
  tiny.AddLinear("classifier.dense", 16, 16);
  EXPECT_THAT(Refusal(tiny),
              HasSubstr("\"classifier.out_proj.weight\": is missing"));
  tiny.AddLinear("classifier.out_proj", 16, 2);
  tiny.Factor("classifier.dense", {16, 3}, {3, 16});
  const Model model = Load(tiny);
  EXPECT_EQ(model.config.task, Task::kClassification);
  EXPECT_EQ(model.config.pooling, Pooling::kCls);
  ASSERT_EQ(model.head.size(), 2);
  EXPECT_EQ(model.head[0].activation, HeadActivation::kTanh);
  EXPECT_EQ(model.head[0].linear.rank, 3);
  EXPECT_EQ(model.head[1].activation, HeadActivation::kIdentity);
  EXPECT_THAT(model.shape.head_widths, ElementsAre(16, 2));
}

TEST(LoadDistilBert, HasOneTokenTypeThatAddsNothing) {
  const Model model = Load(TinyCheckpoint::DistilBert());
  EXPECT_EQ(model.shape.type_vocab, 1);
  EXPECT_THAT(model.embeddings.token_type.shape(), ElementsAre(1, 16));
  EXPECT_THAT(model.embeddings.token_type.ToF32(), Each(0.0f));
  EXPECT_EQ(model.shape.max_tokens, 4);
  EXPECT_EQ(model.config.layer_norm_eps, 1e-12f);
}

TEST(LoadDistilBert, PutsEveryMatrixInItsPlace) {
  TinyCheckpoint tiny = TinyCheckpoint::DistilBert();
  int rank = 1;
  for (const char* name : {"attention.q_lin", "attention.k_lin",
                           "attention.v_lin", "attention.out_lin"}) {
    tiny.Factor(kLayer + std::string(name), {16, rank}, {rank, 16});
    ++rank;
  }
  tiny.Factor(kLayer + std::string("ffn.lin1"), {16, 5}, {5, 24});
  tiny.Factor(kLayer + std::string("ffn.lin2"), {24, 6}, {6, 16});
  const EncoderLayer layer = Load(tiny).layers.at(0);
  EXPECT_THAT((std::vector{layer.query.rank, layer.key.rank, layer.value.rank,
                           layer.attention_output.rank, layer.ffn_in.rank,
                           layer.ffn_out.rank}),
              ElementsAre(1, 2, 3, 4, 5, 6));
}

TEST(LoadDistilBert, MessagesHaveItsOwnNames) {
  TinyCheckpoint tiny = TinyCheckpoint::DistilBert();
  tiny.tensors.erase(kLayer + std::string("ffn.lin2.bias"));
  EXPECT_THAT(Refusal(tiny), HasSubstr("\"transformer.layer.0.ffn.lin2.bias\""
                                       ": is missing"));
  tiny = TinyCheckpoint::DistilBert();
  tiny.Factor(kLayer + std::string("ffn.lin1"), {16, 5}, {5, 24});
  tiny.tensors.erase(kLayer + std::string("ffn.lin1.U"));
  EXPECT_THAT(Refusal(tiny),
              AllOf(HasSubstr("tensor \"transformer.layer.0.ffn.lin1.V\""),
                    HasSubstr("without \"transformer.layer.0.ffn.lin1.U\"")));
}

TEST(LoadDistilBert, IgnoresHeadsOfOtherTasks) {
  TinyCheckpoint tiny = TinyCheckpoint::DistilBert();
  tiny.config["architectures"] = {"DistilBertForMaskedLM"};
  tiny.Rename("transformer.", "distilbert.transformer.");
  tiny.Rename("embeddings.", "distilbert.embeddings.");
  tiny.AddLinear("vocab_transform", 16, 16);
  tiny.Add("vocab_layer_norm.weight", {16});
  tiny.Add("vocab_projector.bias", {8});
  EXPECT_EQ(Load(tiny).layers.size(), 1);
  tiny.Add("distilbert.embeddings.token_type_embeddings.weight", {2, 16});
  EXPECT_THAT(Refusal(tiny), HasSubstr("not part of this architecture"));
}

TEST(LoadDistilBert, ClassifierHasTwoParts) {
  TinyCheckpoint tiny = TinyCheckpoint::DistilBert();
  tiny.config["architectures"] = {"DistilBertForSequenceClassification"};
  tiny.AddLinear("classifier", 16, 2);
  EXPECT_THAT(Refusal(tiny), HasSubstr("\"pre_classifier.weight\""));
  tiny.AddLinear("pre_classifier", 16, 16);
  const Model model = Load(tiny);
  EXPECT_EQ(model.config.pooling, Pooling::kCls);
  ASSERT_EQ(model.head.size(), 2);
  EXPECT_EQ(model.head[0].activation, HeadActivation::kRelu);
  EXPECT_EQ(model.head[1].activation, HeadActivation::kIdentity);
}

TEST(LoadModel, DoesNotTakeOneArchitectureForAnother) {
  TinyCheckpoint tiny = TinyCheckpoint::Roberta();
  tiny.Rename("", "bert.");
  EXPECT_THAT(Refusal(tiny), HasSubstr("is missing"));
  tiny = TinyCheckpoint::DistilBert();
  tiny.config = TinyCheckpoint().config;
  EXPECT_THAT(Refusal(tiny), HasSubstr("is missing"));
}

}  // namespace
}  // namespace svdserve
