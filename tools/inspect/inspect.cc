#include "tools/inspect/inspect.h"

#include <array>
#include <charconv>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"
#include "tools/inspect/cuda_target.h"

namespace svdserve {
namespace {

struct Column {
  const char* name;
  int LayerShape::*rank;
  Linear EncoderLayer::*linear;
  bool has_heads;  // of the dense model: [hidden, hidden]
};

constexpr std::array<Column, 6> kColumns = {{
    {"query", &LayerShape::query, &EncoderLayer::query, true},
    {"key", &LayerShape::key, &EncoderLayer::key, true},
    {"value", &LayerShape::value, &EncoderLayer::value, true},
    {"attention_output", &LayerShape::attention_output,
     &EncoderLayer::attention_output, true},
    {"ffn_in", &LayerShape::ffn_in, &EncoderLayer::ffn_in, false},
    {"ffn_out", &LayerShape::ffn_out, &EncoderLayer::ffn_out, false},
}};

// What the matrix has in the dense model with heads of the usual width.
int64_t DenseParameters(const Column& column, const Linear& linear,
                        const ModelShape& shape) {
  if (column.has_heads) return int64_t{1} * shape.hidden * shape.hidden;
  return int64_t{1} * linear.in * linear.out;
}

// Widths of heads where they are not the usual ones.
std::string HeadsText(const ModelShape& shape, const LayerShape& layer) {
  if (layer.query_dim == 0 && layer.value_dim == 0) return "";
  return absl::StrFormat("  heads of %d (query, key) and %d (value)",
                         shape.query_dim(layer), shape.value_dim(layer));
}

const char* PoolingName(Pooling pooling) {
  switch (pooling) {
    case Pooling::kMean:
      return "mean";
    case Pooling::kCls:
      return "cls";
    case Pooling::kMax:
      return "max";
  }
  return "?";
}

const char* ActivationName(Activation activation) {
  switch (activation) {
    case Activation::kGelu:
      return "gelu";
    case Activation::kGeluTanh:
      return "gelu_new";
    case Activation::kRelu:
      return "relu";
  }
  return "?";
}

std::string TaskText(const ModelConfig& config) {
  if (config.task == Task::kClassification) {
    return absl::StrCat("classification, labels ",
                        absl::StrJoin(config.labels, ", "));
  }
  return absl::StrCat("embedding, ", PoolingName(config.pooling), " pooling",
                      config.normalize ? ", normalized" : "");
}

double Percent(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : 100.0 * part / whole;
}

// Reads a positive number to the end of `text`.
bool ParseCount(std::string_view text, int* count) {
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), *count);
  return error == std::errc() && end == text.data() + text.size() && *count > 0;
}

absl::StatusOr<BatchShape> ParseBatch(std::string_view text, int max_tokens) {
  const size_t x = text.find('x');
  BatchShape shape;
  if (x == std::string_view::npos ||
      !ParseCount(text.substr(0, x), &shape.sequences) ||
      !ParseCount(text.substr(x + 1), &shape.max_tokens)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--plan \"", std::string(text),
                     "\": want SEQxLEN, such as 32x256: 32 inputs of 256 "
                     "tokens"));
  }
  constexpr int kMostSequences = 1 << 16;  // their tokens fit an int
  if (shape.max_tokens > max_tokens || shape.sequences > kMostSequences) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--plan \"", std::string(text), "\": this model takes at most ",
        max_tokens, " tokens an input; a batch, ", kMostSequences, " inputs"));
  }
  shape.tokens = shape.sequences * shape.max_tokens;
  return shape;
}

// A device, without what it takes to run on it.
struct Backing {
  BackendInfo info;
  PlanTarget target;
};

absl::StatusOr<Backing> CpuBacking(const Model& model,
                                   const BackendOptions& options) {
  // The backend knows what the planner must: panels, scratch, the arena.
  auto backend = CreateCpuBackend(model, options);
  if (!backend.ok()) return backend.status();
  return Backing{.info = (*backend)->info(), .target = (*backend)->target()};
}

Backing CudaBacking(const Model& model, const BackendOptions& options) {
  // The default arena holds batches of this size.
  constexpr int kTokens = 65536;
  constexpr int kInputs = 512;
  Backing backing = {.info = {.name = "cuda",
                              .reason = "planned for an H100",
                              .dtype = "bfloat16",
                              .mode = "strict",
                              .arena_bytes = options.arena_bytes},
                     .target = HopperTarget(model.shape)};
  if (options.arena_bytes == 0) {
    backing.info.arena_bytes =
        Planner(model.shape, backing.target, 0).ArenaBytesFor(kTokens, kInputs);
  }
  return backing;
}

absl::StatusOr<PlanInspection> InspectPlan(const Model& model,
                                           const InspectOptions& options) {
  const auto shape = ParseBatch(options.plan, model.shape.max_tokens);
  if (!shape.ok()) return shape.status();
  const absl::StatusOr<Backing> backing =
      options.device == Device::kCuda ? CudaBacking(model, options.backend)
                                      : CpuBacking(model, options.backend);
  if (!backing.ok()) return backing.status();
  const Planner planner(model.shape, backing->target,
                        backing->info.arena_bytes);
  absl::StatusOr<Plan> plan = planner.MakePlan(*shape);
  if (!plan.ok()) return plan.status();
  const CostFunction& cost = planner.cost();
  return PlanInspection{
      .backend = backing->info,
      .plan = *std::move(plan),
      .charged_bytes = cost.fixed_bytes() +
                       cost.ChargeFor(shape->max_tokens) * shape->sequences,
      .minimum_arena_bytes = planner.MinimumArenaBytes(),
      .dense_bytes = planner.DenseBytes(shape->tokens)};
}

std::string PlanText(const PlanInspection& p) {
  return absl::StrFormat(
      "backend  %s, %s, %s; arena %d bytes (least for one longest input: %d)\n"
      "batch    peak %d bytes planned, %d charged; PyTorch's dense forward: %d "
      "(10 hidden-wide rows a token); planned is %.1f %%\n%s",
      p.backend.name, p.backend.dtype, p.backend.mode, p.backend.arena_bytes,
      p.minimum_arena_bytes, p.plan.peak_bytes, p.charged_bytes, p.dense_bytes,
      Percent(p.plan.peak_bytes, p.dense_bytes), p.plan.ToString());
}

nlohmann::ordered_json PlanJson(const PlanInspection& p) {
  nlohmann::ordered_json json = {
      {"backend", p.backend.name},
      {"dtype", p.backend.dtype},
      {"mode", p.backend.mode},
      {"arena_bytes", p.backend.arena_bytes},
      {"minimum_arena_bytes", p.minimum_arena_bytes},
      {"sequences", p.plan.shape.sequences},
      {"tokens", p.plan.shape.tokens},
      {"max_tokens", p.plan.shape.max_tokens},
      {"peak_bytes", p.plan.peak_bytes},
      {"charged_bytes", p.charged_bytes},
      {"dense_bytes", p.dense_bytes},
      {"predicted_seconds", p.plan.predicted_seconds}};
  for (const Buffer& buffer : p.plan.buffers) {
    json["buffers"].push_back({{"role", RoleName(buffer.role)},
                               {"offset", buffer.offset},
                               {"bytes", buffer.bytes},
                               {"lanes", buffer.lanes}});
  }
  const std::vector<std::string> lines =
      absl::StrSplit(p.plan.ToString(), '\n', absl::SkipEmpty());
  json["text"] = lines;
  return json;
}

}  // namespace

std::string Inspection::ToText() const {
  std::string text = absl::StrFormat(
      "model    %s: %s, at most %d tokens\n"
      "shape    %d layers, hidden %d, %d heads of %d, intermediate %d, "
      "vocabulary %d, %s\n"
      "weights  %d bytes stored, %d if dense (%.1f %%)\n"
      "matrices %d parameters of %d in the encoder (ratio %.4f)\n",
      config.name, TaskText(config), shape.max_tokens, shape.layers.size(),
      shape.hidden, shape.heads, shape.head_dim, shape.intermediate,
      shape.vocab, ActivationName(shape.activation), stored_bytes,
      dense_equivalent_bytes, Percent(stored_bytes, dense_equivalent_bytes),
      matrix_parameters, dense_matrix_parameters,
      static_cast<double>(matrix_parameters) / dense_matrix_parameters);
  text += "ranks   ";
  for (const Column& column : kColumns) {
    absl::StrAppendFormat(&text, "%17s", column.name);
  }
  for (size_t i = 0; i < shape.layers.size(); ++i) {
    absl::StrAppendFormat(&text, "\nlayer %-2d", i);
    for (const Column& column : kColumns) {
      const int rank = shape.layers[i].*column.rank;
      absl::StrAppendFormat(
          &text, "%17s", rank == 0 ? std::string("dense") : absl::StrCat(rank));
    }
    text += HeadsText(shape, shape.layers[i]);
  }
  text += "\n";
  if (plan.has_value()) text += PlanText(*plan);
  return text;
}

std::string Inspection::ToJson() const {
  nlohmann::ordered_json json = {
      {"name", config.name},
      {"task",
       config.task == Task::kClassification ? "classification" : "embedding"},
      {"pooling", PoolingName(config.pooling)},
      {"normalize", config.normalize},
      {"labels", config.labels},
      {"max_tokens", shape.max_tokens},
      {"layers", shape.layers.size()},
      {"hidden", shape.hidden},
      {"heads", shape.heads},
      {"head_dim", shape.head_dim},
      {"intermediate", shape.intermediate},
      {"vocabulary", shape.vocab},
      {"activation", ActivationName(shape.activation)},
      {"output_width", shape.output_width()},
      {"weight_bytes", stored_bytes},
      {"dense_equivalent_weight_bytes", dense_equivalent_bytes},
      {"matrix_parameters", matrix_parameters},
      {"dense_matrix_parameters", dense_matrix_parameters}};
  for (const LayerShape& layer : shape.layers) {
    nlohmann::ordered_json ranks;
    for (const Column& column : kColumns) {
      ranks[column.name] = layer.*column.rank;
    }
    json["ranks"].push_back(ranks);
    json["head_dims"].push_back(
        {{"query", shape.query_dim(layer)}, {"value", shape.value_dim(layer)}});
  }
  if (plan.has_value()) json["plan"] = PlanJson(*plan);
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) +
         "\n";
}

absl::StatusOr<Inspection> Inspect(const InspectOptions& options) {
  absl::StatusOr<Model> model = LoadModel(options.model);
  if (!model.ok()) return model.status();
  Inspection result;
  result.config = model->config;
  result.shape = model->shape;
  result.stored_bytes = model->WeightBytes();
  result.dense_equivalent_bytes = model->DenseEquivalentBytes();
  for (const EncoderLayer& layer : model->layers) {
    for (const Column& column : kColumns) {
      const Linear& linear = layer.*column.linear;
      result.dense_matrix_parameters +=
          DenseParameters(column, linear, model->shape);
      result.matrix_parameters +=
          linear.rank == 0
              ? int64_t{1} * linear.in * linear.out
              : int64_t{1} * linear.rank * (linear.in + linear.out);
    }
  }
  if (options.plan.empty()) return result;
  absl::StatusOr<PlanInspection> plan = InspectPlan(*model, options);
  if (!plan.ok()) return plan.status();
  result.plan = *std::move(plan);
  return result;
}

}  // namespace svdserve
