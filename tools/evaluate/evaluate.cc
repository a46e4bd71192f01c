#include "tools/evaluate/evaluate.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tools/evaluate/layer_errors.h"
#include "tools/evaluate/model_runner.h"

namespace svdserve {
namespace {

constexpr int kBins = 40;
constexpr int kWorstTexts = 10;
constexpr int kShownCodePoints = 400;
// All pairs of 2,000 texts, and the neighbours of so many.
constexpr int kMostQueries = 2000;
constexpr int64_t kMostPairs = int64_t{kMostQueries} * (kMostQueries - 1) / 2;

// The dense model's side of every comparison.
struct Reference {
  std::string directory;
  ModelConfig config;
  ModelShape shape;
  TokenizedTexts tokens;
  Outputs outputs;
  LayerSample sample;
};

absl::Status Differs(const Reference& dense, const ModelRunner& model,
                     const std::string& what) {
  return absl::FailedPreconditionError(absl::StrCat(
      model.config().name, " was not made from ", dense.config.name, ": ", what,
      "; give the dense model that it was compressed from"));
}

std::string Pair(int a, int b) {
  return absl::StrCat(a, " in the dense model, ", b, " in the other");
}

// Whether the two may be compared at all.
absl::Status CheckAlike(const Reference& dense, const ModelRunner& model) {
  const ModelShape& a = dense.shape;
  const ModelShape& b = model.shape();
  if (dense.config.task != model.config().task) {
    return Differs(dense, model, "one embeds, the other classifies");
  }
  if (a.hidden != b.hidden) {
    return Differs(dense, model, "hidden size " + Pair(a.hidden, b.hidden));
  }
  if (a.layers.size() != b.layers.size()) {
    return Differs(dense, model,
                   "layers: " + Pair(a.layers.size(), b.layers.size()));
  }
  if (a.output_width() != b.output_width()) {
    return Differs(dense, model,
                   "output width " + Pair(a.output_width(), b.output_width()));
  }
  if (a.max_tokens != b.max_tokens) {
    return Differs(dense, model,
                   "longest input: " + Pair(a.max_tokens, b.max_tokens));
  }
  if (dense.config.pooling != model.config().pooling) {
    return Differs(dense, model, "they pool in different ways");
  }
  if (dense.config.labels != model.config().labels) {
    return Differs(dense, model, "they have different labels");
  }
  return absl::OkStatus();
}

absl::Status CheckTokens(const Reference& dense, const ModelRunner& model,
                         const TokenizedTexts& tokens) {
  for (size_t i = 0; i < tokens.encodings.size(); ++i) {
    const Encoding& a = dense.tokens.encodings[i];
    const Encoding& b = tokens.encodings[i];
    if (a.ids == b.ids && a.type_ids == b.type_ids) continue;
    return Differs(dense, model,
                   absl::StrCat("their tokenizers (or default prompts) make "
                                "other tokens of text ",
                                i + 1));
  }
  return absl::OkStatus();
}

// The texts with the greatest `badness` first; of equals the earlier.
std::vector<int> WorstFirst(const std::vector<double>& badness) {
  std::vector<int> order(badness.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&badness](int i, int j) {
    return badness[i] > badness[j];
  });
  order.resize(std::min<size_t>(order.size(), kWorstTexts));
  return order;
}

void CompareEmbeddings(const Reference& dense, const Outputs& outputs,
                       const TextSet& texts, uint64_t seed,
                       ModelEvaluation* result) {
  const std::vector<double> cosines = RowCosines(dense.outputs, outputs);
  result->embedding = EmbeddingFidelity{
      .cosine = Summarize(cosines),
      .histogram = CosineHistogram(cosines, kBins),
      .neighbours =
          CompareNeighbours(dense.outputs, outputs, kMostQueries, seed),
      .similarities =
          CompareSimilarities(dense.outputs, outputs, kMostPairs, seed)};
  std::vector<double> badness(cosines.size());
  std::transform(cosines.begin(), cosines.end(), badness.begin(),
                 std::negate<>());
  for (const int i : WorstFirst(badness)) {
    result->worst.push_back({.number = i + 1,
                             .text = Shorten(texts.texts[i], kShownCodePoints),
                             .cosine = cosines[i]});
  }
}

void CompareClasses(const Reference& dense, const Outputs& outputs,
                    const TextSet& texts, ModelEvaluation* result) {
  result->classification = CompareLogits(dense.outputs, outputs);
  const int width = outputs.width;
  std::vector<double> badness(outputs.rows());
  for (int i = 0; i < outputs.rows(); ++i) {
    badness[i] = MaxError(dense.outputs.row(i), outputs.row(i), width);
  }
  const std::vector<std::string>& labels = dense.config.labels;
  for (const int i : WorstFirst(badness)) {
    result->worst.push_back(
        {.number = i + 1,
         .text = Shorten(texts.texts[i], kShownCodePoints),
         .max_error = badness[i],
         .dense_label = labels[ArgMax(dense.outputs.row(i), width)],
         .compressed_label = labels[ArgMax(outputs.row(i), width)]});
  }
}

// Models of one name are told apart by their paths.
void NameApart(const std::vector<std::string>& directories,
               Evaluation* evaluation) {
  std::map<std::string, int> uses = {{evaluation->dense.name, 1}};
  for (const ModelEvaluation& model : evaluation->models) {
    ++uses[model.facts.name];
  }
  for (size_t i = 0; i < directories.size(); ++i) {
    std::string& name = evaluation->models[i].facts.name;
    if (uses[name] > 1) name = directories[i];
  }
}

class Evaluator {
 public:
  Evaluator(const TextSet& texts, const EvaluateOptions& options)
      : texts_(texts), options_(options) {}

  absl::Status RunDense(const std::string& directory) {
    Say("running", directory);
    auto runner = ModelRunner::Load(directory, options_.threads);
    if (!runner.ok()) return runner.status();
    absl::StatusOr<TokenizedTexts> tokens = (*runner)->Tokenize(texts_.texts);
    if (!tokens.ok()) return tokens.status();
    absl::StatusOr<Outputs> outputs = (*runner)->Run(*tokens);
    if (!outputs.ok()) return outputs.status();
    facts_ = (*runner)->facts();
    dense_ = {.directory = directory,
              .config = (*runner)->config(),
              .shape = (*runner)->shape(),
              .tokens = *std::move(tokens),
              .outputs = *std::move(outputs),
              .sample = {}};
    threads_ = (*runner)->threads();
    runner->reset();  // one model in memory at a time
    absl::StatusOr<LayerSample> sample = MakeLayerSample(
        directory, dense_.shape, dense_.tokens, threads_, options_.seed);
    if (!sample.ok()) return sample.status();
    dense_.sample = *std::move(sample);
    return absl::OkStatus();
  }

  absl::StatusOr<ModelEvaluation> RunCompressed(const std::string& directory) {
    Say("running", directory);
    auto runner = ModelRunner::Load(directory, options_.threads);
    if (!runner.ok()) return runner.status();
    if (absl::Status s = CheckAlike(dense_, **runner); !s.ok()) return s;
    absl::StatusOr<TokenizedTexts> tokens = (*runner)->Tokenize(texts_.texts);
    if (!tokens.ok()) return tokens.status();
    if (absl::Status s = CheckTokens(dense_, **runner, *tokens); !s.ok()) {
      return s;
    }
    absl::StatusOr<Outputs> outputs = (*runner)->Run(*tokens);
    if (!outputs.ok()) return outputs.status();
    ModelEvaluation result;
    result.facts = (*runner)->facts();
    runner->reset();
    Say("comparing", directory);
    result.ratio = static_cast<double>(result.facts.matrix_parameters) /
                   facts_.matrix_parameters;
    if (dense_.config.task == Task::kEmbedding) {
      CompareEmbeddings(dense_, *outputs, texts_, options_.seed, &result);
    } else {
      CompareClasses(dense_, *outputs, texts_, &result);
    }
    auto errors = LayerErrors(dense_.sample, directory, threads_);
    if (!errors.ok()) return errors.status();
    result.layer_errors = *std::move(errors);
    return result;
  }

  // Of the dense model's matrices; none, if they are not wanted.
  absl::StatusOr<std::vector<Spectrum>> Spectra() {
    if (!options_.spectra) return std::vector<Spectrum>();
    Say("singular values of", dense_.directory);
    return SpectraOf(dense_.directory, threads_);
  }

  // What is of the texts and the dense model.
  Evaluation Start() const {
    return {.source = texts_.source,
            .texts = static_cast<int>(texts_.texts.size()),
            .tokens = dense_.tokens.tokens,
            .truncated = dense_.tokens.truncated,
            .max_tokens = dense_.shape.max_tokens,
            .layer_texts = dense_.sample.batch.sequences(),
            .seed = options_.seed,
            .task = dense_.config.task,
            .labels = dense_.config.labels,
            .dense = facts_,
            .spectra = {},
            .models = {}};
  }

 private:
  void Say(const char* what, const std::string& directory) const {
    if (options_.progress) {
      options_.progress(absl::StrCat(what, " ", directory));
    }
  }

  const TextSet& texts_;
  const EvaluateOptions& options_;
  Reference dense_;
  ModelFacts facts_;
  int threads_ = 1;
};

// Before the work: a misspelt directory should not cost the minutes that a
// large dense model takes.
absl::Status CheckIsThere(const std::string& directory) {
  std::error_code error;
  const std::filesystem::path config =
      std::filesystem::path(directory) / "config.json";
  if (std::filesystem::exists(config, error)) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat(
      config.string(), ": no such file; give the directory of a model"));
}

}  // namespace

absl::StatusOr<Evaluation> Evaluate(const std::string& dense,
                                    const std::vector<std::string>& compressed,
                                    const TextSet& texts,
                                    const EvaluateOptions& options) {
  if (texts.texts.empty()) {
    return absl::InvalidArgumentError("there is no text to compare by");
  }
  if (absl::Status s = CheckIsThere(dense); !s.ok()) return s;
  for (const std::string& directory : compressed) {
    if (absl::Status s = CheckIsThere(directory); !s.ok()) return s;
  }
  Evaluator evaluator(texts, options);
  if (absl::Status s = evaluator.RunDense(dense); !s.ok()) return s;
  Evaluation result = evaluator.Start();
  for (const std::string& directory : compressed) {
    absl::StatusOr<ModelEvaluation> model = evaluator.RunCompressed(directory);
    if (!model.ok()) return model.status();
    result.models.push_back(*std::move(model));
  }
  NameApart(compressed, &result);
  // Last: all that can be wrong with the models was seen by now.
  absl::StatusOr<std::vector<Spectrum>> spectra = evaluator.Spectra();
  if (!spectra.ok()) return spectra.status();
  result.spectra = *std::move(spectra);
  return result;
}

}  // namespace svdserve
