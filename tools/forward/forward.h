// An encoder run in fp32, a layer or half a layer at a time, by the engine's
// own kernels: for tools that look at activations.
//
// Not for serving: every intermediate of the batch exists at once. Results are
// the CPU backend's (strict fp32) to rounding, and independent of the team's
// size. Ids must be within the model's tables, and no sequence longer than its
// max_positions.
//
//   kernels::Team team(threads, "forward");
//   absl::StatusOr<FloatMatrix> x = EmbedTokens(model, batch, team);
//   for (const EncoderLayer& layer : model.layers) {
//     auto forward = ForwardLayer::Create(model, layer, team);
//     x = forward->Run(batch, *x, team, /*taps=*/nullptr);
//   }
//   absl::StatusOr<FloatMatrix> rows = OutputRows(model, batch, *x, team);
#ifndef SVDSERVE_TOOLS_FORWARD_FORWARD_H_
#define SVDSERVE_TOOLS_FORWARD_FORWARD_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model.h"
#include "engine/text/tokenizer.h"
#include "kernels/team.h"
#include "tools/forward/float_matrix.h"
#include "tools/forward/forward_linear.h"

namespace svdserve {

// Sequences back to back, without padding.
struct TokenBatch {
  std::vector<int32_t> ids;            // [tokens]
  std::vector<uint8_t> type_ids;       // [tokens]
  std::vector<int32_t> offsets = {0};  // [sequences + 1]

  int tokens() const { return static_cast<int>(ids.size()); }
  int sequences() const { return static_cast<int>(offsets.size()) - 1; }
  void Add(const Encoding& encoding);
};

// The states before the first layer, [tokens, hidden]. INVALID_ARGUMENT if an
// id, a type id or a position is outside its table.
absl::StatusOr<FloatMatrix> EmbedTokens(const Model& model,
                                        const TokenBatch& batch,
                                        kernels::Team& team);

// Self-attention up to the heads' outputs: softmax(Q·Kᵀ·scale)·V.
class ForwardAttention {
 public:
  static absl::StatusOr<ForwardAttention> Create(const ModelShape& shape,
                                                 const EncoderLayer& layer,
                                                 const kernels::Team& team);
  // x [tokens, hidden] -> context [tokens, heads * value_dim]
  absl::StatusOr<FloatMatrix> Run(const TokenBatch& batch, const FloatMatrix& x,
                                  kernels::Team& team) const;

 private:
  ForwardAttention(ForwardLinear query, ForwardLinear key, ForwardLinear value);

  int heads_ = 0;
  int query_dim_ = 0;  // of a head's query and key
  int value_dim_ = 0;
  float scale_ = 1;
  ForwardLinear query_, key_, value_;
};

// The activation of the feed-forward, as kernels call it.
kernels::Activation FeedForwardActivation(const ModelShape& shape);

// x = LayerNorm(x + update), in place; both [tokens, hidden].
absl::Status AddAndNormalize(const LayerNorm& norm, float eps,
                             const FloatMatrix& update, FloatMatrix* x,
                             kernels::Team& team);

// What the matrices of a layer read; the context belongs to attention's output
// matrix, `inner` to the second one of the feed-forward.
struct LayerTaps {
  FloatMatrix attention_input;  // [tokens, hidden]
  FloatMatrix context;          // [tokens, heads * value_dim]
  FloatMatrix ffn_input;        // [tokens, hidden]
  FloatMatrix inner;            // [tokens, intermediate], activated
};

class ForwardLayer {
 public:
  // Packs the weights; `model` gives sizes and epsilon, `layer` need not be one
  // of its own.
  static absl::StatusOr<ForwardLayer> Create(const Model& model,
                                             const EncoderLayer& layer,
                                             const kernels::Team& team);
  // x [tokens, hidden] -> [tokens, hidden]. Fills `taps` if it is not null.
  absl::StatusOr<FloatMatrix> Run(const TokenBatch& batch, FloatMatrix x,
                                  kernels::Team& team, LayerTaps* taps) const;

 private:
  ForwardLayer(ForwardAttention attention, ForwardLinear attention_output,
               ForwardLinear ffn_in, ForwardLinear ffn_out);

  ForwardAttention attention_;
  ForwardLinear attention_output_, ffn_in_, ffn_out_;
  LayerNorm attention_norm_, ffn_norm_;
  float eps_ = 0;
};

// Pooling over the last layer's states: [sequences, hidden].
absl::StatusOr<FloatMatrix> PoolStates(const Model& model,
                                       const TokenBatch& batch,
                                       const FloatMatrix& states,
                                       kernels::Team& team);

// Pooling and heads over the last layer's states: [sequences, output width],
// scaled to unit length if the model promises that.
absl::StatusOr<FloatMatrix> OutputRows(const Model& model,
                                       const TokenBatch& batch,
                                       const FloatMatrix& states,
                                       kernels::Team& team);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_FORWARD_FORWARD_H_
