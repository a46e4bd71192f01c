#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "engine/text/json_parts.h"
#include "engine/text/tokenizer_files.h"
#include "engine/text/unicode.h"

namespace svdserve {
namespace {

using json_parts::Invalid;
using json_parts::Json;
using json_parts::ReadId;
using json_parts::Unsupported;
using Model = TokenizerSpec::Model;

std::string TypeOf(const Json& json) {
  return json.is_null() ? "null" : json.value("type", "");
}

// Follows Sequences that hold just one element, under `key`.
const Json& OnlyElement(const Json& json, const char* key) {
  const Json* at = &json;
  while (TypeOf(*at) == "Sequence" && at->at(key).size() == 1) {
    at = &at->at(key)[0];
  }
  return *at;
}

absl::Status ReadBertNormalizer(const Json& json, NormalizerOptions* out) {
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

// The post-processor's own tokens, ["</s>", 2]: their ids in `ids`.
absl::Status ReadClsAndSep(const Json& processor, int32_t (*ids)[2]) {
  for (int i = 0; i < 2; ++i) {
    const Json& token = processor.at(i == 0 ? "cls" : "sep");
    absl::StatusOr<int32_t> id =
        ReadId(token.at(1), token.at(0).get<std::string>());
    if (!id.ok()) return id.status();
    (*ids)[i] = *id;
  }
  return absl::OkStatus();
}

absl::Status ReadPostProcessor(const Json& json, TokenizerSpec* spec) {
  const Json& processor = OnlyElement(json, "processors");
  const std::string type = TypeOf(processor);
  int32_t ids[2];
  if (type == "null") {
    spec->single = {{TemplatePiece::kFirst, 0, {}}};
    spec->pair = {{TemplatePiece::kFirst, 0, {}},
                  {TemplatePiece::kSecond, 1, {}}};
    return absl::OkStatus();
  }
  if (type == "BertProcessing") {
    absl::Status status = ReadClsAndSep(processor, &ids);
    if (!status.ok()) return status;
    json_parts::SetBertTemplates(ids[0], ids[1], spec);
    return absl::OkStatus();
  }
  if (type == "RobertaProcessing" && spec->model == Model::kBpe) {
    absl::Status status = ReadClsAndSep(processor, &ids);
    if (!status.ok()) return status;
    json_parts::SetRobertaTemplates(ids[0], ids[1], spec);
    spec->bpe.trim_offsets = processor.at("trim_offsets").get<bool>();
    spec->bpe.keep_prefix_space = processor.at("add_prefix_space").get<bool>();
    return absl::OkStatus();
  }
  if (type != "TemplateProcessing") {
    return Unsupported("a post_processor", type,
                       spec->model == Model::kBpe
                           ? "one RobertaProcessing, TemplateProcessing or "
                             "BertProcessing"
                           : "one TemplateProcessing or BertProcessing");
  }
  const Json& tokens = processor.at("special_tokens");
  absl::Status status =
      ReadTemplate(processor.at("single"), tokens, false, &spec->single);
  if (!status.ok()) return status;
  return ReadTemplate(processor.at("pair"), tokens, true, &spec->pair);
}

absl::Status ReadWordPiece(const Json& json, TokenizerSpec* spec) {
  WordPieceOptions& options = spec->word_piece;
  options.unk_token = json.at("unk_token").get<std::string>();
  options.continuing_subword_prefix =
      json.at("continuing_subword_prefix").get<std::string>();
  const Json& max_chars = json.at("max_input_chars_per_word");
  if (!max_chars.is_number_unsigned()) {
    return Invalid("max_input_chars_per_word is " + max_chars.dump() +
                   ", not an integer from 0");
  }
  options.max_input_chars_per_word = max_chars.get<size_t>();
  return json_parts::ReadVocab(json.at("vocab"), spec);
}

// True if the key is there and not null, false, 0 or "".
bool IsSet(const Json& json, const char* key) {
  const auto it = json.find(key);
  return it != json.end() && !it->is_null() && *it != Json(false) &&
         *it != Json(0) && *it != Json("");
}

absl::Status ReadBpe(const Json& json, TokenizerSpec* spec) {
  for (const char* key : {"dropout", "continuing_subword_prefix",
                          "end_of_word_suffix", "byte_fallback"}) {
    if (IsSet(json, key)) {
      return absl::UnimplementedError(
          absl::StrCat("BPE with ", key, " is not supported"));
    }
  }
  BpeOptions& options = spec->bpe;
  if (IsSet(json, "unk_token")) {
    options.unk_token = json.at("unk_token").get<std::string>();
  }
  options.fuse_unk = IsSet(json, "fuse_unk");
  options.ignore_merges = IsSet(json, "ignore_merges");
  for (const Json& merge : json.at("merges")) {
    if (merge.is_string()) {
      const auto& line = merge.get_ref<const std::string&>();
      if (line.rfind("#version", 0) == 0) continue;
      absl::Status status = json_parts::ReadMerge(line, &options);
      if (!status.ok()) return status;
    } else {
      options.merges.emplace_back(merge.at(0).get<std::string>(),
                                  merge.at(1).get<std::string>());
    }
  }
  return json_parts::ReadVocab(json.at("vocab"), spec);
}

double PowerOfTen(int exponent) {
  const std::string text = "1e" + std::to_string(exponent);
  double out = 0;
  std::from_chars(text.data(), text.data() + text.size(), out);
  return out;
}

// A number as Hugging Face reads it: serde_json takes the digits as an integer
// and divides by a power of ten, which may differ from the nearest number in
// the last bit. The digits are taken to be the shortest, as all writers do.
double AsSerdeReads(double value) {
  char text[32];
  const char* const end =
      std::to_chars(text, text + sizeof(text), std::abs(value),
                    std::chars_format::scientific)
          .ptr;
  uint64_t digits = 0;
  int exponent = 0;
  bool in_fraction = false;
  const char* p = text;
  for (; p < end && *p != 'e'; ++p) {
    if (*p == '.') {
      in_fraction = true;
      continue;
    }
    digits = digits * 10 + static_cast<uint64_t>(*p - '0');
    exponent -= in_fraction ? 1 : 0;
  }
  int written = 0;  // "e-07", "e+01"
  if (p < end) std::from_chars(p + (p[1] == '+' ? 2 : 1), end, written);
  exponent += written;
  auto out = static_cast<double>(digits);
  for (; exponent < -308 && out != 0; exponent += 308) out /= 1e308;
  if (exponent < 0) {
    out /= PowerOfTen(-exponent);
  } else if (exponent > 0) {
    out *= PowerOfTen(exponent);
  }
  return value < 0 ? -out : out;
}

absl::Status ReadUnigram(const Json& json, TokenizerSpec* spec) {
  UnigramOptions& options = spec->unigram;
  const Json& unk_id = json.at("unk_id");
  if (unk_id.is_null()) {
    return absl::UnimplementedError("Unigram without unk_id is not supported");
  }
  absl::StatusOr<int32_t> unk = ReadId(unk_id, "unk_id");
  if (!unk.ok()) return unk.status();
  options.unk_id = *unk;
  options.byte_fallback = IsSet(json, "byte_fallback");
  const Json& vocab = json.at("vocab");
  absl::flat_hash_set<std::string_view> seen;
  seen.reserve(vocab.size());
  spec->vocab.reserve(vocab.size());
  for (const Json& piece : vocab) {
    const auto& token = piece.at(0).get_ref<const std::string&>();
    if (!seen.insert(token).second) {
      return Invalid("token '" + token + "' is there twice");
    }
    const auto id = static_cast<int32_t>(spec->vocab.size());
    spec->vocab.push_back({token, id});
    options.scores.push_back(AsSerdeReads(piece.at(1).get<double>()));
  }
  return absl::OkStatus();
}

// Files of old versions do not name the type.
std::string ModelType(const Json& json) {
  if (json.contains("type")) return json.at("type").get<std::string>();
  if (json.contains("merges")) return "BPE";
  return json.at("vocab").is_array() ? "Unigram" : "WordPiece";
}

absl::Status ReadModel(const Json& json, TokenizerSpec* spec) {
  const std::string type = ModelType(json);
  if (type == "WordPiece") {
    spec->model = Model::kWordPiece;
    return ReadWordPiece(json, spec);
  }
  if (type == "BPE") {
    spec->model = Model::kBpe;
    return ReadBpe(json, spec);
  }
  if (type == "Unigram") {
    spec->model = Model::kUnigram;
    return ReadUnigram(json, spec);
  }
  return Unsupported("a model", type, "WordPiece, BPE and Unigram");
}

absl::StatusOr<NormalizerStep> ReadReplace(const Json& json) {
  NormalizerStep step;
  step.content = json.at("content").get<std::string>();
  const Json& pattern = json.at("pattern");
  if (pattern.contains("String")) {
    step.kind = NormalizerStep::kReplace;
    step.pattern = pattern.at("String").get<std::string>();
    if (!step.pattern.empty()) return step;
    return Invalid("Replace has an empty pattern");
  }
  if (pattern.at("Regex") == " {2,}") {
    step.kind = NormalizerStep::kReplaceSpaces;
    return step;
  }
  return Unsupported("Replace with a pattern", pattern.dump(),
                     "a String, and the Regex ' {2,}'");
}

absl::StatusOr<NormalizerStep> ReadNormalizerStep(const Json& json) {
  const std::string type = TypeOf(json);
  NormalizerStep step;
  if (type == "Precompiled") {
    const auto& text =
        json.at("precompiled_charsmap").get_ref<const std::string&>();
    if (absl::Base64Unescape(text, &step.content)) return step;
    return Invalid("precompiled_charsmap is not base64");
  }
  if (type == "Strip") {
    step.kind = NormalizerStep::kStrip;
    step.left = json.at("strip_left").get<bool>();
    step.right = json.at("strip_right").get<bool>();
    return step;
  }
  if (type == "Replace") return ReadReplace(json);
  return Unsupported("a normalizer", type,
                     "Precompiled, Strip and Replace, for a Unigram model");
}

absl::Status ReadUnigramNormalizer(const Json& json, UnigramOptions* out) {
  if (json.is_null()) return absl::OkStatus();
  const bool is_sequence = TypeOf(json) == "Sequence";
  const Json steps = is_sequence ? json.at("normalizers") : Json::array({json});
  for (const Json& part : steps) {
    absl::StatusOr<NormalizerStep> step = ReadNormalizerStep(part);
    if (!step.ok()) return step.status();
    out->normalizer.push_back(*std::move(step));
  }
  return absl::OkStatus();
}

absl::Status ReadNormalizer(const Json& json, TokenizerSpec* spec) {
  switch (spec->model) {
    case Model::kWordPiece:
      return ReadBertNormalizer(json, &spec->word_piece.normalizer);
    case Model::kUnigram:
      return ReadUnigramNormalizer(json, &spec->unigram);
    case Model::kBpe:
      break;
  }
  if (json.is_null()) return absl::OkStatus();
  return Unsupported("a normalizer", TypeOf(json), "null, for a BPE model");
}

absl::Status ReadByteLevel(const Json& json, BpeOptions* out) {
  const Json& byte_level = OnlyElement(json, "pretokenizers");
  if (TypeOf(byte_level) != "ByteLevel") {
    return Unsupported("a pre_tokenizer", TypeOf(byte_level),
                       "one ByteLevel, for a BPE model");
  }
  out->add_prefix_space = byte_level.at("add_prefix_space").get<bool>();
  out->use_regex = byte_level.value("use_regex", true);
  return absl::OkStatus();
}

absl::Status ReadMetaspace(const Json& json, UnigramOptions* out) {
  out->replacement = json.at("replacement").get<std::string>();
  if (unicode::CountCodePoints(out->replacement) != 1) {
    return Invalid("Metaspace has the replacement '" + out->replacement +
                   "', not one character");
  }
  out->split = json.value("split", true);
  const std::string scheme = json.value("prepend_scheme", "always");
  const std::pair<const char*, UnigramOptions::Prepend> kSchemes[] = {
      {"always", UnigramOptions::Prepend::kAlways},
      {"first", UnigramOptions::Prepend::kFirst},
      {"never", UnigramOptions::Prepend::kNever}};
  const auto* found =
      std::find_if(std::begin(kSchemes), std::end(kSchemes),
                   [&](const auto& known) { return scheme == known.first; });
  if (found == std::end(kSchemes)) {
    return Invalid("Metaspace has prepend_scheme '" + scheme +
                   "', not always, first or never");
  }
  out->prepend = found->second;
  const bool add = !json.contains("add_prefix_space") ||
                   json.at("add_prefix_space") != Json(false);
  if (!add && out->prepend != UnigramOptions::Prepend::kNever) {
    return Invalid(
        "Metaspace has add_prefix_space false, but prepend_scheme '" + scheme +
        "'");
  }
  return absl::OkStatus();
}

absl::Status ReadUnigramPreTokenizer(const Json& json, UnigramOptions* out) {
  const Json* metaspace = &OnlyElement(json, "pretokenizers");
  if (TypeOf(*metaspace) == "Sequence") {
    const Json& parts = metaspace->at("pretokenizers");
    if (parts.size() == 2 && TypeOf(parts[0]) == "WhitespaceSplit") {
      out->whitespace_split = true;
      metaspace = &parts[1];
    }
  }
  if (TypeOf(*metaspace) == "Metaspace") return ReadMetaspace(*metaspace, out);
  return Unsupported("a pre_tokenizer", TypeOf(*metaspace),
                     "Metaspace, maybe after a WhitespaceSplit, for a Unigram "
                     "model");
}

absl::Status ReadPreTokenizer(const Json& json, TokenizerSpec* spec) {
  switch (spec->model) {
    case Model::kBpe:
      return ReadByteLevel(json, &spec->bpe);
    case Model::kUnigram:
      return ReadUnigramPreTokenizer(json, &spec->unigram);
    case Model::kWordPiece:
      break;
  }
  const std::string type = TypeOf(OnlyElement(json, "pretokenizers"));
  if (type == "BertPreTokenizer") return absl::OkStatus();
  return Unsupported("a pre_tokenizer", type,
                     "one BertPreTokenizer, for a WordPiece model");
}

absl::Status ReadTokenizerJson(std::string_view contents, std::string* where,
                               TokenizerSpec* spec) {
  const Json json = Json::parse(contents.begin(), contents.end());
  const std::string name = *where;
  const auto part = [&](const char* key) -> const Json& {
    static const Json* const kNull = new Json();
    *where = name + ": " + key;
    const auto it = json.find(key);
    return it == json.end() ? *kNull : *it;
  };
  absl::Status status = ReadModel(part("model"), spec);
  if (status.ok()) status = ReadNormalizer(part("normalizer"), spec);
  if (status.ok()) status = ReadPreTokenizer(part("pre_tokenizer"), spec);
  if (status.ok()) status = ReadPostProcessor(part("post_processor"), spec);
  if (!status.ok()) return status;
  for (const Json& token : part("added_tokens")) {
    spec->added_tokens.push_back(json_parts::ReadAddedToken(token));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerSpec> ParseTokenizerJson(std::string_view name,
                                                 std::string_view contents) {
  return json_parts::ParseGuarded(
      name, [&](TokenizerSpec* spec, std::string* where) {
        return ReadTokenizerJson(contents, where, spec);
      });
}

}  // namespace svdserve
