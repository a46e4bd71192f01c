#include "tools/load/lengths.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace svdserve {
namespace {

constexpr int kLongestText = 1 << 20;
constexpr int kSpecialTokens = 2;

// Each is one token of the English BERT vocabularies.
constexpr std::array<const char*, 48> kWords = {
    "time",   "year",  "people", "way",    "day",    "man",    "thing", "woman",
    "life",   "child", "world",  "school", "state",  "family", "house", "group",
    "city",   "money", "water",  "room",   "mother", "area",   "story", "fact",
    "month",  "lot",   "right",  "study",  "book",   "eye",    "job",   "word",
    "the",    "of",    "and",    "in",     "to",     "was",    "is",    "for",
    "market", "model", "river",  "music",  "light",  "road",   "north", "new"};

absl::Status WrongDescription(const std::string& description) {
  return absl::InvalidArgumentError(absl::StrCat(
      "wrong lengths \"", description,
      "\"; expected fixed:N, uniform:A-B with 1 <= A <= B <= ", kLongestText,
      ", or file:PATH"));
}

absl::StatusOr<std::vector<std::string>> ReadLines(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty()) lines.push_back(std::move(line));
  }
  if (lines.empty()) {
    return absl::NotFoundError(
        absl::StrCat("cannot read a line of text from ", path));
  }
  return lines;
}

}  // namespace

std::string TextOfLength(int tokens, Random& random) {
  std::string text;
  const int words = std::max(1, tokens - kSpecialTokens);
  for (int i = 0; i < words; ++i) {
    absl::StrAppend(&text, i > 0 ? " " : "", kWords[random() % kWords.size()]);
  }
  return text;
}

absl::StatusOr<TextSource> TextSource::Parse(const std::string& description) {
  const size_t colon = description.find(':');
  if (colon == std::string::npos) return WrongDescription(description);
  const std::string kind = description.substr(0, colon);
  const std::string rest = description.substr(colon + 1);
  TextSource source;
  if (kind == "file") {
    absl::StatusOr<std::vector<std::string>> lines = ReadLines(rest);
    if (!lines.ok()) return lines.status();
    source.lines_ = *std::move(lines);
    return source;
  }
  const size_t dash = rest.find('-');
  bool good = false;
  if (kind == "fixed") {
    good = absl::SimpleAtoi(rest, &source.least_);
    source.most_ = source.least_;
  } else if (kind == "uniform" && dash != std::string::npos) {
    good = absl::SimpleAtoi(rest.substr(0, dash), &source.least_) &&
           absl::SimpleAtoi(rest.substr(dash + 1), &source.most_);
  }
  if (!good || source.least_ < 1 || source.most_ < source.least_ ||
      source.most_ > kLongestText) {
    return WrongDescription(description);
  }
  return source;
}

std::string TextSource::Next(Random& random) {
  if (!lines_.empty()) return lines_[line_++ % lines_.size()];
  std::uniform_int_distribution<int> length(least_, most_);
  return TextOfLength(length(random), random);
}

}  // namespace svdserve
