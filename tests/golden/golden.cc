#include "tests/golden/golden.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "nlohmann/json.hpp"

namespace svdserve {
namespace {

using nlohmann::json;

constexpr char kModels[] = "tests/golden/models";

GoldenInput ReadInput(const json& item) {
  GoldenInput input;
  input.ids = item.at("ids").get<std::vector<int32_t>>();
  input.type_ids = item.at("type_ids").get<std::vector<uint8_t>>();
  input.output = item.at("output").get<std::vector<double>>();
  input.text = item.value("text", "");
  if (item.contains("pair")) input.pair = item["pair"].get<std::string>();
  input.prompt = item.value("prompt", "");
  return input;
}

}  // namespace

std::vector<std::string> GoldenModelNames() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kModels)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

GoldenModel ReadGoldenModel(const std::string& name) {
  GoldenModel model;
  model.name = name;
  model.directory = std::string(kModels) + "/" + name;
  std::ifstream file(model.directory + "/golden.json");
  const json golden = json::parse(file);
  for (const json& item : golden.at("inputs")) {
    model.inputs.push_back(ReadInput(item));
  }
  return model;
}

}  // namespace svdserve
