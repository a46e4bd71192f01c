#include "tools/evaluate/model_runner.h"

#include <cmath>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/engine.h"
#include "engine/input_encoder.h"

namespace svdserve {
namespace {

// A batch is closed before it has more of either.
constexpr int kBatchTokens = 8192;
constexpr size_t kBatchTexts = 256;

}  // namespace

absl::StatusOr<std::unique_ptr<ModelRunner>> ModelRunner::Load(
    const std::string& directory, int threads) {
  absl::StatusOr<Model> model = LoadModel(directory);
  if (!model.ok()) return model.status();
  auto tokenizer = Tokenizer::Load(directory);
  if (!tokenizer.ok()) return tokenizer.status();
  auto backend = CreateCpuBackend(
      *model, {.compute = ComputeType::kF32, .threads = threads});
  if (!backend.ok()) return backend.status();

  std::unique_ptr<ModelRunner> runner(new ModelRunner());
  runner->planner_ = std::make_unique<Planner>(
      model->shape, (*backend)->target(), (*backend)->info().arena_bytes);
  absl::StatusOr<ModelFacts> facts = FactsOf(directory, *model);
  if (!facts.ok()) return facts.status();
  runner->facts_ = *std::move(facts);
  runner->config_ = model->config;
  runner->shape_ = model->shape;
  runner->type_vocab_ =
      static_cast<int>(model->embeddings.token_type.shape().front());
  runner->tokenizer_ = *std::move(tokenizer);
  runner->backend_ = *std::move(backend);
  return runner;
}

absl::StatusOr<TokenizedTexts> ModelRunner::Tokenize(
    const std::vector<std::string>& texts) const {
  const InputEncoder encoder(tokenizer_.get(), &config_, &shape_, type_vocab_,
                             shape_.max_tokens);
  InputOptions cut;
  cut.truncate = true;
  TokenizedTexts result;
  std::string scratch;
  Input input;
  for (const std::string& text : texts) {
    input.text = text;
    Encoding& encoding = result.encodings.emplace_back();
    absl::Status status = encoder.Encode(input, {}, &scratch, &encoding);
    if (status.ok() && encoding.ids.size() > shape_.max_tokens) {
      ++result.truncated;
      status = encoder.Encode(input, cut, &scratch, &encoding);
    }
    if (!status.ok()) {
      return absl::Status(
          status.code(),
          absl::StrCat(config_.name, ", text ", result.encodings.size(), ": ",
                       std::string(status.message())));
    }
    result.tokens += static_cast<int64_t>(encoding.ids.size());
  }
  return result;
}

absl::StatusOr<Outputs> ModelRunner::Run(const TokenizedTexts& texts) {
  Outputs outputs = {.width = shape_.output_width(), .values = {}};
  const std::vector<Encoding>& all = texts.encodings;
  for (size_t first = 0; first < all.size();) {
    size_t end = first;
    size_t tokens = 0;
    while (end < all.size() && end - first < kBatchTexts &&
           (end == first || tokens + all[end].ids.size() <= kBatchTokens)) {
      tokens += all[end++].ids.size();
    }
    if (absl::Status s = RunBatch(texts, first, end, &outputs); !s.ok()) {
      return s;
    }
    first = end;
  }
  return outputs;
}

absl::Status ModelRunner::RunBatch(const TokenizedTexts& texts, size_t first,
                                   size_t end, Outputs* outputs) {
  PackedBatch batch;
  batch.cu_seqlens = {0};
  for (size_t i = first; i < end; ++i) {
    const Encoding& text = texts.encodings[i];
    batch.ids.insert(batch.ids.end(), text.ids.begin(), text.ids.end());
    batch.type_ids.insert(batch.type_ids.end(), text.type_ids.begin(),
                          text.type_ids.end());
    batch.cu_seqlens.push_back(batch.tokens());
    batch.options.push_back({.normalize = config_.task == Task::kEmbedding});
  }
  const absl::StatusOr<Plan> plan = planner_->MakePlan(batch.Shape());
  if (!plan.ok()) return plan.status();
  absl::Status status = backend_->Launch(0, *plan, batch);
  if (!status.ok()) return status;
  BatchOutput output;
  status = backend_->Collect(0, &output);
  if (!status.ok()) return status;
  for (size_t i = 0; i < output.values.size(); ++i) {
    if (std::isfinite(output.values[i])) continue;
    return absl::InternalError(
        absl::StrCat(config_.name, ": the output of text ",
                     first + i / output.width + 1, " is not finite"));
  }
  outputs->values.insert(outputs->values.end(), output.values.begin(),
                         output.values.end());
  return absl::OkStatus();
}

}  // namespace svdserve
