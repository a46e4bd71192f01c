#include "tools/compress/calibration.h"

#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/text/tokenizer.h"
#include "tools/compress/calibration_text.h"

namespace svdserve {
namespace {

// Tokens of one batch: what its intermediates need is memory.
constexpr int kBatchTokens = 4096;
constexpr int kHeldOutEvery = 8;

int TokensOf(const std::vector<TokenBatch>& batches) {
  int tokens = 0;
  for (const TokenBatch& batch : batches) tokens += batch.tokens();
  return tokens;
}

void AddTo(const Encoding& encoding, std::vector<TokenBatch>* batches) {
  const int more = static_cast<int>(encoding.ids.size());
  if (batches->empty() || batches->back().tokens() + more > kBatchTokens) {
    batches->emplace_back();
  }
  batches->back().Add(encoding);
}

}  // namespace

int Calibration::fit_tokens() const { return TokensOf(fit); }
int Calibration::held_out_tokens() const { return TokensOf(held_out); }

absl::StatusOr<Calibration> LoadCalibration(const std::string& directory,
                                            const Model& model,
                                            const CalibrationOptions& options) {
  if (options.tokens < kFewestTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("calibration with ", options.tokens,
                     " tokens: want at least ", kFewestTokens));
  }
  absl::StatusOr<std::unique_ptr<const Tokenizer>> tokenizer =
      Tokenizer::Load(directory);
  if (!tokenizer.ok()) return tokenizer.status();
  // No text has less than one token, so more of them are never needed.
  absl::StatusOr<CalibrationText> text =
      ReadCalibrationText(options.path, 2 * options.tokens, options.seed);
  if (!text.ok()) return text.status();

  Calibration calibration;
  calibration.source = text->source;
  const EncodeOptions encode = {.max_tokens = model.config.max_tokens,
                                .truncate = true};
  Encoding encoding;
  int tokens = 0;
  for (size_t i = 0; i < text->texts.size() && tokens < options.tokens; ++i) {
    absl::Status status =
        (*tokenizer)->Encode(text->texts[i], std::nullopt, encode, &encoding);
    if (!status.ok()) return status;
    if (encoding.ids.empty()) continue;
    const bool held_out = i % kHeldOutEvery == kHeldOutEvery - 1;
    AddTo(encoding, held_out ? &calibration.held_out : &calibration.fit);
    if (held_out) {
      calibration.held_out_texts.push_back(std::move(text->texts[i]));
    } else {
      tokens += static_cast<int>(encoding.ids.size());
    }
  }
  if (tokens < kFewestTokens || calibration.held_out.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "calibration text ", calibration.source, " has only ", tokens,
        " tokens in ", text->texts.size(), " texts; give at least ",
        kFewestTokens, " tokens in ", kHeldOutEvery, " texts, one a line"));
  }
  return calibration;
}

}  // namespace svdserve
