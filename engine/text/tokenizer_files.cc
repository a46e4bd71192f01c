#include "engine/text/tokenizer_files.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <unordered_map>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/text/unicode.h"

// The library's exceptions stop at Guard(); nothing here throws.

namespace svdserve {
namespace {

using Json = nlohmann::json;

absl::Status Invalid(std::string_view what) {
  return absl::InvalidArgumentError({what.data(), what.size()});
}

// Runs `parse`, which says in *where what it is reading, and puts that and the
// name of the file in front of every error.
template <typename Parse>
absl::StatusOr<TokenizerSpec> Guard(std::string_view name, Parse parse) {
  TokenizerSpec spec;
  std::string where(name);
  absl::Status status;
  try {
    status = parse(&spec, &where);
  } catch (const Json::exception& e) {
    status = absl::InvalidArgumentError(e.what());
  }
  if (status.ok()) return spec;
  return absl::Status(status.code(),
                      absl::StrCat(where, ": ", status.message()));
}

absl::Status Unsupported(std::string_view part, std::string_view type,
                         std::string_view supported) {
  return absl::UnimplementedError(
      absl::StrCat(std::string(part), " of type '", std::string(type),
                   "' is not supported; supported: ", std::string(supported)));
}

std::string TypeOf(const Json& json) {
  return json.is_null() ? "null" : json.value("type", "");
}

absl::StatusOr<int32_t> ReadId(const Json& json, const std::string& token) {
  constexpr auto kMax = std::numeric_limits<int32_t>::max();
  if (!json.is_number_unsigned() || json.get<uint64_t>() > kMax) {
    return Invalid("the id of token '" + token + "' is " + json.dump() +
                   ", not an integer from 0 to " + std::to_string(kMax));
  }
  return json.get<int32_t>();
}

// Follows Sequences that hold just one element, under `key`.
const Json& OnlyElement(const Json& json, const char* key) {
  const Json* at = &json;
  while (TypeOf(*at) == "Sequence" && at->at(key).size() == 1) {
    at = &at->at(key)[0];
  }
  return *at;
}

absl::Status ReadNormalizer(const Json& json, NormalizerOptions* out) {
  const Json& bert = OnlyElement(json, "normalizers");
  if (bert.is_null()) {
    *out = {false, false, false, false};
    return absl::OkStatus();
  }
  if (TypeOf(bert) != "BertNormalizer") {
    return Unsupported("a normalizer", TypeOf(bert), "one BertNormalizer");
  }
  out->clean_text = bert.at("clean_text").get<bool>();
  out->handle_chinese_chars = bert.at("handle_chinese_chars").get<bool>();
  out->lowercase = bert.at("lowercase").get<bool>();
  const auto strip = bert.find("strip_accents");
  out->strip_accents = strip == bert.end() || strip->is_null()
                           ? out->lowercase
                           : strip->get<bool>();
  return absl::OkStatus();
}

absl::Status ReadPreTokenizer(const Json& json) {
  const std::string type = TypeOf(OnlyElement(json, "pretokenizers"));
  if (type == "BertPreTokenizer") return absl::OkStatus();
  return Unsupported("a pre_tokenizer", type, "one BertPreTokenizer");
}

// [CLS] A [SEP] and [CLS] A [SEP] B [SEP].
void SetBertTemplates(int32_t cls, int32_t sep, TokenizerSpec* spec) {
  const auto special = [](int32_t id, uint8_t type_id) {
    return TemplatePiece{TemplatePiece::kSpecial, type_id, {id}};
  };
  spec->single = {
      special(cls, 0), {TemplatePiece::kFirst, 0, {}}, special(sep, 0)};
  spec->pair = spec->single;
  spec->pair.push_back({TemplatePiece::kSecond, 1, {}});
  spec->pair.push_back(special(sep, 1));
}

absl::StatusOr<TemplatePiece> ReadPiece(const Json& json,
                                        const Json& special_tokens) {
  TemplatePiece piece;
  const bool special = json.contains("SpecialToken");
  const Json& body = json.at(special ? "SpecialToken" : "Sequence");
  const auto type_id = body.at("type_id").get<int64_t>();
  if (type_id < 0 || type_id > 255) {
    return Invalid("a template has type_id " + std::to_string(type_id) +
                   ", not 0 to 255");
  }
  piece.type_id = static_cast<uint8_t>(type_id);
  const auto id = body.at("id").get<std::string>();
  if (!special) {
    if (id != "A" && id != "B") {
      return Invalid("a template has sequence '" + id + "', not A or B");
    }
    piece.kind = id == "A" ? TemplatePiece::kFirst : TemplatePiece::kSecond;
    return piece;
  }
  for (const Json& number : special_tokens.at(id).at("ids")) {
    absl::StatusOr<int32_t> token_id = ReadId(number, id);
    if (!token_id.ok()) return token_id.status();
    piece.ids.push_back(*token_id);
  }
  return piece;
}

absl::Status ReadTemplate(const Json& json, const Json& special_tokens,
                          bool pair, Template* out) {
  int uses[3] = {0, 0, 0};  // by TemplatePiece::Kind
  for (const Json& element : json) {
    absl::StatusOr<TemplatePiece> piece = ReadPiece(element, special_tokens);
    if (!piece.ok()) return piece.status();
    ++uses[piece->kind];
    out->push_back(*std::move(piece));
  }
  if (uses[TemplatePiece::kFirst] != 1 ||
      uses[TemplatePiece::kSecond] != (pair ? 1 : 0)) {
    return Invalid(pair ? "the pair template must hold A and B once each"
                        : "the single template must hold A once, and no B");
  }
  return absl::OkStatus();
}

absl::Status ReadPostProcessor(const Json& json, TokenizerSpec* spec) {
  const Json& processor = OnlyElement(json, "processors");
  const std::string type = TypeOf(processor);
  if (type == "null") {
    spec->single = {{TemplatePiece::kFirst, 0, {}}};
    spec->pair = {{TemplatePiece::kFirst, 0, {}},
                  {TemplatePiece::kSecond, 1, {}}};
    return absl::OkStatus();
  }
  if (type == "BertProcessing") {
    int32_t ids[2];
    for (int i = 0; i < 2; ++i) {
      const Json& token = processor.at(i == 0 ? "cls" : "sep");
      absl::StatusOr<int32_t> id =
          ReadId(token.at(1), token.at(0).get<std::string>());
      if (!id.ok()) return id.status();
      ids[i] = *id;
    }
    SetBertTemplates(ids[0], ids[1], spec);
    return absl::OkStatus();
  }
  if (type != "TemplateProcessing") {
    return Unsupported("a post_processor", type,
                       "one TemplateProcessing or BertProcessing");
  }
  const Json& tokens = processor.at("special_tokens");
  absl::Status status =
      ReadTemplate(processor.at("single"), tokens, false, &spec->single);
  if (!status.ok()) return status;
  return ReadTemplate(processor.at("pair"), tokens, true, &spec->pair);
}

AddedToken ReadAddedToken(const Json& json) {
  AddedToken token;
  token.content = json.at("content").get<std::string>();
  token.special = json.value("special", false);
  token.normalized = json.value("normalized", !token.special);
  token.single_word = json.value("single_word", false);
  token.lstrip = json.value("lstrip", false);
  token.rstrip = json.value("rstrip", false);
  return token;
}

absl::Status ReadModel(const Json& json, TokenizerSpec* spec) {
  const std::string type = json.value("type", "WordPiece");
  if (type != "WordPiece") return Unsupported("a model", type, "WordPiece");
  spec->unk_token = json.at("unk_token").get<std::string>();
  spec->continuing_subword_prefix =
      json.at("continuing_subword_prefix").get<std::string>();
  const Json& max_chars = json.at("max_input_chars_per_word");
  if (!max_chars.is_number_unsigned()) {
    return Invalid("max_input_chars_per_word is " + max_chars.dump() +
                   ", not an integer from 0");
  }
  spec->max_input_chars_per_word = max_chars.get<size_t>();
  for (const auto& [token, number] :
       json.at("vocab").get_ref<const Json::object_t&>()) {
    absl::StatusOr<int32_t> id = ReadId(number, token);
    if (!id.ok()) return id.status();
    spec->vocab.push_back({token, *id});
  }
  return absl::OkStatus();
}

absl::Status ReadTokenizerJson(std::string_view contents, std::string* where,
                               TokenizerSpec* spec) {
  const Json json = Json::parse(contents.begin(), contents.end());
  const std::string name = *where;
  const auto part = [&](const char* key) {
    *where = name + ": " + key;
    const auto it = json.find(key);
    return it == json.end() ? Json() : *it;
  };
  absl::Status status = ReadModel(part("model"), spec);
  if (status.ok()) {
    status = ReadNormalizer(part("normalizer"), &spec->normalizer);
  }
  if (status.ok()) status = ReadPreTokenizer(part("pre_tokenizer"));
  if (status.ok()) status = ReadPostProcessor(part("post_processor"), spec);
  if (!status.ok()) return status;
  for (const Json& token : part("added_tokens")) {
    spec->added_tokens.push_back(ReadAddedToken(token));
  }
  return absl::OkStatus();
}

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

absl::Status ReadTokenizerClass(const Json& config) {
  const std::string name = config.value("tokenizer_class", "BertTokenizer");
  for (const char* known : {"BertTokenizer", "DistilBertTokenizer",
                            "ElectraTokenizer", "RetriBertTokenizer"}) {
    if (name == known || name == std::string(known) + "Fast") {
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

// A special token that is named must be in the vocabulary; one that is not
// named and not there does not exist.
absl::Status ReadSpecialTokens(const SpecialTokens& tokens,
                               TokenizerSpec* spec) {
  const std::pair<const char*, const char*> kRoles[] = {
      {"unk_token", "[UNK]"},
      {"sep_token", "[SEP]"},
      {"pad_token", "[PAD]"},
      {"cls_token", "[CLS]"},
      {"mask_token", "[MASK]"}};
  std::map<std::string_view, int32_t> ids;  // by role
  for (const auto& [role, fallback] : kRoles) {
    const AddedToken token = tokens.Get(role, fallback);
    const int32_t* id = FindId(*spec, token.content);
    if (id == nullptr) {
      if (tokens.Find(role) == nullptr) continue;
      return Invalid(std::string(role) + " '" + token.content +
                     "' is not in the vocabulary");
    }
    ids[role] = *id;
    spec->added_tokens.push_back(token);
    if (role == kRoles[0].first) spec->unk_token = token.content;
  }
  if (ids.count("cls_token") == 0 || ids.count("sep_token") == 0) {
    return Invalid("the vocabulary lacks [CLS] or [SEP]");
  }
  SetBertTemplates(ids["cls_token"], ids["sep_token"], spec);
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
  status = ReadTokenizerClass(config);
  if (status.ok()) status = ReadNormalizerConfig(config, &spec->normalizer);
  if (!status.ok()) return status;
  ReadAddedTokensDecoder(config, spec);
  *where = name;
  return ReadSpecialTokens({config, map}, spec);
}

// The contents of a file; nothing if there is no such file.
absl::StatusOr<std::optional<std::string>> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::optional<std::string>();
  std::ostringstream contents;
  contents << file.rdbuf();
  if (!file || contents.str().empty()) {
    return absl::InvalidArgumentError(path + ": is empty or cannot be read");
  }
  return std::optional<std::string>(std::move(contents).str());
}

}  // namespace

absl::StatusOr<TokenizerSpec> ParseTokenizerJson(std::string_view name,
                                                 std::string_view contents) {
  return Guard(name, [&](TokenizerSpec* spec, std::string* where) {
    return ReadTokenizerJson(contents, where, spec);
  });
}

absl::StatusOr<TokenizerSpec> ParseVocabText(std::string_view name,
                                             std::string_view vocab,
                                             std::string_view config,
                                             std::string_view special_tokens) {
  return Guard(name, [&](TokenizerSpec* spec, std::string* where) {
    return ReadVocabText(vocab, config, special_tokens, where, spec);
  });
}

absl::StatusOr<TokenizerSpec> ReadTokenizerFiles(const std::string& directory) {
  const char* kNames[] = {"tokenizer.json", "vocab.txt",
                          "tokenizer_config.json", "special_tokens_map.json"};
  std::optional<std::string> files[4];
  for (int i = 0; i < 4; ++i) {
    auto contents = ReadFile(directory + "/" + kNames[i]);
    if (!contents.ok()) return contents.status();
    files[i] = *std::move(contents);
    if (i == 0 && files[0]) {
      return ParseTokenizerJson(directory + "/tokenizer.json", *files[0]);
    }
  }
  if (!files[1]) {
    return absl::NotFoundError(directory +
                               " holds neither tokenizer.json nor vocab.txt");
  }
  return ParseVocabText(directory + "/vocab.txt", *files[1],
                        files[2].value_or(""), files[3].value_or(""));
}

}  // namespace svdserve
