// Any bytes as the JSON files of a model directory. The input is cut at zero
// bytes into config.json, modules.json and so on (see kFiles).
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "engine/model/bert_config.h"
#include "engine/model/modules.h"
#include "engine/model/strict_json.h"

namespace {

constexpr const char* kFiles[] = {"config.json",
                                  "modules.json",
                                  "1_Pooling/config.json",
                                  "2_Dense/config.json",
                                  "config_sentence_transformers.json",
                                  "sentence_bert_config.json",
                                  "tokenizer_config.json"};

void Require(bool condition) {
  if (!condition) std::abort();
}

// A directory of this process's own, removed with it.
class Scratch {
 public:
  Scratch() {
    std::string name =
        (std::filesystem::temp_directory_path() / "config_fuzz_XXXXXX")
            .string();
    Require(mkdtemp(name.data()) != nullptr);
    path_ = name;
    std::filesystem::create_directories(path_ / "1_Pooling");
    std::filesystem::create_directories(path_ / "2_Dense");
  }
  ~Scratch() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  std::string path() const { return path_.string(); }

  // An absent part is an absent file.
  void Fill(std::string_view data) {
    for (const char* name : kFiles) {
      const size_t end = std::min(data.find('\0'), data.size());
      const std::string_view part = data.substr(0, end);
      data.remove_prefix(std::min(end + 1, data.size()));
      std::filesystem::remove(path_ / name);
      if (part.empty()) continue;
      std::ofstream(path_ / name, std::ios::binary) << part;
    }
  }

 private:
  std::filesystem::path path_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Scratch scratch;
  scratch.Fill({reinterpret_cast<const char*>(data), size});
  int hidden = 64;
  const std::string path = scratch.path() + "/config.json";
  const absl::StatusOr<nlohmann::json> json = svdserve::ReadStrictJson(path);
  if (json.ok()) {
    const absl::StatusOr<svdserve::BertConfig> bert =
        svdserve::ParseBertConfig(*json, path);
    if (bert.ok()) {
      Require(bert->heads > 0 && bert->hidden % bert->heads == 0);
      Require(bert->max_positions > 0 && bert->type_vocab > 0);
      hidden = bert->hidden;
    }
  }
  const absl::StatusOr<svdserve::SentenceModules> modules =
      svdserve::ReadSentenceModules(scratch.path(), hidden);
  if (modules.ok() && !modules->dense.empty()) {
    Require(modules->dense.front().in == hidden);
  }
  return 0;
}
