#include "kernels/cuda/hopper/tensor_map.h"

namespace svdserve::cuda::hopper {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// From the driver that is loaded, so that nothing links libcuda.
Encode FindEncode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result;
  const cudaError_t error = cudaGetDriverEntryPointByVersion(
      "cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result);
  if (error != cudaSuccess || result != cudaDriverEntryPointSuccess) {
    return nullptr;
  }
  return reinterpret_cast<Encode>(function);
}

CUtensorMapSwizzle SwizzleOf(Swizzle swizzle) {
  switch (swizzle) {
    case Swizzle::kNone:
      return CU_TENSOR_MAP_SWIZZLE_NONE;
    case Swizzle::k32Bytes:
      return CU_TENSOR_MAP_SWIZZLE_32B;
    case Swizzle::k64Bytes:
      return CU_TENSOR_MAP_SWIZZLE_64B;
    case Swizzle::k128Bytes:
      return CU_TENSOR_MAP_SWIZZLE_128B;
  }
  return CU_TENSOR_MAP_SWIZZLE_NONE;
}

// Dimensions from the innermost; strides of all but that, in bytes.
template <int kDimensions>
cudaError_t Make(Type type, const void* data,
                 const cuuint64_t (&sizes)[kDimensions],
                 const cuuint64_t (&strides)[kDimensions - 1],
                 const cuuint32_t (&box)[kDimensions], Swizzle swizzle,
                 CUtensorMap* map) {
  static const Encode encode = FindEncode();
  if (encode == nullptr) return cudaErrorNotSupported;
  cuuint32_t steps[kDimensions];
  for (cuuint32_t& step : steps) step = 1;
  const CUresult result = encode(
      map,
      type == Type::kBF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                          : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
      kDimensions, const_cast<void*>(data), sizes, strides, box, steps,
      CU_TENSOR_MAP_INTERLEAVE_NONE, SwizzleOf(swizzle),
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace

cudaError_t MakeTensorMap(const MatrixView& matrix, const Box& box,
                          CUtensorMap* map) {
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(matrix.columns),
                               static_cast<cuuint64_t>(matrix.rows)};
  const cuuint64_t strides[1] = {
      static_cast<cuuint64_t>(matrix.stride * kElementBytes)};
  const cuuint32_t box_sizes[2] = {static_cast<cuuint32_t>(box.columns),
                                   static_cast<cuuint32_t>(box.rows)};
  return Make(matrix.type, matrix.data, sizes, strides, box_sizes, box.swizzle,
              map);
}

cudaError_t MakeHeadsTensorMap(const HeadsView& view, const Box& box,
                               CUtensorMap* map) {
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(view.dim),
                               static_cast<cuuint64_t>(view.heads),
                               static_cast<cuuint64_t>(view.rows)};
  const cuuint64_t strides[2] = {
      static_cast<cuuint64_t>(view.dim * kElementBytes),
      static_cast<cuuint64_t>(view.stride * kElementBytes)};
  const cuuint32_t box_sizes[3] = {static_cast<cuuint32_t>(box.columns), 1,
                                   static_cast<cuuint32_t>(box.rows)};
  return Make(view.type, view.data, sizes, strides, box_sizes, box.swizzle,
              map);
}

cudaError_t MakeTensorMaps(std::initializer_list<TensorMapRequest> requests) {
  for (const TensorMapRequest& request : requests) {
    const cudaError_t error =
        MakeTensorMap(request.matrix, request.box, request.map);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace svdserve::cuda::hopper
