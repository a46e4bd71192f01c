// A small random BERT in a directory, for tests of the offline tools.
#ifndef SVDSERVE_TESTS_TOOLS_TINY_MODEL_H_
#define SVDSERVE_TESTS_TOOLS_TINY_MODEL_H_

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "engine/model/safetensors.h"

namespace svdserve {

// Hidden 64, two heads, intermediate 128, two layers, vocabulary 20. Each test
// changes what it is about and writes it.
struct TinyModel {
  TinyModel();

  // Replaces the values of a tensor that exists; the shape stays.
  void Set(const std::string& name, const std::vector<float>& values);

  // Makes `directory`; returns it.
  std::string Write(const std::filesystem::path& directory) const;

  std::string config;  // config.json
  std::map<std::string, RawTensor> tensors;
};

// A fresh empty directory under testing::TempDir(), named after the test.
std::filesystem::path FreshDirectory();

std::string ReadText(const std::filesystem::path& path);

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_TOOLS_TINY_MODEL_H_
