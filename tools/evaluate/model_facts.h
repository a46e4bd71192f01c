// What a model is made of and what it costs to run, for a report.
#ifndef SVDSERVE_TOOLS_EVALUATE_MODEL_FACTS_H_
#define SVDSERVE_TOOLS_EVALUATE_MODEL_FACTS_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model.h"
#include "nlohmann/json.hpp"

namespace svdserve {

struct EncoderMatrix {
  const char* name;
  Linear EncoderLayer::*linear;
};
inline constexpr std::array<EncoderMatrix, 6> kEncoderMatrices = {{
    {"query", &EncoderLayer::query},
    {"key", &EncoderLayer::key},
    {"value", &EncoderLayer::value},
    {"attention_output", &EncoderLayer::attention_output},
    {"ffn_in", &EncoderLayer::ffn_in},
    {"ffn_out", &EncoderLayer::ffn_out},
}};

// One weight matrix of the encoder.
struct MatrixFacts {
  const char* kind = "";  // a name of kEncoderMatrices
  int in = 0;
  int out = 0;
  int rank = 0;  // 0: dense

  int64_t parameters() const {
    return rank == 0 ? int64_t{1} * in * out : int64_t{1} * rank * (in + out);
  }
};

struct ModelFacts {
  std::string name;               // the directory's last component
  int64_t parameters = 0;         // of everything
  int64_t matrix_parameters = 0;  // of the encoder's weight matrices
  uint64_t file_bytes = 0;        // of all safetensors files in the directory
  // Multiplications and additions of the encoder for one token of an input of
  // cost_tokens: its matrices, and the products of attention with all tokens.
  int64_t flops_per_token = 0;
  // Planned peak of a batch of cost_inputs such inputs as an H100 runs it in 16
  // bits, divided by its tokens: the same wherever it is asked for.
  double activation_bytes_per_token = 0;
  int cost_inputs = 0;
  int cost_tokens = 0;
  std::vector<std::vector<MatrixFacts>> layers;  // [layers][6]
  nlohmann::ordered_json compression;            // compression.json, or null
};

// INVALID_ARGUMENT if there is a compression.json that is not JSON.
absl::StatusOr<ModelFacts> FactsOf(const std::string& directory,
                                   const Model& model);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_EVALUATE_MODEL_FACTS_H_
