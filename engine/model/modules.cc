#include "engine/model/modules.h"

#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/model/checkpoint.h"
#include "engine/model/json_fields.h"
#include "engine/model/strict_json.h"

namespace svdserve {
namespace {

using nlohmann::json;

constexpr int kMaxWidth = 1 << 16;
constexpr int kMaxTokens = 1 << 20;

bool Exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

absl::Status Unimplemented(const std::string& source, const std::string& what) {
  return absl::UnimplementedError(absl::StrCat(source, ": ", what));
}

// "torch.nn.modules.activation.Tanh" -> "Tanh".
std::string LastComponent(const std::string& dotted) {
  return dotted.substr(dotted.rfind('.') + 1);
}

// The mode by its name, in today's spelling or that of the old flags.
std::optional<Pooling> PoolingOf(std::string_view name) {
  if (name == "mean" || name == "mean_tokens") return Pooling::kMean;
  if (name == "cls" || name == "cls_token") return Pooling::kCls;
  if (name == "max" || name == "max_tokens") return Pooling::kMax;
  return std::nullopt;
}

// The names of the modes that a Pooling configuration switches on: the one (or
// list) under pooling_mode, or every pooling_mode_NAME that is true.
std::vector<std::string> PoolingModes(const json& config, JsonFields& fields) {
  constexpr std::string_view kFlag = "pooling_mode_";
  std::vector<std::string> modes;
  if (fields.Has("pooling_mode")) {
    const json& mode = config["pooling_mode"];
    const json list = mode.is_array() ? mode : json::array({mode});
    for (const json& item : list) {
      if (item.is_string()) modes.push_back(item.get<std::string>());
    }
    if (modes.size() != list.size()) {
      fields.Fail("pooling_mode", "must be a name or a list of names");
    }
    return modes;
  }
  for (const auto& [key, value] : config.items()) {
    if (!std::string_view(key).starts_with(kFlag)) continue;
    if (fields.Bool(key, false)) modes.push_back(key.substr(kFlag.size()));
  }
  return modes;
}

absl::Status ReadPooling(const std::string& path, int hidden,
                         SentenceModules& modules) {
  absl::StatusOr<json> config = ReadStrictJson(path);
  if (!config.ok()) return config.status();
  JsonFields fields(*config, path);
  if (!fields.status().ok()) return fields.status();
  const char* key = fields.Has("embedding_dimension")
                        ? "embedding_dimension"
                        : "word_embedding_dimension";
  if (fields.Int(key, 1, kMaxWidth, hidden) != hidden) {
    fields.Fail(key,
                absl::StrCat("differs from the encoder's width, ", hidden));
  }
  const std::vector<std::string> modes = PoolingModes(*config, fields);
  if (!fields.status().ok()) return fields.status();
  if (modes.size() != 1) {
    return Unimplemented(path, absl::StrCat("switches on ", modes.size(),
                                            " pooling modes; exactly one of "
                                            "mean, cls, max is served"));
  }
  const std::optional<Pooling> pooling = PoolingOf(modes[0]);
  if (!pooling.has_value()) {
    return Unimplemented(path, absl::StrCat("pooling mode \"", modes[0],
                                            "\"; served are mean, cls, max"));
  }
  if (!modules.prompts.empty() && !fields.Bool("include_prompt", true)) {
    fields.Unimplemented("include_prompt",
                         "is false; a prompt's tokens are always pooled");
  }
  modules.pooling = *pooling;
  return fields.status();
}

HeadActivation ParseActivation(JsonFields& fields) {
  const std::string path =
      fields.String("activation_function", "torch.nn.modules.activation.Tanh");
  const std::string name = LastComponent(path);
  if (name == "Tanh") return HeadActivation::kTanh;
  if (name == "Identity") return HeadActivation::kIdentity;
  if (name == "ReLU") return HeadActivation::kRelu;
  if (name == "GELU") return HeadActivation::kGelu;
  fields.Unimplemented(
      "activation_function",
      absl::StrCat("is \"", path,
                   "\"; served are Tanh, Identity, ReLU, GELU of torch.nn"));
  return HeadActivation::kIdentity;
}

absl::Status ReadDense(const std::string& directory, int in,
                       SentenceModules& modules) {
  const std::string path = JoinPath(directory, "config.json");
  absl::StatusOr<json> config = ReadStrictJson(path);
  if (!config.ok()) return config.status();
  JsonFields fields(*config, path);
  DenseModule dense;
  dense.directory = directory;
  dense.in = fields.Int("in_features", 1, kMaxWidth);
  dense.out = fields.Int("out_features", 1, kMaxWidth);
  dense.bias = fields.Bool("bias", true);
  dense.activation = ParseActivation(fields);
  for (const char* key : {"module_input_name", "module_output_name"}) {
    if (fields.String(key, "sentence_embedding") != "sentence_embedding") {
      fields.Unimplemented(key, "must be \"sentence_embedding\"");
    }
  }
  if (fields.status().ok() && dense.in != in) {
    fields.Fail("in_features", absl::StrCat("(", dense.in,
                                            ") differs from the width of what "
                                            "comes before it, ",
                                            in));
  }
  if (!fields.status().ok()) return fields.status();
  modules.dense.push_back(std::move(dense));
  return absl::OkStatus();
}

struct ModuleEntry {
  std::string kind;       // "Pooling"
  std::string directory;  // with its files
};

absl::StatusOr<std::vector<ModuleEntry>> ReadList(
    const std::string& directory) {
  const std::string path = JoinPath(directory, "modules.json");
  absl::StatusOr<json> list = ReadStrictJson(path);
  if (!list.ok()) return list.status();
  if (!list->is_array() || list->empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not a list of modules"));
  }
  std::vector<ModuleEntry> entries;
  for (const json& item : *list) {
    JsonFields fields(item, absl::StrCat(path, ": module ", entries.size()));
    const std::string type = fields.String("type");
    const std::string folder = fields.String("path", "");
    const std::filesystem::path relative(folder);
    if (relative.is_absolute() || folder.find("..") != std::string::npos) {
      fields.Fail("path", "must lie within the model's directory");
    }
    if (!fields.status().ok()) return fields.status();
    entries.push_back({.kind = LastComponent(type),
                       .directory = JoinPath(directory, folder)});
    if (entries.size() == 1 && !folder.empty()) {
      fields.Unimplemented(
          "path",
          absl::StrCat("is \"", folder,
                       "\"; move the transformer's files one level up and "
                       "make it \"\""));
      return fields.status();
    }
  }
  return entries;
}

// Transformer, Pooling, Dense..., Normalize: in this order, the last two
// optional. Dropout does nothing when a model is served.
absl::Status ReadModules(const std::string& directory, int hidden,
                         SentenceModules& modules) {
  absl::StatusOr<std::vector<ModuleEntry>> entries = ReadList(directory);
  if (!entries.ok()) return entries.status();
  const std::string source = JoinPath(directory, "modules.json");
  modules.listed = true;
  modules.transformer_only = entries->size() == 1;
  for (size_t i = 0; i < entries->size(); ++i) {
    const ModuleEntry& entry = (*entries)[i];
    absl::Status status;
    if (i == 0 && entry.kind == "Transformer") continue;
    if (i == 1 && entry.kind == "Pooling") {
      status = ReadPooling(JoinPath(entry.directory, "config.json"), hidden,
                           modules);
    } else if (i > 1 && entry.kind == "Dense" && !modules.normalize) {
      const int in = modules.dense.empty() ? hidden : modules.dense.back().out;
      status = ReadDense(entry.directory, in, modules);
    } else if (i > 1 && entry.kind == "Normalize") {
      modules.normalize = true;
    } else if (i <= 1 || entry.kind != "Dropout") {
      status = Unimplemented(
          source, absl::StrCat("module ", i, " is ", entry.kind,
                               "; served is the order Transformer, Pooling, "
                               "any number of Dense, Normalize"));
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status ReadPrompts(const std::string& path, SentenceModules& modules) {
  if (!Exists(path)) return absl::OkStatus();
  absl::StatusOr<json> config = ReadStrictJson(path);
  if (!config.ok()) return config.status();
  JsonFields fields(*config, path);
  if (fields.Has("prompts")) {
    const json& prompts = (*config)["prompts"];
    if (!prompts.is_object()) fields.Fail("prompts", "must be an object");
    for (const auto& [name, prompt] : prompts.items()) {
      if (prompt.is_string()) {
        modules.prompts[name] = prompt.get<std::string>();
      } else {
        fields.Fail("prompts",
                    absl::StrCat("lacks a string for \"", name, "\""));
      }
    }
  }
  modules.default_prompt = fields.String("default_prompt_name", "");
  if (!modules.default_prompt.empty() &&
      !modules.prompts.contains(modules.default_prompt)) {
    fields.Fail("default_prompt_name",
                absl::StrCat("is \"", modules.default_prompt,
                             "\", which \"prompts\" does not define"));
  }
  return fields.status();
}

// The tighter of sentence_bert_config.json's max_seq_length and the
// tokenizer's model_max_length, where sentence-transformers 6 keeps it.
absl::Status ReadLengths(const std::string& directory,
                         SentenceModules& modules) {
  const std::string sentence = JoinPath(directory, "sentence_bert_config.json");
  const std::string tokenizer = JoinPath(directory, "tokenizer_config.json");
  bool lower_case = false;
  if (Exists(sentence)) {
    absl::StatusOr<json> config = ReadStrictJson(sentence);
    if (!config.ok()) return config.status();
    JsonFields fields(*config, sentence);
    if (fields.Has("max_seq_length")) {
      modules.max_tokens = fields.Int("max_seq_length", 1, kMaxTokens);
    }
    lower_case = fields.Bool("do_lower_case", false);
    if (!fields.status().ok()) return fields.status();
  }
  if (!Exists(tokenizer)) return absl::OkStatus();
  absl::StatusOr<json> config = ReadStrictJson(tokenizer);
  if (!config.ok()) return config.status();
  JsonFields fields(*config, tokenizer);
  // "No limit" is written as 1e30.
  const double length =
      fields.Number("model_max_length", 1, 1e300, 1.0 * kMaxTokens);
  if (!modules.max_tokens.has_value() && length < kMaxTokens) {
    modules.max_tokens = static_cast<int>(length);
  }
  if (lower_case && !fields.Bool("do_lower_case", true)) {
    fields.Unimplemented(
        "do_lower_case",
        absl::StrCat("is false, but true in ", sentence,
                     "; lower-casing is the tokenizer's, set both alike"));
  }
  return fields.status();
}

}  // namespace

absl::StatusOr<SentenceModules> ReadSentenceModules(
    const std::string& directory, int hidden) {
  SentenceModules modules;
  absl::Status status = ReadPrompts(
      JoinPath(directory, "config_sentence_transformers.json"), modules);
  if (!status.ok()) return status;
  status = ReadLengths(directory, modules);
  if (!status.ok()) return status;
  if (Exists(JoinPath(directory, "modules.json"))) {
    status = ReadModules(directory, hidden, modules);
    if (!status.ok()) return status;
  }
  return modules;
}

}  // namespace svdserve
