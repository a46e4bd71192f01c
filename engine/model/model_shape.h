// What the planner needs to know of a model: sizes only, no weights.
#ifndef SVDSERVE_ENGINE_MODEL_MODEL_SHAPE_H_
#define SVDSERVE_ENGINE_MODEL_MODEL_SHAPE_H_

#include <cstdint>
#include <vector>

namespace svdserve {

enum class Activation { kGelu, kGeluTanh, kRelu };
enum class HeadActivation { kIdentity, kTanh, kRelu, kGelu };

// Rank of each matrix of a layer; 0 means that the matrix is dense.
struct LayerRanks {
  int query = 0;
  int key = 0;
  int value = 0;
  int attention_output = 0;
  int ffn_in = 0;
  int ffn_out = 0;
  friend bool operator==(const LayerRanks&, const LayerRanks&) = default;
};

struct ModelShape {
  int hidden = 0;
  int heads = 0;
  int head_dim = 0;
  int intermediate = 0;
  int vocab = 0;
  int max_positions = 0;
  int type_vocab = 0;  // token type ids are below it
  int max_tokens = 0;  // longest input that is served, special tokens included
  Activation activation = Activation::kGelu;
  std::vector<LayerRanks> layers;
  std::vector<int> head_widths;  // output width of each HeadLayer
  // Width of one output row: the last head's, or hidden.
  int output_width() const {
    return head_widths.empty() ? hidden : head_widths.back();
  }
};

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_MODEL_MODEL_SHAPE_H_
