#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>

#include "engine/text/json_parts.h"
#include "engine/text/tokenizer_files.h"
#include "engine/text/unicode.h"

namespace svdserve {
namespace {

using json_parts::Invalid;
using json_parts::Json;
using json_parts::ReadAddedToken;

// One token a line, ended by \n, \r\n or \r; of equal ones the last counts.
absl::Status ReadVocabLines(std::string_view text, TokenizerSpec* spec) {
  const size_t valid = unicode::ValidPrefix(text);
  if (valid != text.size()) {
    return Invalid("malformed UTF-8 at byte " + std::to_string(valid));
  }
  std::unordered_map<std::string_view, size_t> seen;
  int32_t line = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find_first_of("\r\n"), text.size());
    const std::string_view token = text.substr(0, end);
    const auto [it, is_new] = seen.emplace(token, spec->vocab.size());
    if (is_new) {
      spec->vocab.push_back({std::string(token), line});
    } else {
      spec->vocab[it->second].id = line;
    }
    ++line;
    const size_t newline = text.substr(end, 2) == "\r\n" ? 2 : 1;
    text.remove_prefix(std::min(end + newline, text.size()));
  }
  if (spec->vocab.empty()) return Invalid("holds no tokens");
  return absl::OkStatus();
}

const int32_t* FindId(const TokenizerSpec& spec, const std::string& token) {
  const auto it =
      std::find_if(spec.vocab.begin(), spec.vocab.end(),
                   [&](const auto& entry) { return entry.token == token; });
  return it == spec.vocab.end() ? nullptr : &it->id;
}

Json ParseOrEmpty(std::string_view contents) {
  return contents.empty() ? Json::object()
                          : Json::parse(contents.begin(), contents.end());
}

// The name of a special token: special_tokens_map.json wins over the config;
// both write it as a string or as an object with "content".
struct SpecialTokens {
  const Json& config;
  const Json& map;

  const Json* Find(const std::string& role) const {
    for (const Json* json : {&map, &config}) {
      const auto it = json->find(role);
      if (it != json->end() && !it->is_null()) return &*it;
    }
    return nullptr;
  }
  AddedToken Get(const std::string& role, const char* fallback) const {
    const Json* json = Find(role);
    AddedToken token;
    if (json != nullptr && json->is_object()) {
      token = ReadAddedToken(*json);
    } else {
      token.content = json == nullptr ? fallback : json->get<std::string>();
    }
    token.special = true;
    token.normalized = false;
    return token;
  }
};

absl::Status ReadTokenizerClass(const Json& config,
                                std::initializer_list<const char*> known) {
  const std::string name = config.value("tokenizer_class", *known.begin());
  for (const char* candidate : known) {
    if (name == candidate || name == std::string(candidate) + "Fast") {
      return absl::OkStatus();
    }
  }
  return absl::UnimplementedError(
      absl::StrCat("tokenizer_class '", name,
                   "' is not supported without a tokenizer.json; save one with "
                   "AutoTokenizer.from_pretrained(...).save_pretrained(...)"));
}

void ReadAddedTokensDecoder(const Json& config, TokenizerSpec* spec) {
  const auto decoder = config.find("added_tokens_decoder");
  if (decoder == config.end()) return;
  std::map<int64_t, AddedToken> by_id;  // "10" sorts before "9" in JSON
  for (const auto& [key, value] : decoder->items()) {
    by_id.emplace(std::strtoll(key.c_str(), nullptr, 10),
                  ReadAddedToken(value));
  }
  for (auto& [id, token] : by_id) spec->added_tokens.push_back(token);
}

absl::Status ReadNormalizerConfig(const Json& config, NormalizerOptions* out) {
  out->lowercase = config.value("do_lower_case", true);
  out->handle_chinese_chars = config.value("tokenize_chinese_chars", true);
  const auto strip = config.find("strip_accents");
  out->strip_accents = strip == config.end() || strip->is_null()
                           ? out->lowercase
                           : strip->get<bool>();
  return absl::OkStatus();
}

// Adds the special tokens, of (role, default name), and finds their ids by
// role. One that is named must be in the vocabulary; one that is not named and
// not there does not exist.
using Roles = std::initializer_list<std::pair<const char*, const char*>>;
absl::Status ReadSpecialTokens(const SpecialTokens& tokens, Roles roles,
                               std::map<std::string_view, int32_t>* ids,
                               TokenizerSpec* spec) {
  for (const auto& [role, fallback] : roles) {
    const AddedToken token = tokens.Get(role, fallback);
    const int32_t* id = FindId(*spec, token.content);
    if (id == nullptr) {
      if (tokens.Find(role) == nullptr) continue;
      return Invalid(std::string(role) + " '" + token.content +
                     "' is not in the vocabulary");
    }
    (*ids)[role] = *id;
    spec->added_tokens.push_back(token);
  }
  for (const auto& [role, fallback] : roles) {
    const std::string_view name = role;
    if ((name == "cls_token" || name == "sep_token") && ids->count(name) == 0) {
      return Invalid("the vocabulary lacks " + std::string(fallback) +
                     ", the default of " + role);
    }
  }
  return absl::OkStatus();
}

absl::Status ReadVocabText(std::string_view vocab, std::string_view config_text,
                           std::string_view special_tokens, std::string* where,
                           TokenizerSpec* spec) {
  const std::string name = *where;
  absl::Status status = ReadVocabLines(vocab, spec);
  if (!status.ok()) return status;
  *where = name + ": beside it, special_tokens_map.json";
  const Json map = ParseOrEmpty(special_tokens);
  *where = name + ": beside it, tokenizer_config.json";
  const Json config = ParseOrEmpty(config_text);
  status =
      ReadTokenizerClass(config, {"BertTokenizer", "DistilBertTokenizer",
                                  "ElectraTokenizer", "RetriBertTokenizer"});
  if (status.ok())
    status = ReadNormalizerConfig(config, &spec->word_piece.normalizer);
  if (!status.ok()) return status;
  ReadAddedTokensDecoder(config, spec);
  *where = name;
  const SpecialTokens tokens{config, map};
  spec->word_piece.unk_token = tokens.Get("unk_token", "[UNK]").content;
  std::map<std::string_view, int32_t> ids;
  status = ReadSpecialTokens(tokens,
                             {{"unk_token", "[UNK]"},
                              {"sep_token", "[SEP]"},
                              {"pad_token", "[PAD]"},
                              {"cls_token", "[CLS]"},
                              {"mask_token", "[MASK]"}},
                             &ids, spec);
  if (!status.ok()) return status;
  json_parts::SetBertTemplates(ids["cls_token"], ids["sep_token"], spec);
  return absl::OkStatus();
}

absl::Status ReadMerges(std::string_view text, BpeOptions* bpe) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty() || line.rfind("#version", 0) == 0) continue;
    absl::Status status = json_parts::ReadMerge(line, bpe);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status ReadBpeFiles(const BpeFiles& files, std::string* where,
                          TokenizerSpec* spec) {
  const std::string name = *where;
  spec->model = TokenizerSpec::Model::kBpe;
  absl::Status status = json_parts::ReadVocab(
      Json::parse(files.vocab.begin(), files.vocab.end()), spec);
  if (!status.ok()) return status;
  *where = name + ": beside it, merges.txt";
  status = ReadMerges(files.merges, &spec->bpe);
  if (!status.ok()) return status;
  *where = name + ": beside it, special_tokens_map.json";
  const Json map = ParseOrEmpty(files.special_tokens);
  *where = name + ": beside it, tokenizer_config.json";
  const Json config = ParseOrEmpty(files.config);
  status = ReadTokenizerClass(config, {"RobertaTokenizer"});
  if (!status.ok()) return status;
  spec->bpe.add_prefix_space = config.value("add_prefix_space", false);
  spec->bpe.keep_prefix_space = spec->bpe.add_prefix_space;
  spec->bpe.trim_offsets = config.value("trim_offsets", true);
  ReadAddedTokensDecoder(config, spec);
  *where = name;
  std::map<std::string_view, int32_t> ids;
  status = ReadSpecialTokens({config, map},
                             {{"bos_token", "<s>"},
                              {"eos_token", "</s>"},
                              {"unk_token", "<unk>"},
                              {"sep_token", "</s>"},
                              {"pad_token", "<pad>"},
                              {"cls_token", "<s>"},
                              {"mask_token", "<mask>"}},
                             &ids, spec);
  if (!status.ok()) return status;
  json_parts::SetRobertaTemplates(ids["cls_token"], ids["sep_token"], spec);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerSpec> ParseVocabText(std::string_view name,
                                             std::string_view vocab,
                                             std::string_view config,
                                             std::string_view special_tokens) {
  return json_parts::ParseGuarded(
      name, [&](TokenizerSpec* spec, std::string* where) {
        return ReadVocabText(vocab, config, special_tokens, where, spec);
      });
}

absl::StatusOr<TokenizerSpec> ParseBpeFiles(std::string_view name,
                                            const BpeFiles& files) {
  return json_parts::ParseGuarded(name,
                                  [&](TokenizerSpec* spec, std::string* where) {
                                    return ReadBpeFiles(files, where, spec);
                                  });
}

}  // namespace svdserve
