#include "engine/input_encoder.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/schedule/refusal.h"

namespace svdserve {
namespace {

// A waiting input costs memory beside its text; many tiny ones count too.
constexpr uint64_t kBytesBesideText = 512;

absl::Status Invalid(const std::string& message, const char* subject) {
  return MakeRefusal(absl::StatusCode::kInvalidArgument, message,
                     {.reason = RefusalReason::kInvalid, .subject = subject});
}

std::string PromptNames(const ModelConfig& config) {
  if (config.prompts.empty()) return "it has none";
  return "it has " +
         absl::StrJoin(config.prompts, ", ",
                       [](std::string* out, const auto& prompt) {
                         absl::StrAppendFormat(out, "\"%s\"", prompt.first);
                       });
}

}  // namespace

InputEncoder::InputEncoder(const Tokenizer* tokenizer,
                           const ModelConfig* config, const ModelShape* shape,
                           int type_vocab, int longest_input)
    : tokenizer_(tokenizer),
      config_(config),
      shape_(shape),
      type_vocab_(type_vocab),
      longest_input_(longest_input) {}

absl::Status InputEncoder::Check(const Input& input,
                                 const InputOptions& options) const {
  const int dimensions = options.output.dimensions;
  if (dimensions < 0 || dimensions > shape_->output_width()) {
    return Invalid(absl::StrFormat("dimensions is %d, the model has 1 to %d",
                                   dimensions, shape_->output_width()),
                   "dimensions");
  }
  if (!input.ids.empty()) return CheckIds(input);
  if (input.text.empty() && (!input.pair || input.pair->empty())) {
    return Invalid("the input is empty: give a text, a pair or token ids",
                   "input");
  }
  if (!options.prompt.empty() && !config_->prompts.contains(options.prompt)) {
    return Invalid(absl::StrFormat("the model has no prompt \"%s\": %s",
                                   options.prompt, PromptNames(*config_)),
                   "prompt");
  }
  return absl::OkStatus();
}

absl::Status InputEncoder::CheckIds(const Input& input) const {
  if (!input.type_ids.empty() && input.type_ids.size() != input.ids.size()) {
    return Invalid(
        absl::StrFormat("%d type ids for %d ids: give none or one for each",
                        input.type_ids.size(), input.ids.size()),
        "type_ids");
  }
  for (size_t i = 0; i < input.ids.size(); ++i) {
    if (input.ids[i] < 0 || input.ids[i] >= shape_->vocab) {
      return Invalid(absl::StrFormat("id %d at position %d is outside the "
                                     "vocabulary, 0 to %d",
                                     input.ids[i], i, shape_->vocab - 1),
                     "ids");
    }
  }
  for (size_t i = 0; i < input.type_ids.size(); ++i) {
    if (input.type_ids[i] < type_vocab_) continue;
    const std::string where =
        absl::StrFormat("type id %d at position %d ", input.type_ids[i], i);
    return Invalid(type_vocab_ == 1
                       ? where +
                             "for a model without token types: give "
                             "none, or zeros"
                       : absl::StrFormat("%sis outside the model's, 0 to %d",
                                         where, type_vocab_ - 1),
                   "type_ids");
  }
  return absl::OkStatus();
}

uint64_t InputEncoder::TextBytes(const Input& input) {
  return kBytesBesideText + input.text.size() +
         (input.pair ? input.pair->size() : 0);
}

// The default prompt is for single texts: pairs go to cross-encoders, which
// were trained without one.
const std::string* InputEncoder::PromptOf(const Input& input,
                                          const InputOptions& options) const {
  const bool by_default = options.prompt.empty() && !input.pair;
  const auto prompt = config_->prompts.find(by_default ? config_->default_prompt
                                                       : options.prompt);
  return prompt == config_->prompts.end() ? nullptr : &prompt->second;
}

absl::Status InputEncoder::Encode(const Input& input,
                                  const InputOptions& options,
                                  std::string* scratch, Encoding* out) const {
  std::string_view text = input.text;
  if (const std::string* prompt = PromptOf(input, options)) {
    scratch->assign(*prompt);
    scratch->append(text);
    text = *scratch;
  }
  std::optional<std::string_view> pair;
  if (input.pair) pair = *input.pair;
  const EncodeOptions encode = {
      .max_tokens = options.truncate ? longest_input_ : 0,
      .truncate = options.truncate,
      .side = options.side};
  if (absl::Status s = tokenizer_->Encode(text, pair, encode, out); !s.ok()) {
    return s;
  }
  if (out->ids.empty()) return Invalid("the input has no tokens", "input");
  // Tokenizers such as DistilBERT's tell the texts of a pair apart.
  if (type_vocab_ == 1) std::ranges::fill(out->type_ids, uint8_t{0});
  return absl::OkStatus();
}

}  // namespace svdserve
