#include "tests/tools/tiny_model.h"

#include <fstream>
#include <random>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace svdserve {
namespace {

constexpr int kHidden = 64;
constexpr int kIntermediate = 128;
constexpr int kLayers = 2;
constexpr char kConfig[] = R"({
  "architectures": ["BertModel"],
  "model_type": "bert",
  "hidden_act": "gelu",
  "hidden_size": 64,
  "intermediate_size": 128,
  "layer_norm_eps": 1e-12,
  "max_position_embeddings": 32,
  "num_attention_heads": 2,
  "num_hidden_layers": 2,
  "type_vocab_size": 2,
  "vocab_size": 20
})";

// Words of texts in tests: 20 tokens.
constexpr char kVocabulary[] =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\na\nof\nand\nto\nis\nred\ngreen\n"
    "blue\nhouse\ntree\nriver\nbird\nsings\n##s\n";

class Filler {
 public:
  explicit Filler(std::map<std::string, RawTensor>& tensors)
      : tensors_(tensors) {}

  void Random(const std::string& name, std::vector<int64_t> shape) {
    int64_t size = 1;
    for (const int64_t extent : shape) size *= extent;
    std::vector<float> values(size);
    for (float& value : values) value = normal_(random_);
    tensors_[name] = ToRawTensor(Tensor::FromF32(std::move(shape), values));
  }
  void Linear(const std::string& name, int in, int out) {
    Random(name + ".weight", {out, in});
    Random(name + ".bias", {out});
  }
  void Norm(const std::string& name) {
    Random(name + ".weight", {kHidden});
    Random(name + ".bias", {kHidden});
  }
  void Layer(const std::string& name) {
    for (const char* part : {"query", "key", "value"}) {
      Linear(absl::StrCat(name, ".attention.self.", part), kHidden, kHidden);
    }
    Linear(name + ".attention.output.dense", kHidden, kHidden);
    Norm(name + ".attention.output.LayerNorm");
    Linear(name + ".intermediate.dense", kHidden, kIntermediate);
    Linear(name + ".output.dense", kIntermediate, kHidden);
    Norm(name + ".output.LayerNorm");
  }

 private:
  std::map<std::string, RawTensor>& tensors_;
  std::mt19937 random_{7};
  std::normal_distribution<float> normal_{0, 0.1F};
};

void WriteText(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

}  // namespace

TinyModel::TinyModel() : config(kConfig) {
  Filler fill(tensors);
  fill.Random("embeddings.word_embeddings.weight", {20, kHidden});
  fill.Random("embeddings.position_embeddings.weight", {32, kHidden});
  fill.Random("embeddings.token_type_embeddings.weight", {2, kHidden});
  fill.Norm("embeddings.LayerNorm");
  for (int i = 0; i < kLayers; ++i) {
    fill.Layer(absl::StrCat("encoder.layer.", i));
  }
}

void TinyModel::Set(const std::string& name, const std::vector<float>& values) {
  RawTensor& tensor = tensors.at(name);
  tensor = ToRawTensor(Tensor::FromF32(tensor.shape, values));
}

std::string TinyModel::Write(const std::filesystem::path& directory) const {
  std::filesystem::create_directories(directory / "1_Pooling");
  WriteText(directory / "config.json", config);
  WriteText(directory / "vocab.txt", kVocabulary);
  WriteText(directory / "pytorch_model.bin", "weights of another kind");
  WriteText(directory / "modules.json", R"([
    {"idx": 0, "name": "0", "path": "",
     "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling",
     "type": "sentence_transformers.models.Pooling"}])");
  WriteText(directory / "1_Pooling" / "config.json",
            R"({"word_embedding_dimension": 64,
                "pooling_mode_cls_token": false,
                "pooling_mode_mean_tokens": true,
                "pooling_mode_max_tokens": false})");
  const absl::Status written =
      WriteSafetensors(directory / "model.safetensors", tensors, {});
  EXPECT_TRUE(written.ok()) << written;
  return directory.string();
}

std::filesystem::path FreshDirectory() {
  const testing::TestInfo* test =
      testing::UnitTest::GetInstance()->current_test_info();
  const std::filesystem::path path =
      std::filesystem::path(testing::TempDir()) /
      absl::StrCat(test->test_suite_name(), ".", test->name());
  std::filesystem::remove_all(path);
  std::filesystem::create_directories(path);
  return path;
}

std::string ReadText(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace svdserve
