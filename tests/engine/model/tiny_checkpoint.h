// A model of a few kilobytes that tests write, bend and load: one layer, one
// head of width 16, or more.
//
//   TinyCheckpoint tiny;
//   tiny.tensors.erase("encoder.layer.0.output.dense.bias");
//   absl::StatusOr<Model> model = LoadModel(tiny.Write());
#ifndef SVDSERVE_TESTS_ENGINE_MODEL_TINY_CHECKPOINT_H_
#define SVDSERVE_TESTS_ENGINE_MODEL_TINY_CHECKPOINT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/model/safetensors.h"
#include "nlohmann/json.hpp"

namespace svdserve {

// F32, small distinct values.
RawTensor SomeWeights(const std::vector<int64_t>& shape);

struct TinyCheckpoint {
  static constexpr char kQuery[] = "encoder.layer.0.attention.self.query";
  static constexpr char kFfnIn[] = "encoder.layer.0.intermediate.dense";

  explicit TinyCheckpoint(int heads = 1);  // a BERT
  // The same of another architecture, as its own library names its parts.
  // Positions of the first two begin at 2, after pad_token_id.
  static TinyCheckpoint Roberta();
  static TinyCheckpoint XlmRoberta();
  static TinyCheckpoint DistilBert();

  // Into a new directory under testing::TempDir(); returns it.
  std::string Write() const;
  // Replaces NAME.weight by factors of these shapes.
  void Factor(const std::string& name, const std::vector<int64_t>& u,
              const std::vector<int64_t>& v);
  void Add(const std::string& name, const std::vector<int64_t>& shape) {
    tensors[name] = SomeWeights(shape);
  }
  // NAME.weight [out, in] and NAME.bias.
  void AddLinear(const std::string& name, int64_t in, int64_t out) {
    Add(name + ".weight", {out, in});
    Add(name + ".bias", {out});
  }
  // Renames all tensors whose names begin with `from`; puts `to` there.
  void Rename(const std::string& from, const std::string& to);

  nlohmann::json config;                     // config.json
  std::map<std::string, RawTensor> tensors;  // model.safetensors
  SafetensorsMetadata metadata;              // of it
  std::map<std::string, std::string> files;  // others, by relative path
};

// A directory of this name, empty, under testing::TempDir().
std::string FreshDirectory(const std::string& name);
void WriteFile(const std::string& path, const std::string& content);
std::string ReadFile(const std::string& path);

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_ENGINE_MODEL_TINY_CHECKPOINT_H_
