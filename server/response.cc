#include "server/response.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "engine/schedule/refusal.h"
#include "server/status_util.h"

namespace svdserve {
namespace {

void FillDuration(absl::Duration from, google::protobuf::Duration* to) {
  const int64_t nanos = absl::ToInt64Nanoseconds(from);
  to->set_seconds(nanos / 1'000'000'000);
  to->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
}

void FillUsage(const InputResult& result, v1::Usage* usage) {
  usage->set_tokens(result.tokens);
  usage->set_activation_bytes(result.activation_bytes);
  usage->set_dense_activation_bytes(result.dense_activation_bytes);
  v1::Timings* timings = usage->mutable_timings();
  FillDuration(result.times.tokenization, timings->mutable_tokenization());
  FillDuration(result.times.queue, timings->mutable_queue());
  FillDuration(result.times.compute, timings->mutable_compute());
  FillDuration(result.times.total, timings->mutable_total());
}

float Sigmoid(float x) { return 1.0F / (1.0F + std::exp(-x)); }

std::vector<float> Probabilities(std::vector<float> logits) {
  if (logits.size() == 1) return {Sigmoid(logits[0])};
  const float highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float& x : logits) {
    x = std::exp(x - highest);
    sum += x;
  }
  for (float& x : logits) x = static_cast<float>(x / sum);
  return logits;
}

// Indices from the highest score to the lowest; equal scores keep their order.
std::vector<int> Descending(const std::vector<float>& scores) {
  std::vector<int> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return scores[a] > scores[b]; });
  return order;
}

absl::Duration RetryAfter(const absl::Status& status) {
  const auto refusal = GetRefusal(status);
  return refusal ? refusal->retry_after : absl::ZeroDuration();
}

}  // namespace

absl::Status StatusOfAll(const Results& results) {
  absl::Status worst = results.front().status();
  if (worst.ok() || absl::IsInvalidArgument(worst)) return absl::OkStatus();
  for (const auto& result : results) {
    if (result.status().code() != worst.code()) return absl::OkStatus();
    if (RetryAfter(result.status()) > RetryAfter(worst)) {
      worst = result.status();
    }
  }
  return worst;
}

void FillEmbed(const Results& results, v1::EmbedResponse* response) {
  response->mutable_results()->Reserve(static_cast<int>(results.size()));
  for (const auto& result : results) {
    v1::EmbedResult* out = response->add_results();
    if (!result.ok()) {
      *out->mutable_error() = ToRpcStatus(result.status());
      continue;
    }
    v1::Embedding* embedding = out->mutable_embedding();
    embedding->mutable_values()->Add(result->values.begin(),
                                     result->values.end());
    FillUsage(*result, embedding->mutable_usage());
  }
}

void FillClassify(const Results& results,
                  const std::vector<std::string>& labels, bool raw,
                  v1::ClassifyResponse* response) {
  for (const auto& result : results) {
    v1::ClassifyResult* out = response->add_results();
    if (!result.ok()) {
      *out->mutable_error() = ToRpcStatus(result.status());
      continue;
    }
    v1::Classification* classification = out->mutable_classification();
    const std::vector<float> scores =
        raw ? result->values : Probabilities(result->values);
    for (const int i : Descending(scores)) {
      v1::LabelScore* score = classification->add_scores();
      score->set_label(i < labels.size() ? labels[i]
                                         : absl::StrCat("LABEL_", i));
      score->set_score(scores[i]);
    }
    FillUsage(*result, classification->mutable_usage());
  }
}

void FillRerank(const Results& results, const v1::RerankRequest& request,
                v1::RerankResponse* response) {
  std::vector<float> scores;  // of the texts that have one
  std::vector<int> indices;   // their positions in the request
  for (int i = 0; i < results.size(); ++i) {
    if (results[i].ok()) {
      const float logit = results[i]->values[0];
      scores.push_back(request.raw_scores() ? logit : Sigmoid(logit));
      indices.push_back(i);
      continue;
    }
    v1::RerankError* error = response->add_errors();
    error->set_index(i);
    *error->mutable_error() = ToRpcStatus(results[i].status());
  }
  for (const int position : Descending(scores)) {
    const int index = indices[position];
    v1::Rank* rank = response->add_ranks();
    rank->set_index(index);
    rank->set_score(scores[position]);
    if (request.return_texts()) rank->set_text(request.texts(index));
    FillUsage(*results[index], rank->mutable_usage());
  }
}

void FillEstimate(const std::vector<absl::StatusOr<InputEstimate>>& estimates,
                  v1::EstimateResponse* response) {
  for (const auto& estimate : estimates) {
    v1::EstimateResult* out = response->add_results();
    if (!estimate.ok()) {
      *out->mutable_error() = ToRpcStatus(estimate.status());
      continue;
    }
    v1::Estimate* to = out->mutable_estimate();
    to->set_tokens(estimate->tokens);
    to->set_activation_bytes(estimate->activation_bytes);
    to->set_fixed_activation_bytes(estimate->fixed_bytes);
    to->set_dense_activation_bytes(estimate->dense_activation_bytes);
    to->set_fits(estimate->fits);
    to->set_admitted_now(estimate->admitted_now);
    to->set_longest_input(estimate->longest_input);
  }
}

void FillModelInfo(const Engine& engine, v1::GetModelInfoResponse* response) {
  const ModelConfig& config = engine.model_config();
  const ModelShape& shape = engine.model_shape();
  response->set_model(config.name);
  response->set_task(config.task == Task::kEmbedding
                         ? v1::MODEL_TASK_EMBEDDING
                         : v1::MODEL_TASK_CLASSIFICATION);
  response->set_dimensions(shape.output_width());
  response->mutable_labels()->Add(config.labels.begin(), config.labels.end());
  for (const auto& [name, text] : config.prompts) response->add_prompts(name);
  for (const LayerShape& layer : shape.layers) {
    v1::LayerRanks* out = response->add_layers();
    out->set_query(layer.query);
    out->set_key(layer.key);
    out->set_value(layer.value);
    out->set_attention_output(layer.attention_output);
    out->set_ffn_in(layer.ffn_in);
    out->set_ffn_out(layer.ffn_out);
    out->set_query_head_dim(shape.query_dim(layer));
    out->set_value_head_dim(shape.value_dim(layer));
  }
  response->set_max_input_tokens(shape.max_tokens);
  response->set_weight_bytes(engine.weight_bytes());
  response->set_dense_equivalent_weight_bytes(
      engine.dense_equivalent_weight_bytes());
  const EngineGauges gauges = engine.Gauges();
  response->set_arena_bytes(gauges.arena_bytes);
  response->set_queue_budget_bytes(gauges.queue_budget_bytes);
  const BackendInfo& backend = engine.backend_info();
  response->set_backend(backend.name);
  response->set_backend_reason(backend.reason);
  response->set_dtype(backend.dtype);
  response->set_mode(backend.mode);
  response->set_server_version(SVDSERVE_VERSION);
}

}  // namespace svdserve
