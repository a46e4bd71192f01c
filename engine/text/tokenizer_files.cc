#include "engine/text/tokenizer_files.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace svdserve {
namespace {

// The contents of a file; nothing if there is no such file.
absl::StatusOr<std::optional<std::string>> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::optional<std::string>();
  std::ostringstream contents;
  contents << file.rdbuf();
  if (!file || contents.view().empty()) {
    return absl::InvalidArgumentError(path + ": is empty or cannot be read");
  }
  return std::optional<std::string>(std::move(contents).str());
}

absl::Status NothingToRead(const std::string& directory) {
  const std::string pieces = directory + "/sentencepiece.bpe.model";
  std::error_code error;
  if (std::filesystem::exists(pieces, error)) {
    return absl::UnimplementedError(absl::StrCat(
        pieces,
        " is not read; where Python's transformers, sentencepiece and protobuf "
        "are installed, this makes a tokenizer.json of it: python3 -c \"from "
        "transformers import AutoTokenizer as T; T.from_pretrained('",
        directory, "').save_pretrained('", directory, "')\""));
  }
  return absl::NotFoundError(
      absl::StrCat(directory,
                   " holds neither tokenizer.json nor vocab.txt, nor "
                   "vocab.json and merges.txt"));
}

}  // namespace

absl::StatusOr<TokenizerSpec> ReadTokenizerFiles(const std::string& directory) {
  std::map<std::string, std::optional<std::string>> files;
  for (const char* name :
       {"tokenizer.json", "vocab.txt", "vocab.json", "merges.txt",
        "tokenizer_config.json", "special_tokens_map.json"}) {
    auto contents = ReadFile(absl::StrCat(directory, "/", name));
    if (!contents.ok()) return contents.status();
    files[name] = *std::move(contents);
    if (files["tokenizer.json"]) {
      return ParseTokenizerJson(directory + "/tokenizer.json",
                                *files["tokenizer.json"]);
    }
  }
  const std::string config = files["tokenizer_config.json"].value_or("");
  const std::string special = files["special_tokens_map.json"].value_or("");
  if (files["vocab.txt"]) {
    return ParseVocabText(directory + "/vocab.txt", *files["vocab.txt"], config,
                          special);
  }
  if (files["vocab.json"] && files["merges.txt"]) {
    return ParseBpeFiles(
        directory + "/vocab.json",
        {*files["vocab.json"], *files["merges.txt"], config, special});
  }
  return NothingToRead(directory);
}

}  // namespace svdserve
