#include "tests/engine/model/tiny_checkpoint.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/model/checkpoint.h"
#include "gtest/gtest.h"

namespace svdserve {

namespace fs = std::filesystem;

RawTensor SomeWeights(const std::vector<int64_t>& shape) {
  int64_t size = 1;
  for (const int64_t extent : shape) size *= extent;
  std::vector<float> values(size);
  for (int64_t i = 0; i < size; ++i) values[i] = 0.01f * (i % 37 - 18);
  return ToRawTensor(Tensor::FromF32(shape, values));
}

TinyCheckpoint::TinyCheckpoint(int heads)
    : config({{"architectures", {"BertModel"}},
              {"hidden_act", "gelu"},
              {"hidden_size", 16 * heads},
              {"intermediate_size", 24},
              {"layer_norm_eps", 1e-12},
              {"max_position_embeddings", 4},
              {"model_type", "bert"},
              {"num_attention_heads", heads},
              {"num_hidden_layers", 1},
              {"type_vocab_size", 2},
              {"vocab_size", 8}}) {
  const int hidden = 16 * heads;
  const std::string layer = "encoder.layer.0.";
  Add("embeddings.word_embeddings.weight", {8, hidden});
  Add("embeddings.position_embeddings.weight", {4, hidden});
  Add("embeddings.token_type_embeddings.weight", {2, hidden});
  for (const char* name : {"attention.self.query", "attention.self.key",
                           "attention.self.value", "attention.output.dense"}) {
    AddLinear(layer + name, hidden, hidden);
  }
  AddLinear(layer + "intermediate.dense", hidden, 24);
  AddLinear(layer + "output.dense", 24, hidden);
  for (const char* norm :
       {"embeddings.LayerNorm", "encoder.layer.0.attention.output.LayerNorm",
        "encoder.layer.0.output.LayerNorm"}) {
    Add(absl::StrCat(norm, ".weight"), {hidden});
    Add(absl::StrCat(norm, ".bias"), {hidden});
  }
}

TinyCheckpoint TinyCheckpoint::Roberta() {
  TinyCheckpoint tiny;
  tiny.config["architectures"] = {"RobertaModel"};
  tiny.config["max_position_embeddings"] = 6;
  tiny.config["model_type"] = "roberta";
  tiny.config["pad_token_id"] = 1;
  tiny.config["type_vocab_size"] = 1;
  tiny.Add("embeddings.position_embeddings.weight", {6, 16});
  tiny.Add("embeddings.token_type_embeddings.weight", {1, 16});
  return tiny;
}

TinyCheckpoint TinyCheckpoint::XlmRoberta() {
  TinyCheckpoint tiny = Roberta();
  tiny.config["architectures"] = {"XLMRobertaModel"};
  tiny.config["model_type"] = "xlm-roberta";
  return tiny;
}

TinyCheckpoint TinyCheckpoint::DistilBert() {
  TinyCheckpoint tiny;
  tiny.config = {{"activation", "gelu"},
                 {"architectures", {"DistilBertModel"}},
                 {"dim", 16},
                 {"hidden_dim", 24},
                 {"max_position_embeddings", 4},
                 {"model_type", "distilbert"},
                 {"n_heads", 1},
                 {"n_layers", 1},
                 {"vocab_size", 8}};
  tiny.tensors.erase("embeddings.token_type_embeddings.weight");
  const std::string from = "encoder.layer.0.";
  const std::string to = "transformer.layer.0.";
  tiny.Rename(from + "attention.self.query", to + "attention.q_lin");
  tiny.Rename(from + "attention.self.key", to + "attention.k_lin");
  tiny.Rename(from + "attention.self.value", to + "attention.v_lin");
  tiny.Rename(from + "attention.output.dense", to + "attention.out_lin");
  tiny.Rename(from + "attention.output.LayerNorm", to + "sa_layer_norm");
  tiny.Rename(from + "intermediate.dense", to + "ffn.lin1");
  tiny.Rename(from + "output.dense", to + "ffn.lin2");
  tiny.Rename(from + "output.LayerNorm", to + "output_layer_norm");
  return tiny;
}

void TinyCheckpoint::Rename(const std::string& from, const std::string& to) {
  std::map<std::string, RawTensor> renamed;
  for (const auto& [name, tensor] : tensors) {
    const bool moves = name.starts_with(from);
    renamed[moves ? to + name.substr(from.size()) : name] = tensor;
  }
  EXPECT_EQ(renamed.size(), tensors.size()) << from;
  tensors = std::move(renamed);
}

void TinyCheckpoint::Factor(const std::string& name,
                            const std::vector<int64_t>& u,
                            const std::vector<int64_t>& v) {
  tensors.erase(absl::StrCat(name, ".weight"));
  Add(absl::StrCat(name, ".U"), u);
  Add(absl::StrCat(name, ".V"), v);
  metadata.insert_or_assign(kFormatKey, kFormatVersion);
}

std::string TinyCheckpoint::Write() const {
  static int count = 0;
  const std::string directory = FreshDirectory(absl::StrCat("tiny", ++count));
  WriteFile(directory + "/config.json", config.dump());
  const absl::Status written =
      WriteSafetensors(directory + "/model.safetensors", tensors, metadata);
  EXPECT_TRUE(written.ok()) << written;
  for (const auto& [name, content] : files) {
    WriteFile(absl::StrCat(directory, "/", name), content);
  }
  return directory;
}

std::string FreshDirectory(const std::string& name) {
  const fs::path path =
      fs::path(testing::TempDir()) / absl::StrCat("svdserve", getpid()) / name;
  fs::remove_all(path);
  fs::create_directories(path);
  return path.string();
}

void WriteFile(const std::string& path, const std::string& content) {
  fs::create_directories(fs::path(path).parent_path());
  // A new file: file systems flush one that is truncated and written again.
  fs::remove(path);
  std::ofstream(path, std::ios::binary) << content;
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

}  // namespace svdserve
