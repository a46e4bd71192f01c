#include "tests/engine/model/tiny_checkpoint.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

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
    Add(absl::StrCat(layer, name, ".weight"), {hidden, hidden});
    Add(absl::StrCat(layer, name, ".bias"), {hidden});
  }
  Add(layer + "intermediate.dense.weight", {24, hidden});
  Add(layer + "intermediate.dense.bias", {24});
  Add(layer + "output.dense.weight", {hidden, 24});
  Add(layer + "output.dense.bias", {hidden});
  for (const char* norm :
       {"embeddings.LayerNorm", "encoder.layer.0.attention.output.LayerNorm",
        "encoder.layer.0.output.LayerNorm"}) {
    Add(absl::StrCat(norm, ".weight"), {hidden});
    Add(absl::StrCat(norm, ".bias"), {hidden});
  }
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
