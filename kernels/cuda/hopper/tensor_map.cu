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

}  // namespace

cudaError_t MakeTensorMap(const MatrixView& matrix, const Box& box,
                          CUtensorMap* map) {
  static const Encode encode = FindEncode();
  if (encode == nullptr) return cudaErrorNotSupported;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(matrix.columns),
                               static_cast<cuuint64_t>(matrix.rows)};
  const cuuint64_t strides[1] = {
      static_cast<cuuint64_t>(matrix.stride * kElementBytes)};
  const cuuint32_t box_sizes[2] = {static_cast<cuuint32_t>(box.columns),
                                   static_cast<cuuint32_t>(box.rows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult result = encode(
      map,
      matrix.type == Type::kBF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
      2, const_cast<void*>(matrix.data), sizes, strides, box_sizes, steps,
      CU_TENSOR_MAP_INTERLEAVE_NONE, SwizzleOf(box.swizzle),
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
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
