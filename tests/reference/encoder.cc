#include "tests/reference/encoder.h"

#include <cassert>
#include <cmath>
#include <utility>

#include "tests/reference/ops.h"

namespace svdserve {

class ReferenceEncoder::Impl {
 public:
  virtual ~Impl() = default;
  virtual std::vector<double> Run(const std::vector<int32_t>& ids,
                                  const std::vector<uint8_t>& type_ids,
                                  const ReferenceOptions& options) const = 0;
  virtual std::vector<std::vector<double>> Hidden(
      const std::vector<int32_t>& ids,
      const std::vector<uint8_t>& type_ids) const = 0;
};

namespace {

namespace ref = reference;

// The weights in one precision, and the forward pass over them.
template <typename R>
class Encoder : public ReferenceEncoder::Impl {
 public:
  using Value = typename R::Value;
  using Vector = std::vector<Value>;
  using Matrix = ref::Matrix<R>;

  explicit Encoder(const Model& model)
      : config_(model.config),
        shape_(model.shape),
        word_(ToMatrix(model.embeddings.word)),
        position_(ToMatrix(model.embeddings.position)),
        token_type_(ToMatrix(model.embeddings.token_type)),
        norm_(ToNorm(model.embeddings.norm)) {
    for (const EncoderLayer& layer : model.layers) {
      layers_.push_back(ToLayer(layer));
    }
    for (const HeadLayer& head : model.head) {
      heads_.emplace_back(ToLinear(head.linear), head.activation);
    }
  }

  std::vector<double> Run(const std::vector<int32_t>& ids,
                          const std::vector<uint8_t>& type_ids,
                          const ReferenceOptions& options) const override {
    Matrix x = Embed(ids, type_ids);
    for (const Layer& layer : layers_) x = Forward(layer, x);
    x = Pool(x);
    for (const auto& [linear, activation] : heads_) {
      x = ref::Activate(Apply(linear, x), activation);
    }
    Vector row = x.values;
    if (options.dimensions > 0) row.resize(options.dimensions);
    if (options.normalize) ref::Normalize<R>(row);
    return {row.begin(), row.end()};
  }

  std::vector<std::vector<double>> Hidden(
      const std::vector<int32_t>& ids,
      const std::vector<uint8_t>& type_ids) const override {
    std::vector<std::vector<double>> states;
    Matrix x = Embed(ids, type_ids);
    states.emplace_back(x.values.begin(), x.values.end());
    for (const Layer& layer : layers_) {
      x = Forward(layer, x);
      states.emplace_back(x.values.begin(), x.values.end());
    }
    return states;
  }

 private:
  struct Map {
    Matrix weight;  // [in, out], or
    Matrix u, v;    // [in, rank], [rank, out]
    Vector bias;
  };
  struct Norm {
    Vector gamma, beta;
  };
  struct Layer {
    Map query, key, value, attention_output;
    Norm attention_norm;
    Map ffn_in, ffn_out;
    Norm ffn_norm;
  };

  static Vector ToVector(const Tensor& tensor) {
    Vector values;
    for (const float value : tensor.ToF32()) values.push_back(R::Round(value));
    return values;
  }
  static Matrix ToMatrix(const Tensor& tensor) {
    if (tensor.empty()) return Matrix();
    Matrix matrix(static_cast<int>(tensor.shape()[0]),
                  static_cast<int>(tensor.shape()[1]));
    matrix.values = ToVector(tensor);
    return matrix;
  }
  static Matrix Transposed(const Matrix& a) {
    Matrix t(a.cols, a.rows);
    for (int i = 0; i < a.rows; ++i) {
      for (int j = 0; j < a.cols; ++j) t.row(j)[i] = a.row(i)[j];
    }
    return t;
  }
  static Map ToLinear(const Linear& linear) {
    return {.weight = Transposed(ToMatrix(linear.weight)),
            .u = ToMatrix(linear.u),
            .v = ToMatrix(linear.v),
            .bias = ToVector(linear.bias)};
  }
  static Norm ToNorm(const LayerNorm& norm) {
    return {.gamma = ToVector(norm.gamma), .beta = ToVector(norm.beta)};
  }
  static Layer ToLayer(const EncoderLayer& layer) {
    return {.query = ToLinear(layer.query),
            .key = ToLinear(layer.key),
            .value = ToLinear(layer.value),
            .attention_output = ToLinear(layer.attention_output),
            .attention_norm = ToNorm(layer.attention_norm),
            .ffn_in = ToLinear(layer.ffn_in),
            .ffn_out = ToLinear(layer.ffn_out),
            .ffn_norm = ToNorm(layer.ffn_norm)};
  }

  static Matrix Apply(const Map& map, const Matrix& x) {
    if (map.u.values.empty()) return ref::MatMul(x, map.weight, map.bias);
    return ref::MatMul(ref::MatMul(x, map.u, {}), map.v, map.bias);
  }
  Matrix Normed(const Norm& norm, const Matrix& x) const {
    return ref::LayerNorm(x, norm.gamma, norm.beta, config_.layer_norm_eps);
  }

  Matrix Embed(const std::vector<int32_t>& ids,
               const std::vector<uint8_t>& type_ids) const {
    assert(type_ids.empty() || type_ids.size() == ids.size());
    Matrix sum(static_cast<int>(ids.size()), shape_.hidden);
    for (int t = 0; t < sum.rows; ++t) {
      const Value* word = word_.row(ids[t]);
      const Value* type = token_type_.row(type_ids.empty() ? 0 : type_ids[t]);
      const Value* position = position_.row(t);
      for (int j = 0; j < sum.cols; ++j) {
        sum.row(t)[j] = R::Round(R::Round(word[j] + type[j]) + position[j]);
      }
    }
    return Normed(norm_, sum);
  }

  Matrix Forward(const Layer& layer, const Matrix& x) const {
    const Value scale = 1 / std::sqrt(static_cast<Value>(shape_.head_dim));
    const Matrix context =
        ref::Attention(Apply(layer.query, x), Apply(layer.key, x),
                       Apply(layer.value, x), shape_.heads, scale);
    const Matrix attended =
        Normed(layer.attention_norm,
               ref::Add(Apply(layer.attention_output, context), x));
    const Matrix inner =
        ref::Activate(Apply(layer.ffn_in, attended), shape_.activation);
    return Normed(layer.ffn_norm,
                  ref::Add(Apply(layer.ffn_out, inner), attended));
  }

  Matrix Pool(const Matrix& x) const {
    switch (config_.pooling) {
      case Pooling::kMean:
        return ref::MeanPool(x);
      case Pooling::kCls:
        return ref::ClsPool(x);
      case Pooling::kMax:
        return ref::MaxPool(x);
    }
    return Matrix();
  }

  const ModelConfig config_;
  const ModelShape shape_;
  const Matrix word_, position_, token_type_;
  const Norm norm_;
  std::vector<Layer> layers_;
  std::vector<std::pair<Map, HeadActivation>> heads_;
};

std::unique_ptr<const ReferenceEncoder::Impl> MakeEncoder(const Model& model,
                                                          Precision precision) {
  switch (precision) {
    case Precision::kF64:
      return std::make_unique<Encoder<ref::ExactF64>>(model);
    case Precision::kF32:
      return std::make_unique<Encoder<ref::PlainF32>>(model);
    case Precision::kBF16:
      return std::make_unique<Encoder<ref::PlainBF16>>(model);
  }
  return nullptr;
}

}  // namespace

ReferenceEncoder::ReferenceEncoder(const Model& model, Precision precision)
    : impl_(MakeEncoder(model, precision)) {}

ReferenceEncoder::~ReferenceEncoder() = default;

std::vector<double> ReferenceEncoder::Run(
    const std::vector<int32_t>& ids, const std::vector<uint8_t>& type_ids,
    const ReferenceOptions& options) const {
  return impl_->Run(ids, type_ids, options);
}

std::vector<std::vector<double>> ReferenceEncoder::Hidden(
    const std::vector<int32_t>& ids,
    const std::vector<uint8_t>& type_ids) const {
  return impl_->Hidden(ids, type_ids);
}

double RmsError(const std::vector<double>& a, const std::vector<double>& b) {
  assert(a.size() == b.size());
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

}  // namespace svdserve
