#include "engine/device/cuda_weights.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "engine/plan/cuda_shape.h"

namespace svdserve {
namespace {

constexpr uint64_t kAlignment = 256;

int PadRank(int rank) {
  return (rank + kCudaRankStep - 1) / kCudaRankStep * kCudaRankStep;
}

cuda::HeadActivation HeadKernelActivation(HeadActivation activation) {
  switch (activation) {
    case HeadActivation::kIdentity:
      return cuda::HeadActivation::kIdentity;
    case HeadActivation::kTanh:
      return cuda::HeadActivation::kTanh;
    case HeadActivation::kRelu:
      return cuda::HeadActivation::kRelu;
    case HeadActivation::kGelu:
      return cuda::HeadActivation::kGelu;
  }
  return cuda::HeadActivation::kIdentity;
}

// A matrix [in, out] in host memory, whichever way it is stored.
struct HostMatrix {
  std::vector<float> values;
  int in_stride = 0;
  int out_stride = 0;
  float At(int in, int out) const {
    return values[int64_t{1} * in * in_stride + int64_t{1} * out * out_stride];
  }
};

HostMatrix DenseOf(const Linear& linear) {
  return {linear.weight.ToF32(), 1, linear.in};
}
HostMatrix FirstOf(const Linear& linear) {
  return {linear.u.ToF32(), linear.rank, 1};
}
HostMatrix SecondOf(const Linear& linear) {
  return {linear.v.ToF32(), linear.out, 1};
}

// U·V.
HostMatrix ProductOf(const Linear& linear) {
  const HostMatrix u = FirstOf(linear);
  const HostMatrix v = SecondOf(linear);
  HostMatrix product{std::vector<float>(int64_t{1} * linear.in * linear.out),
                     linear.out, 1};
  for (int i = 0; i < linear.in; ++i) {
    for (int j = 0; j < linear.out; ++j) {
      double sum = 0;
      for (int k = 0; k < linear.rank; ++k) {
        sum += static_cast<double>(u.At(i, k)) * v.At(k, j);
      }
      product.values[int64_t{1} * i * linear.out + j] = static_cast<float>(sum);
    }
  }
  return product;
}

// Goes through a model twice: first it only counts bytes; then, when the device
// memory is there, it knows every address and writes every value to `host`.
class Packer {
 public:
  Packer(const Model& model, cuda::Type type)
      : model_(model), shape_(CudaShape(model.shape)), type_(type) {}

  uint64_t Count() {
    Pack();
    return used_;
  }
  absl::StatusOr<CudaWeights> PackTo(std::byte* device, std::byte* host) {
    device_ = device;
    host_ = host;
    CudaWeights weights = Pack();
    if (!status_.ok()) return status_;
    return weights;
  }

 private:
  CudaWeights Pack();
  CudaLayer PackLayer(const EncoderLayer& layer);
  CudaMatrix JointFactors(const EncoderLayer& layer);
  CudaProjection Projection(const Linear& linear, int* factor_column);
  CudaLinear PackLinear(const Linear& linear, int padded_in, int padded_out);
  CudaHead PackHead(const HeadLayer& layer);
  CudaNorm Norm(const LayerNorm& norm);
  const void* Table(const Tensor& tensor, const char* name);
  const float* Floats(const Tensor& tensor, int padded_size);

  // Takes `bytes` of the device; `write` fills their image on the host.
  template <typename Write>
  const void* Take(uint64_t bytes, Write&& write) {
    const uint64_t offset = used_;
    used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (host_ == nullptr) return nullptr;
    write(host_ + offset);
    return device_ + offset;
  }
  // [padded_out, padded_in], where `of` gives the matrix [in, out].
  template <typename Of>
  const void* Matrix(int in, int out, int padded_in, int padded_out, Of&& of) {
    return Take(uint64_t{1} * padded_in * padded_out * cuda::kElementBytes,
                [&](std::byte* to) {
                  const HostMatrix matrix = of();
                  auto* const bits = reinterpret_cast<uint16_t*>(to);
                  for (int o = 0; o < out; ++o) {
                    for (int i = 0; i < in; ++i) {
                      bits[int64_t{1} * o * padded_in + i] =
                          Round(matrix.At(i, o));
                    }
                  }
                });
  }
  uint16_t Round(float value) {
    if (type_ == cuda::Type::kBF16) {
      return __bfloat16_as_ushort(__float2bfloat16_rn(value));
    }
    constexpr float kLargest = 65504;
    if (std::isfinite(value) && std::fabs(value) > kLargest && status_.ok()) {
      status_ = absl::InvalidArgumentError(absl::StrFormat(
          "%s: %g is beyond float16, whose largest value is 65504; use "
          "bfloat16",
          where_, value));
    }
    return __half_as_ushort(__float2half_rn(value));
  }

  const Model& model_;
  const ModelShape shape_;
  const cuda::Type type_;
  std::byte* device_ = nullptr;
  std::byte* host_ = nullptr;  // null: counting
  uint64_t used_ = 0;
  std::string where_;
  absl::Status status_;
};

CudaWeights Packer::Pack() {
  used_ = 0;
  CudaWeights weights;
  weights.type = type_;
  weights.norm_eps = model_.config.layer_norm_eps;
  weights.word = Table(model_.embeddings.word, "word embeddings");
  weights.position = Table(model_.embeddings.position, "position embeddings");
  weights.token_type = Table(model_.embeddings.token_type, "type embeddings");
  weights.embedding_norm = Norm(model_.embeddings.norm);
  for (int i = 0; i < model_.layers.size(); ++i) {
    where_ = absl::StrFormat("layer %d", i);
    weights.layers.push_back(PackLayer(model_.layers[i]));
  }
  for (const HeadLayer& layer : model_.head) {
    weights.head.push_back(PackHead(layer));
  }
  return weights;
}

const void* Packer::Table(const Tensor& tensor, const char* name) {
  where_ = name;
  const int64_t size = tensor.size();
  return Take(size * cuda::kElementBytes, [&](std::byte* to) {
    const std::vector<float> values = tensor.ToF32();
    auto* const bits = reinterpret_cast<uint16_t*>(to);
    for (int64_t i = 0; i < size; ++i) bits[i] = Round(values[i]);
  });
}

const float* Packer::Floats(const Tensor& tensor, int padded_size) {
  if (tensor.empty()) return nullptr;
  return static_cast<const float*>(
      Take(padded_size * sizeof(float), [&](std::byte* to) {
        const std::vector<float> values = tensor.ToF32();
        std::memcpy(to, values.data(), values.size() * sizeof(float));
      }));
}

CudaNorm Packer::Norm(const LayerNorm& norm) {
  return {Floats(norm.gamma, shape_.hidden), Floats(norm.beta, shape_.hidden)};
}

// [r_q + r_k + r_v, hidden] of those matrices that are factored.
CudaMatrix Packer::JointFactors(const EncoderLayer& layer) {
  const Linear* linears[] = {&layer.query, &layer.key, &layer.value};
  int rows = 0;
  for (const Linear* linear : linears) rows += PadRank(linear->rank);
  if (rows == 0) return {};
  const int hidden = shape_.hidden;
  CudaMatrix joint = {.in = hidden, .out = rows};
  joint.w = Take(uint64_t{1} * rows * hidden * cuda::kElementBytes,
                 [&](std::byte* to) {
                   auto* bits = reinterpret_cast<uint16_t*>(to);
                   for (const Linear* linear : linears) {
                     if (linear->rank == 0) continue;
                     const HostMatrix u = FirstOf(*linear);
                     for (int r = 0; r < linear->rank; ++r) {
                       for (int i = 0; i < hidden; ++i) {
                         bits[int64_t{1} * r * hidden + i] = Round(u.At(i, r));
                       }
                     }
                     bits += int64_t{1} * PadRank(linear->rank) * hidden;
                   }
                 });
  return joint;
}

CudaProjection Packer::Projection(const Linear& linear, int* factor_column) {
  CudaProjection projection;
  projection.factored = linear.rank > 0;
  projection.factor_column = *factor_column;
  *factor_column += PadRank(linear.rank);
  projection.head_dim = linear.out / shape_.heads;
  projection.matrix = PackLinear(linear, linear.in, linear.out).second;
  return projection;
}

// Of a factored matrix that is one of Q, K and V, only `second` is there: its
// first factor is in the joint ones.
CudaLinear Packer::PackLinear(const Linear& linear, int padded_in,
                              int padded_out) {
  CudaLinear packed;
  const bool factored = linear.rank > 0;
  const int in = factored ? linear.rank : linear.in;
  packed.second = {.in = factored ? PadRank(linear.rank) : padded_in,
                   .out = padded_out};
  packed.second.w = Matrix(in, linear.out, packed.second.in, padded_out, [&] {
    return factored ? SecondOf(linear) : DenseOf(linear);
  });
  packed.second.bias = Floats(linear.bias, padded_out);
  return packed;
}

CudaLayer Packer::PackLayer(const EncoderLayer& layer) {
  const auto pack = [&](const Linear& linear, int padded_in, int padded_out) {
    CudaLinear packed = PackLinear(linear, padded_in, padded_out);
    if (linear.rank == 0) return packed;
    packed.first = {.in = padded_in, .out = PadRank(linear.rank)};
    packed.first.w = Matrix(linear.in, linear.rank, padded_in, packed.first.out,
                            [&] { return FirstOf(linear); });
    return packed;
  };
  CudaLayer packed;
  packed.qkv_factors = JointFactors(layer);
  int column = 0;
  packed.projections[0] = Projection(layer.query, &column);
  packed.projections[1] = Projection(layer.key, &column);
  packed.projections[2] = Projection(layer.value, &column);
  packed.attention_output =
      pack(layer.attention_output, layer.attention_output.in, shape_.hidden);
  packed.attention_norm = Norm(layer.attention_norm);
  packed.ffn_in = pack(layer.ffn_in, shape_.hidden, shape_.intermediate);
  packed.ffn_out = pack(layer.ffn_out, shape_.intermediate, shape_.hidden);
  packed.ffn_norm = Norm(layer.ffn_norm);
  return packed;
}

// Heads see one row an input: they are fp32, and a factored one is multiplied
// out.
CudaHead Packer::PackHead(const HeadLayer& layer) {
  const Linear& linear = layer.linear;
  CudaHead head = {.in = linear.in,
                   .out = linear.out,
                   .activation = HeadKernelActivation(layer.activation)};
  head.w = static_cast<const float*>(Take(
      uint64_t{1} * linear.in * linear.out * sizeof(float), [&](std::byte* to) {
        const HostMatrix matrix =
            linear.rank > 0 ? ProductOf(linear) : DenseOf(linear);
        auto* const values = reinterpret_cast<float*>(to);
        for (int o = 0; o < linear.out; ++o) {
          for (int i = 0; i < linear.in; ++i) {
            values[int64_t{1} * o * linear.in + i] = matrix.At(i, o);
          }
        }
      }));
  head.bias = Floats(linear.bias, linear.out);
  return head;
}

}  // namespace

absl::StatusOr<CudaWeights> PackForCuda(const Model& model, cuda::Type type,
                                        CudaRuntime* runtime) {
  Packer packer(model, type);
  const uint64_t bytes = packer.Count();
  auto memory = DeviceMemory::Allocate(runtime, bytes, "weights");
  if (!memory.ok()) return memory.status();
  std::vector<std::byte> host(bytes);
  absl::StatusOr<CudaWeights> weights =
      packer.PackTo(memory->data(), host.data());
  if (!weights.ok()) return weights.status();
  cudaError_t error = runtime->CopyIn(memory->data(), host.data(), bytes);
  if (error == cudaSuccess) error = runtime->Synchronize();
  if (error != cudaSuccess) {
    return CudaStatus(*runtime, "copying the weights", error);
  }
  weights->memory = *std::move(memory);
  return weights;
}

}  // namespace svdserve
