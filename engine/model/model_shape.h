// What the planner needs to know of a model: sizes only, no weights.
#ifndef SVDSERVE_ENGINE_MODEL_MODEL_SHAPE_H_
#define SVDSERVE_ENGINE_MODEL_MODEL_SHAPE_H_

#include <cstdint>
#include <vector>

namespace svdserve {

enum class Activation { kGelu, kGeluTanh, kRelu };
enum class HeadActivation { kIdentity, kTanh, kRelu, kGelu };

// Widths of heads that kernels take: the multiples of kHeadDimStep up to this.
inline constexpr int kMaxHeadDim = 128;
inline constexpr int kHeadDimStep = 16;

struct LayerShape {
  // Rank of each matrix; 0: it is dense.
  int query = 0;
  int key = 0;
  int value = 0;
  int attention_output = 0;
  int ffn_in = 0;
  int ffn_out = 0;
  // Width of each head's query and key, and of its value and output; 0: the
  // model's head_dim.
  int query_dim = 0;
  int value_dim = 0;
  friend bool operator==(const LayerShape&, const LayerShape&) = default;
};

struct ModelShape {
  int hidden = 0;
  int heads = 0;
  // hidden / heads. Scores are scaled by its 1/√, whatever a layer's widths
  // are.
  int head_dim = 0;
  int intermediate = 0;
  int vocab = 0;
  int max_positions = 0;
  int type_vocab = 0;  // token type ids are below it
  int max_tokens = 0;  // longest input that is served, special tokens included
  Activation activation = Activation::kGelu;
  std::vector<LayerShape> layers;
  std::vector<int> head_widths;  // output width of each HeadLayer
  // The widths of this layer's heads.
  int query_dim(const LayerShape& layer) const {
    return layer.query_dim == 0 ? head_dim : layer.query_dim;
  }
  int value_dim(const LayerShape& layer) const {
    return layer.value_dim == 0 ? head_dim : layer.value_dim;
  }
  // Width of one output row: the last head's, or hidden.
  int output_width() const {
    return head_widths.empty() ? hidden : head_widths.back();
  }
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_MODEL_MODEL_SHAPE_H_
