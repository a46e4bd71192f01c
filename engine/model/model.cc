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
  void Add(const Linear& linear) {
    Add(linear.bias);
    if (linear.rank == 0) {
      Add(linear.weight);
      return;
    }
    stored += linear.u.byte_size() + linear.v.byte_size();
    dense += uint64_t{1} * linear.in * linear.out * BytesOf(linear.u.dtype());
  }
};

Bytes CountBytes(const Model& model) {
  Bytes bytes;
  bytes.Add(model.embeddings.word);
  bytes.Add(model.embeddings.position);
  bytes.Add(model.embeddings.token_type);
  bytes.Add(model.embeddings.norm);
  for (const EncoderLayer& layer : model.layers) {
    bytes.Add(layer.query);
    bytes.Add(layer.key);
    bytes.Add(layer.value);
    bytes.Add(layer.attention_output);
    bytes.Add(layer.attention_norm);
    bytes.Add(layer.ffn_in);
    bytes.Add(layer.ffn_out);
    bytes.Add(layer.ffn_norm);
  }
  for (const HeadLayer& head : model.head) bytes.Add(head.linear);
  return bytes;
}

}  // namespace

uint64_t Model::WeightBytes() const { return CountBytes(*this).stored; }
uint64_t Model::DenseEquivalentBytes() const { return CountBytes(*this).dense; }

}  // namespace svdserve
