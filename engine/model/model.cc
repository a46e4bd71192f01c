#include "engine/model/model.h"

namespace svdserve {
namespace {

struct Bytes {
  uint64_t stored = 0;
  uint64_t dense = 0;

  void Add(const Tensor& tensor) {
    stored += tensor.byte_size();
    dense += tensor.byte_size();
  }
  void Add(const LayerNorm& norm) {
    Add(norm.gamma);
    Add(norm.beta);
  }
  // Dense it is [in, out].
  void Add(const Linear& linear, int in, int out) {
    stored += linear.bias.byte_size() + linear.weight.byte_size() +
              linear.u.byte_size() + linear.v.byte_size();
    const Tensor& some = linear.rank == 0 ? linear.weight : linear.u;
    dense += uint64_t{1} * in * out * BytesOf(some.dtype());
    if (!linear.bias.empty()) {
      dense += uint64_t{1} * out * BytesOf(linear.bias.dtype());
    }
  }
};

Bytes CountBytes(const Model& model) {
  Bytes bytes;
  bytes.Add(model.embeddings.word);
  bytes.Add(model.embeddings.position);
  bytes.Add(model.embeddings.token_type);
  bytes.Add(model.embeddings.norm);
  for (const EncoderLayer& layer : model.layers) {
    const int d = model.shape.hidden;
    bytes.Add(layer.query, d, d);
    bytes.Add(layer.key, d, d);
    bytes.Add(layer.value, d, d);
    bytes.Add(layer.attention_output, d, d);
    bytes.Add(layer.attention_norm);
    bytes.Add(layer.ffn_in, d, layer.ffn_in.out);
    bytes.Add(layer.ffn_out, layer.ffn_out.in, d);
    bytes.Add(layer.ffn_norm);
  }
  for (const HeadLayer& head : model.head) {
    bytes.Add(head.linear, head.linear.in, head.linear.out);
  }
  return bytes;
}

}  // namespace

uint64_t Model::WeightBytes() const { return CountBytes(*this).stored; }
uint64_t Model::DenseEquivalentBytes() const { return CountBytes(*this).dense; }

}  // namespace svdserve
