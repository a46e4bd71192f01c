#include "engine/device/cpu_weights.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "kernels/attention.h"

namespace svdserve {
namespace {

using kernels::DataType;
using kernels::KernelStatus;
using kernels::PackedMatmul;
using kernels::PackedMatmulSpec;

// Columns that one call of a Q, K or V panel computes, at most. README.md tells
// the measurement.
constexpr int kProjectionPanel = 128;

kernels::Activation FfnActivation(Activation activation) {
  switch (activation) {
    case Activation::kGelu:
      return kernels::Activation::kGelu;
    case Activation::kGeluTanh:
      return kernels::Activation::kGeluTanh;
    case Activation::kRelu:
      return kernels::Activation::kRelu;
  }
  return kernels::Activation::kNone;
}

kernels::Activation HeadKernelActivation(HeadActivation activation) {
  switch (activation) {
    case HeadActivation::kIdentity:
      return kernels::Activation::kNone;
    case HeadActivation::kTanh:
      return kernels::Activation::kTanh;
    case HeadActivation::kRelu:
      return kernels::Activation::kRelu;
    case HeadActivation::kGelu:
      return kernels::Activation::kGelu;
  }
  return kernels::Activation::kNone;
}

// The largest divisor of `heads` whose columns fit into one panel, in every
// layer.
int HeadsPerPanel(const ModelShape& shape) {
  int widest = 0;
  for (const LayerShape& layer : shape.layers) {
    widest = std::max({widest, shape.query_dim(layer), shape.value_dim(layer)});
  }
  int best = 1;
  for (int unit = 2; unit <= shape.heads; ++unit) {
    if (shape.heads % unit == 0 && unit * widest <= kProjectionPanel) {
      best = unit;
    }
  }
  return best;
}

CpuNorm Norm(const LayerNorm& norm) {
  return {norm.gamma.ToF32(), norm.beta.ToF32()};
}

// U·V, [in, out].
std::vector<float> Product(const Linear& linear) {
  const std::vector<float> u = linear.u.ToF32();  // [in, rank]
  const std::vector<float> v = linear.v.ToF32();  // [rank, out]
  std::vector<float> product(uint64_t{1} * linear.in * linear.out);
  for (int i = 0; i < linear.in; ++i) {
    for (int j = 0; j < linear.out; ++j) {
      double sum = 0;
      for (int k = 0; k < linear.rank; ++k) {
        sum +=
            static_cast<double>(u[i * linear.rank + k]) * v[k * linear.out + j];
      }
      product[uint64_t{1} * i * linear.out + j] = static_cast<float>(sum);
    }
  }
  return product;
}

// Packs one model; remembers the first error and what all weights need.
class Packer {
 public:
  Packer(const Model& model, ComputeType compute, int workers)
      : model_(model), workers_(workers) {
    weights_.type =
        compute == ComputeType::kBF16 ? DataType::kBF16 : DataType::kF32;
    weights_.norm_eps = model.config.layer_norm_eps;
    weights_.heads_per_panel = HeadsPerPanel(model.shape);
    for (const LayerShape& layer : model.shape.layers) {
      weights_.scratch_bytes = std::max<uint64_t>(
          weights_.scratch_bytes,
          kernels::AttentionScratchBytes(model.shape.query_dim(layer),
                                         model.shape.value_dim(layer)));
    }
  }

  absl::StatusOr<CpuWeights> Pack() && {
    PackEmbeddings();
    for (int i = 0; i < model_.layers.size(); ++i) {
      where_ = absl::StrFormat("layer %d", i);
      weights_.layers.push_back(PackLayer(model_.layers[i]));
    }
    where_ = "head";
    for (const HeadLayer& layer : model_.head) PackHead(layer);
    if (!status_.ok()) return status_;
    return std::move(weights_);
  }

 private:
  void PackEmbeddings();
  CpuLayer PackLayer(const EncoderLayer& layer);
  void PackHead(const HeadLayer& layer);

  PackedMatrix QkvFactors(const EncoderLayer& layer);
  CpuProjection Projection(const Linear& linear, int factors,
                           int* factor_column);
  CpuLinear PackLinear(const Linear& linear, kernels::Activation activation,
                       DataType out_type);
  PackedMatrix Create(PackedMatmulSpec spec);
  CpuTable Table(const Tensor& tensor);
  CpuNorm CountedNorm(const LayerNorm& norm);

  const Model& model_;
  const int workers_;
  CpuWeights weights_;
  std::string where_;
  absl::Status status_;
};

PackedMatrix Packer::Create(PackedMatmulSpec spec) {
  spec.workers = workers_;
  PackedMatrix matrix;
  const KernelStatus status = PackedMatmul::Create(spec, &matrix.matmul);
  if (status != KernelStatus::kOk) {
    const std::string what = absl::StrFormat(
        "%s: cannot pack a %s matrix of %d x %d for this processor: %s", where_,
        spec.type == DataType::kBF16 ? "bfloat16" : "float32", spec.in,
        spec.out, kernels::KernelStatusName(status));
    const bool unsupported = status == KernelStatus::kUnsupported;
    status_.Update(unsupported ? absl::UnimplementedError(what)
                               : absl::InternalError(what));
    return {};
  }
  matrix.x_row_bytes = int64_t{1} *
                       (spec.x_stride > 0 ? spec.x_stride : spec.in) *
                       kernels::BytesOf(spec.type);
  matrix.y_element_bytes = kernels::BytesOf(spec.out_type);
  weights_.bytes += matrix.matmul->weight_bytes();
  weights_.scratch_bytes = std::max<uint64_t>(weights_.scratch_bytes,
                                              matrix.matmul->scratch_bytes());
  return matrix;
}

CpuTable Packer::Table(const Tensor& tensor) {
  CpuTable table;
  table.rows = static_cast<int>(tensor.shape()[0]);
  table.f32 = tensor.ToF32();
  if (weights_.type == DataType::kBF16) {
    table.bf16.resize(table.f32.size());
    kernels::ConvertToBf16(table.f32.data(), table.bf16.data(),
                           table.f32.size());
    table.f32 = {};
  }
  weights_.bytes += table.bytes();
  return table;
}

CpuNorm Packer::CountedNorm(const LayerNorm& norm) {
  weights_.bytes += 2 * sizeof(float) * model_.shape.hidden;
  return Norm(norm);
}

void Packer::PackEmbeddings() {
  weights_.word = Table(model_.embeddings.word);
  weights_.position = Table(model_.embeddings.position);
  weights_.token_type = Table(model_.embeddings.token_type);
  weights_.embedding_norm = CountedNorm(model_.embeddings.norm);
}

// [hidden, r_q + r_k + r_v] of those matrices that are factored.
PackedMatrix Packer::QkvFactors(const EncoderLayer& layer) {
  const Linear* linears[] = {&layer.query, &layer.key, &layer.value};
  int columns = 0;
  for (const Linear* linear : linears) columns += linear->rank;
  if (columns == 0) return {};
  std::vector<float> joint(uint64_t{1} * model_.shape.hidden * columns);
  int column = 0;
  for (const Linear* linear : linears) {
    if (linear->rank == 0) continue;
    const std::vector<float> u = linear->u.ToF32();  // [hidden, rank]
    for (int row = 0; row < linear->in; ++row) {
      std::copy_n(&u[uint64_t{1} * row * linear->rank], linear->rank,
                  &joint[uint64_t{1} * row * columns + column]);
    }
    column += linear->rank;
  }
  return Create({.in = model_.shape.hidden,
                 .out = columns,
                 .type = weights_.type,
                 .out_type = weights_.type,
                 .weight = joint.data(),
                 .weight_in_stride = columns,
                 .weight_out_stride = 1});
}

CpuProjection Packer::Projection(const Linear& linear, int factors,
                                 int* factor_column) {
  CpuProjection projection;
  projection.factored = linear.rank > 0;
  projection.factor_column = *factor_column;
  *factor_column += linear.rank;
  projection.head_dim = linear.out / model_.shape.heads;
  const std::vector<float> weight =
      (projection.factored ? linear.v : linear.weight).ToF32();
  const std::vector<float> bias =
      linear.bias.empty() ? std::vector<float>() : linear.bias.ToF32();
  const int panel = weights_.heads_per_panel * projection.head_dim;
  projection.matrix =
      Create({.in = projection.factored ? linear.rank : linear.in,
              .out = linear.out,
              .type = weights_.type,
              .out_type = weights_.type,
              .weight = weight.data(),
              .weight_in_stride = projection.factored ? linear.out : 1,
              .weight_out_stride = projection.factored ? 1 : linear.in,
              .bias = bias.empty() ? nullptr : bias.data(),
              .x_stride = projection.factored ? factors : linear.in,
              .panel = panel});
  return projection;
}

CpuLinear Packer::PackLinear(const Linear& linear,
                             kernels::Activation activation,
                             DataType out_type) {
  CpuLinear packed;
  const bool factored = linear.rank > 0;
  if (factored) {
    const std::vector<float> u = linear.u.ToF32();  // [in, rank]
    packed.first = Create({.in = linear.in,
                           .out = linear.rank,
                           .type = weights_.type,
                           .out_type = weights_.type,
                           .weight = u.data(),
                           .weight_in_stride = linear.rank,
                           .weight_out_stride = 1});
  }
  const std::vector<float> weight =
      (factored ? linear.v : linear.weight).ToF32();
  const std::vector<float> bias =
      linear.bias.empty() ? std::vector<float>() : linear.bias.ToF32();
  packed.second = Create({.in = factored ? linear.rank : linear.in,
                          .out = linear.out,
                          .type = weights_.type,
                          .out_type = out_type,
                          .weight = weight.data(),
                          .weight_in_stride = factored ? linear.out : 1,
                          .weight_out_stride = factored ? 1 : linear.in,
                          .bias = bias.empty() ? nullptr : bias.data(),
                          .activation = activation});
  return packed;
}

CpuLayer Packer::PackLayer(const EncoderLayer& layer) {
  CpuLayer packed;
  packed.qkv_factors = QkvFactors(layer);
  const int factors = layer.query.rank + layer.key.rank + layer.value.rank;
  int column = 0;
  packed.projections[0] = Projection(layer.query, factors, &column);
  packed.projections[1] = Projection(layer.key, factors, &column);
  packed.projections[2] = Projection(layer.value, factors, &column);
  packed.attention_output = PackLinear(
      layer.attention_output, kernels::Activation::kNone, DataType::kF32);
  packed.attention_norm = CountedNorm(layer.attention_norm);
  packed.ffn_in = PackLinear(
      layer.ffn_in, FfnActivation(model_.shape.activation), weights_.type);
  packed.ffn_out =
      PackLinear(layer.ffn_out, kernels::Activation::kNone, DataType::kF32);
  packed.ffn_norm = CountedNorm(layer.ffn_norm);
  return packed;
}

// Heads see one row an input: they are fp32 whatever the encoder is, and a
// factored one is multiplied out.
void Packer::PackHead(const HeadLayer& layer) {
  const Linear& linear = layer.linear;
  const bool factored = linear.rank > 0;
  const std::vector<float> weight =
      factored ? Product(linear) : linear.weight.ToF32();
  const std::vector<float> bias =
      linear.bias.empty() ? std::vector<float>() : linear.bias.ToF32();
  weights_.head.push_back(
      Create({.in = linear.in,
              .out = linear.out,
              .weight = weight.data(),
              .weight_in_stride = factored ? linear.out : 1,
              .weight_out_stride = factored ? 1 : linear.in,
              .bias = bias.empty() ? nullptr : bias.data(),
              .activation = HeadKernelActivation(layer.activation)}));
}

}  // namespace

const void* CpuTable::data() const {
  return bf16.empty() ? static_cast<const void*>(f32.data()) : bf16.data();
}

uint64_t CpuTable::bytes() const {
  return f32.size() * sizeof(float) + bf16.size() * sizeof(uint16_t);
}

absl::StatusOr<CpuWeights> PackForCpu(const Model& model, ComputeType compute,
                                      int workers) {
  return Packer(model, compute, workers).Pack();
}

}  // namespace svdserve
