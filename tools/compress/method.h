// How one matrix becomes two factors. A method that needs more than the matrix
// (activations, for example) gets it when it is made.
//
// Thread-safe after construction: Factor() runs for many matrices at once.
#ifndef SVDSERVE_TOOLS_COMPRESS_METHOD_H_
#define SVDSERVE_TOOLS_COMPRESS_METHOD_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace svdserve {

// W [in, out] of y = x·W, stored as Hugging Face does: transposed.
struct DenseMatrix {
  std::string name;  // of the tensor, for messages
  int in = 0;
  int out = 0;
  std::vector<float> values;  // [out, in], row-major
};

// W ≈ U·V.
struct Factors {
  int rank = 0;
  std::vector<float> u;       // [in, rank], row-major
  std::vector<float> v;       // [rank, out], row-major
  double relative_error = 0;  // |W - U·V| / |W|, Frobenius, before rounding
};

class Method {
 public:
  virtual ~Method() = default;
  virtual std::string_view name() const = 0;
  // `rank` is within 1 and min(in, out). The values are finite.
  virtual absl::StatusOr<Factors> Factor(const DenseMatrix& matrix,
                                         int rank) const = 0;
};

// "svd": truncated singular value decomposition, the best approximation of the
// matrix itself. INVALID_ARGUMENT for any other name.
absl::StatusOr<std::unique_ptr<Method>> MakeMethod(std::string_view name);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_METHOD_H_
