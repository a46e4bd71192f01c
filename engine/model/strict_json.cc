#include "engine/model/strict_json.h"

#include <filesystem>
#include <fstream>
#include <set>
#include <system_error>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace svdserve {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 32;
constexpr uint64_t kMaxJsonFile = 8 << 20;

// First pass: builds nothing, so that hostile text costs no memory.
class Checker : public nlohmann::json_sax<json> {
 public:
  const std::string& error() const { return error_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_array(std::size_t) override { return Push(); }
  bool end_array() override { return Pop(); }
  bool start_object(std::size_t) override { return Push(); }
  bool end_object() override { return Pop(); }

  bool key(string_t& name) override {
    if (keys_.back().insert(name).second) return true;
    error_ = absl::StrCat("key \"", name, "\" occurs twice");
    return false;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const json::exception&) override {
    error_ = absl::StrCat("not valid JSON at byte ", position);
    return false;
  }

 private:
  bool Push() {
    keys_.emplace_back();
    if (keys_.size() <= kMaxDepth) return true;
    error_ = absl::StrCat("nested deeper than ", kMaxDepth, " levels");
    return false;
  }
  bool Pop() {
    keys_.pop_back();
    return true;
  }

  std::vector<std::set<std::string>> keys_;  // of each open object
  std::string error_;
};

}  // namespace

absl::StatusOr<json> ParseStrictJson(std::string_view text,
                                     const std::string& source) {
  Checker checker;
  if (!json::sax_parse(text, &checker)) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": ", checker.error()));
  }
  return json::parse(text, nullptr, /*allow_exceptions=*/false);
}

absl::StatusOr<json> ReadStrictJson(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    return absl::NotFoundError(absl::StrCat(path, ": no such file"));
  }
  if (!std::filesystem::is_regular_file(path, error)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a file"));
  }
  std::ifstream file(path, std::ios::binary);
  std::string text;
  std::vector<char> block(64 << 10);
  while (file.read(block.data(), block.size()) || file.gcount() > 0) {
    text.append(block.data(), file.gcount());
    if (text.size() > kMaxJsonFile) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": longer than ", kMaxJsonFile,
                       " bytes, which no configuration file is"));
    }
  }
  if (!file.eof()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": cannot be read"));
  }
  return ParseStrictJson(text, path);
}

}  // namespace svdserve
