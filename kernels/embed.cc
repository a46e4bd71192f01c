#include "kernels/embed.h"

#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/embed.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
// After foreach_target.h:
#include <hwy/highway.h>

#include "kernels/layer_norm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace svdserve::kernels::HWY_NAMESPACE {

template <typename T>
struct EmbeddingRow {
  const T* word;
  const T* position;
  const T* type;
  VF32 operator()(F32 d, size_t j) const {
    const VF32 sum =
        hn::Add(LoadAsFloat(d, word + j), LoadAsFloat(d, type + j));
    return hn::Add(sum, LoadAsFloat(d, position + j));
  }
  VF32 Some(F32 d, size_t j, size_t count) const {
    const VF32 sum =
        hn::Add(LoadSome(d, word + j, count), LoadSome(d, type + j, count));
    return hn::Add(sum, LoadSome(d, position + j, count));
  }
};

template <typename T, typename Y>
void Tokens(const EmbedParams& p) {
  const size_t width = p.width;
  for (int i = 0; i < p.tokens; ++i) {
    const EmbeddingRow<T> row{
        static_cast<const T*>(p.word) + p.ids[i] * width,
        static_cast<const T*>(p.position) + (p.first_position + i) * width,
        static_cast<const T*>(p.type) + p.types[i] * width};
    NormalizeRow(row, width, p.gamma, p.beta, p.eps,
                 static_cast<Y*>(p.y) + i * p.y_stride);
  }
}

void EmbedImpl(const EmbedParams& p) {
  const bool float_out = p.y_type == DataType::kF32;
  if (p.table_type == DataType::kF32) {
    float_out ? Tokens<float, float>(p) : Tokens<float, uint16_t>(p);
  } else {
    float_out ? Tokens<uint16_t, float>(p) : Tokens<uint16_t, uint16_t>(p);
  }
}

}  // namespace svdserve::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace svdserve::kernels {
namespace {

bool IndicesAreInside(const EmbedParams& p) {
  if (p.first_position < 0 || p.first_position + p.tokens > p.max_positions) {
    return false;
  }
  for (int i = 0; i < p.tokens; ++i) {
    if (p.ids[i] < 0 || p.ids[i] >= p.vocab || p.types[i] >= p.type_vocab) {
      return false;
    }
  }
  return true;
}

}  // namespace

HWY_EXPORT(EmbedImpl);

KernelStatus Embed(const EmbedParams& params) {
  if (params.tokens < 0 || params.width < 1 || params.ids == nullptr ||
      params.types == nullptr || params.word == nullptr ||
      params.position == nullptr || params.type == nullptr ||
      params.gamma == nullptr || params.beta == nullptr ||
      params.y == nullptr || !IndicesAreInside(params)) {
    return KernelStatus::kInvalidArgument;
  }
  HWY_DYNAMIC_DISPATCH(EmbedImpl)(params);
  return KernelStatus::kOk;
}

}  // namespace svdserve::kernels
#endif  // HWY_ONCE
